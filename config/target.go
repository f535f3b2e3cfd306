package config

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Target is a workload, or several by a selector, and what makes it healthy.
type Target struct {
	// Kind is "DaemonSet", "Deployment", "StatefulSet", "Job" or "CronJob".
	// Required.
	Kind string `json:"kind"`
	// Namespace is where the workload is. Required.
	Namespace string `json:"namespace"`
	// Name is the workload's name. Either this or Selector is required.
	Name string `json:"name"`
	// Selector is a selector of the workloads' own labels, as kubectl takes it,
	// e.g. "tier=front". Each workload that it matches must be healthy; Jobs that it
	// matches count as the runs of one thing, of which the last that ended must be.
	Selector string `json:"selector"`
	// AllowEmpty makes a selector that matches nothing healthy. False by default.
	AllowEmpty bool `json:"allowEmpty"`
	// Mode is the rule by which the workload is judged. Required.
	Mode Mode `json:"mode"`
	// Count is how many replicas must be ready with mode AtLeast, 1 or more.
	Count int `json:"count"`
	// Percentage is the share of the desired replicas that must be ready with
	// mode Percentage, 1 to 100.
	Percentage int `json:"percentage"`
	// Within is how long ago the last successful run may have ended with mode
	// LastRunSucceeded, e.g. "26h". Zero means any time, and is refused for
	// CronJobs: one that no longer runs would stay healthy for ever.
	Within metav1.Duration `json:"within"`
}

// Mode is the rule by which a target is judged.
type Mode string

// The modes. The first four are for DaemonSets, Deployments and StatefulSets,
// the last is for Jobs and CronJobs.
const (
	AllOfThem        Mode = "AllOfThem"        // every desired replica is ready
	AtLeastOne       Mode = "AtLeastOne"       // one desired replica is ready
	AtLeast          Mode = "AtLeast"          // Count desired replicas are ready
	Percentage       Mode = "Percentage"       // Percentage of the desired replicas are ready
	LastRunSucceeded Mode = "LastRunSucceeded" // the last run succeeded, and Within
)

// kindJob and kindCronJob are the kinds that run to an end.
const (
	kindJob     = "Job"
	kindCronJob = "CronJob"
)

// Kinds lists what a target can be.
func Kinds() []string {
	return []string{"DaemonSet", "Deployment", "StatefulSet", kindJob, kindCronJob}
}

// Modes lists how targets of a kind can be judged.
func Modes(kind string) []string {
	if kind == kindJob || kind == kindCronJob {
		return []string{string(LastRunSucceeded)}
	}
	return []string{string(AllOfThem), string(AtLeastOne), string(AtLeast), string(Percentage)}
}

func (t Target) validate(path string, ps *problems) {
	ps.oneOf(path+".kind", t.Kind, Kinds()...)
	ps.dnsLabel(path+".namespace", t.Namespace)
	t.validateChoice(path, ps)
	if slices.Contains(Kinds(), t.Kind) {
		ps.oneOf(path+".mode", string(t.Mode), Modes(t.Kind)...)
		t.validateMode(path, ps)
	}
}

// validateChoice is about which workloads are meant.
func (t Target) validateChoice(path string, ps *problems) {
	switch {
	case t.Name == "" && t.Selector == "":
		ps.addBare(path+".name", "want the name of a workload here, or a label selector as %s.selector", path)
	case t.Name != "" && t.Selector != "":
		ps.add(path+".selector", t.Selector, "want either a name or a selector")
	case t.Name != "":
		ps.objectName(path+".name", t.Name)
	default:
		if _, err := labels.Parse(t.Selector); err != nil || !printableASCII(t.Selector) {
			ps.add(path+".selector", t.Selector, "want a label selector such as %q", "tier=front,app in (web,api)")
		}
	}
	if t.AllowEmpty && t.Selector == "" {
		ps.add(path+".allowEmpty", t.AllowEmpty, "has a meaning only with a selector")
	}
}

// validateMode is about the keys that go with single modes.
func (t Target) validateMode(path string, ps *problems) {
	ps.onlyWith(path+".count", t.Count, t.Mode, AtLeast)
	ps.onlyWith(path+".percentage", t.Percentage, t.Mode, Percentage)
	ps.onlyWith(path+".within", int(t.Within.Duration), t.Mode, LastRunSucceeded)
	switch t.Mode {
	case AtLeast:
		ps.number(path+".count", t.Count, 1, 100_000, "the replicas that must be ready")
	case Percentage:
		ps.number(path+".percentage", t.Percentage, 1, 100, "a share of the desired replicas, in percent")
	case LastRunSucceeded:
		if t.Within.Duration != 0 || t.Kind == kindCronJob {
			ps.duration(path+".within", t.Within, time.Minute, 366*24*time.Hour,
				"the time since the last success; without it a CronJob that no longer runs would stay healthy")
		}
	}
}

// onlyWith reports a key that is given although the mode has no use for it.
func (ps *problems) onlyWith(path string, value int, mode, want Mode) {
	if value != 0 && mode != want {
		ps.addBare(path, "has a meaning only with mode %s; remove it or change the mode", want)
	}
}
