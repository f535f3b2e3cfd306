package clusterstatus

import (
	"fmt"
	"time"
)

// Target is a workload, or several by a selector, and what makes it healthy. Its
// fields are those of the configuration's leader.clusterStatus.targets, where they
// have been checked.
type Target struct {
	Kind       string // "DaemonSet", "Deployment", "StatefulSet", "Job" or "CronJob"
	Namespace  string
	Name       string // either this or Selector
	Selector   string // of the workload's own labels, e.g. "tier=front"
	AllowEmpty bool   // a selector that matches nothing is healthy
	Mode       Mode
	Count      int           // with AtLeast
	Percentage int           // with Percentage, 1 to 100
	Within     time.Duration // with LastRunSucceeded; zero means any time
}

// Mode is the rule by which a target is judged.
type Mode string

// The modes. LastRunSucceeded is that of Jobs and CronJobs, the others are those
// of what has replicas.
const (
	AllOfThem        Mode = "AllOfThem"
	AtLeastOne       Mode = "AtLeastOne"
	AtLeast          Mode = "AtLeast"
	Percentage       Mode = "Percentage"
	LastRunSucceeded Mode = "LastRunSucceeded"
)

// The kinds of targets.
const (
	daemonSet   = "DaemonSet"
	deployment  = "Deployment"
	statefulSet = "StatefulSet"
	job         = "Job"
	cronJob     = "CronJob"
)

func (t Target) check() error {
	switch t.Kind {
	case daemonSet, deployment, statefulSet:
		if t.Mode == AllOfThem || t.Mode == AtLeastOne || t.Mode == AtLeast || t.Mode == Percentage {
			return nil
		}
	case job, cronJob:
		if t.Mode == LastRunSucceeded {
			return nil
		}
	}
	return fmt.Errorf("target %s: no mode %q for it", t, t.Mode)
}

// label is the name, or the selector in its place.
func (t Target) label() string {
	if t.Name != "" {
		return t.Name
	}
	return t.Selector
}

// String is for logs, e.g. "Deployment shop/cart".
func (t Target) String() string { return t.Kind + " " + t.Namespace + "/" + t.label() }
