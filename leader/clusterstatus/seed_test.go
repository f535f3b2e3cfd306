package clusterstatus

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
)

// rows are those of the table of docs/clusterstatus.md that one situation stands for.
func rows() map[string]string {
	return map[string]string{
		"all 3 ready":         "all ready",
		"3 exist, none ready": "none ready",
		"3 wanted, none exist (a quota, admission, no permission)": "blocked by a quota",
		"3 wanted, 2 exist and are ready":                          "partly blocked by a quota",
		"1 of 3 ready":                                             "one ready",
		"2 of 4 ready":                                             "exactly half ready",
		"half rolled out, 2 of 4 ready":                            "half rolled out",
		"rollout under way, all 3 desired ready":                   "rollout that surges",
		"rollout past its progress deadline, the old pods serve":   "past its deadline, old pods serve",
		"`strategy: Recreate` between the old pods and the new":    "replacing all at once",
		"scaled to 0":                           "zero desired",
		"DaemonSet that no node matches":        "zero desired",
		"desired 1 and ready":                   "one desired and ready",
		"its controller has never looked at it": "never looked at",
		"there is none, or no such namespace":   "missing",
		"RBAC does not let us watch it":         "forbidden",
		"its watch is not current":              "API server unreachable",
	}
}

// seed is what kubestatus2cloudwatch 2.0.2 says with AllOfThem and AtLeastOne. It takes
// the numbers for each other, and whatever it cannot get for unhealthy.
func (s situation) seed(kind string) [2]bool {
	if s.absent || s.watch != nil {
		return [2]bool{}
	}
	var got, want int32
	switch o := s.object(kind).(type) {
	case *appsv1.DaemonSet:
		got, want = o.Status.DesiredNumberScheduled, o.Status.NumberReady
	case *appsv1.StatefulSet:
		got, want = o.Status.Replicas, o.Status.ReadyReplicas
	case *appsv1.Deployment:
		got, want = o.Status.Replicas, o.Status.ReadyReplicas
	}
	return [2]bool{got == want, want == 0 || got > 0}
}

// cells are those of a situation's row, but for the first.
func (s situation) cells(kind string) []string {
	number := map[bool]string{true: "1", false: "0"}
	named := healthy
	var cells []string
	for _, want := range s.want {
		cells = append(cells, number[want == healthy])
		if named == healthy {
			named = want
		}
	}
	if named == unknown {
		cells = []string{"nothing known", "", "", ""}
	}
	seed := s.seed(kind)
	var differs []string
	for i, mode := range []Mode{AllOfThem, AtLeastOne} {
		if cells[i] != number[seed[i]] {
			differs = append(differs, fmt.Sprintf("`%s` %s", mode, number[seed[i]]))
		}
	}
	if len(differs) == 2 && seed[0] == seed[1] {
		differs = []string{"both " + number[seed[0]]}
	}
	return append(cells, "`"+string(named)+"`", strings.Join(differs, ", "))
}

// TestDocumentedStates holds the table of docs/clusterstatus.md to the situations.
func TestDocumentedStates(t *testing.T) {
	text, err := os.ReadFile("../../docs/clusterstatus.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if first, rest, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | "); ok {
			documented[first] = rest
		}
	}
	byName := map[string]situation{}
	for _, s := range append(append(situations(), watches()...), rollouts()...) {
		byName[s.name] = s
	}
	for row, name := range rows() {
		kind := deployment
		if strings.HasPrefix(row, daemonSet) {
			kind = daemonSet
		}
		want := strings.Fields(strings.Join(byName[name].cells(kind), " | ") + " |")
		if diff := cmp.Diff(strings.Fields(documented[row]), want); diff != "" {
			t.Errorf("row %q (-got +want):\n%s", row, diff)
		}
	}
}
