package podlogs

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

func TestRules(t *testing.T) {
	list := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}}
	logs := rbacv1.PolicyRule{
		APIGroups: []string{""}, Resources: []string{"pods/log"}, ResourceNames: []string{"a", "b"},
		Verbs: []string{"get", "list", "watch"},
	}
	for _, test := range []struct {
		name     string
		pods     []string
		listPods bool
		want     []rbacv1.PolicyRule
	}{
		{"pods and list", []string{"a", "b"}, true, []rbacv1.PolicyRule{list, logs}},
		{"pods alone", []string{"a", "b"}, false, []rbacv1.PolicyRule{logs}},
		{"no pods", nil, true, []rbacv1.PolicyRule{list}},
		{"empty pods", []string{}, true, []rbacv1.PolicyRule{list}},
		{"nothing", nil, false, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, rules(test.pods, test.listPods)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestNarrowed(t *testing.T) {
	every := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods/log"}, Verbs: []string{"get", "list", "watch"}}}
	for _, test := range []struct {
		name            string
		got, want, less []rbacv1.PolicyRule
	}{
		{"a pod less", rules([]string{"a", "b"}, true), rules([]string{"b"}, true), rules([]string{"b"}, true)},
		{"a pod more", rules([]string{"b"}, true), rules([]string{"a", "b"}, true), rules([]string{"b"}, true)},
		{"other pods", rules([]string{"a"}, true), rules([]string{"b"}, true), rules(nil, true)},
		{"no pods", rules([]string{"a"}, true), rules(nil, true), rules(nil, true)},
		{"the first pods", nil, rules([]string{"a"}, true), nil},
		{"listing", rules([]string{"a"}, false), rules([]string{"a"}, true), rules([]string{"a"}, false)},
		{"no listing", rules([]string{"a"}, true), rules([]string{"a"}, false), rules([]string{"a"}, false)},
		{"edited: every pod", every, rules([]string{"a"}, false), nil},
		{"edited: two rules", append(rules([]string{"b"}, false), rules([]string{"a"}, false)...), rules([]string{"a", "b"}, false), rules([]string{"a", "b"}, false)},
		{"edited: everything", []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}}, rules([]string{"a"}, true), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			less := narrowed(&rbacv1.Role{Rules: test.got}, &rbacv1.Role{Rules: test.want})
			if diff := cmp.Diff(test.less, less.Rules); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestReferred(t *testing.T) {
	for _, test := range []struct {
		name, version, kind, object string
		want                        bool
	}{
		{"Deployment", "apps/v1", deployment, "web", true},
		{"older version", "apps/v1beta1", deployment, "web", true},
		{"longest name", "apps/v1", deployment, strings.Repeat("x", 240), true},
		{"too long for a ServiceAccount", "apps/v1", deployment, strings.Repeat("x", 241), false},
		{"other group", "example.com/v1", deployment, "web", false},
		{"core group", "v1", deployment, "web", false},
		{"group of another kind", "batch/v1", deployment, "web", false},
		{"malformed version", "a/b/c", deployment, "web", false},
		{"other kind", "apps/v1", replicaSet, "web", false},
		{"slash", "apps/v1", deployment, "web/../kube-system", false},
		{"upper case", "apps/v1", deployment, "Web", false},
		{"no name", "apps/v1", deployment, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			ref := &metav1.OwnerReference{APIVersion: test.version, Kind: test.kind, Name: test.object, UID: "1"}
			if _, got := referred(ref, deployment, cronJob); got != test.want {
				t.Errorf("got %t, want %t", got, test.want)
			}
		})
	}
	if _, ok := referred(nil, deployment); ok {
		t.Error("no reference refers to something")
	}
}

// FuzzReferred: what a reference says becomes a key and the name of a Role.
func FuzzReferred(f *testing.F) {
	f.Add("apps/v1", deployment, "web")
	f.Add("batch/v1", job, strings.Repeat("x", 253))
	f.Add("apps/v1", statefulSet, "a/b")
	f.Add("a/b/c", cronJob, "..")
	f.Fuzz(func(t *testing.T, version, kind, name string) {
		owner, ok := referred(&metav1.OwnerReference{APIVersion: version, Kind: kind, Name: name}, kinds()...)
		if !ok {
			return
		}
		if problems := validation.IsDNS1123Subdomain(prefix + owner.name); len(problems) > 0 || owner.kind != kind {
			t.Errorf("got %v: %v", owner, problems)
		}
	})
}

func TestElect(t *testing.T) {
	early, late := time.Unix(1000, 0), time.Unix(2000, 0)
	d, s := workload{deployment, "web", "1"}, workload{statefulSet, "web", "2"}
	ofD := &rbacv1.Role{ObjectMeta: objectMeta("ns", d)}
	ofS := &rbacv1.Role{ObjectMeta: objectMeta("ns", s)}
	both := map[workload][]string{d: {"web-x"}, s: {"web-0"}}
	is := func(created time.Time) answer { return answer{exists: true, labelled: true, created: created} }
	unlabelled, gone := answer{exists: true, created: early}, answer{}
	for _, test := range []struct {
		name    string
		members map[workload][]string
		role    *rbacv1.Role
		answers map[workload]answer
		want    workload
		losers  []workload
	}{
		{"the oldest", both, nil, map[workload]answer{d: is(late), s: is(early)}, s, []workload{d}},
		{"of one age, always the same", both, nil, map[workload]answer{d: is(early), s: is(early)}, d, []workload{s}},
		{"who has the Role", both, ofD, map[workload]answer{d: is(late), s: is(early)}, d, []workload{s}},
		{"who has the Role and no pods", map[workload][]string{s: {"web-0"}}, ofD, map[workload]answer{d: is(late), s: is(early)}, d, []workload{s}},
		{"who has the Role lost the label", map[workload][]string{s: {"web-0"}}, ofD, map[workload]answer{d: unlabelled, s: is(late)}, s, nil},
		{"who has the Role is gone", both, ofD, map[workload]answer{d: gone, s: is(late)}, s, nil},
		{"label removed, pods left", map[workload][]string{s: {"web-0"}}, ofS, map[workload]answer{s: unlabelled}, s, nil},
		{"no label, no pods", nil, ofS, map[workload]answer{s: unlabelled}, workload{}, nil},
		{"gone", nil, ofS, map[workload]answer{s: gone}, workload{}, nil},
		{"sole, not asked about", map[workload][]string{s: {"web-0"}}, nil, nil, s, nil},
		{"all gone, pods left", both, ofD, map[workload]answer{d: gone, s: gone}, workload{}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, losers := found{members: test.members, role: test.role}.elect(test.answers)
			if got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
			if diff := cmp.Diff(test.losers, losers, cmp.AllowUnexported(workload{})); diff != "" {
				t.Errorf("losers -want +got:\n%s", diff)
			}
		})
	}
}

// TestPace plays bursts of changes and counts the writes.
func TestPace(t *testing.T) {
	const ms = time.Millisecond
	every := func(d time.Duration, n int) []time.Duration {
		var at []time.Duration
		for i := range n {
			at = append(at, time.Duration(i)*d)
		}
		return at
	}
	for _, test := range []struct {
		name        string
		changes     []time.Duration
		isNew       bool
		least, most int           // writes
		last        time.Duration // the longest from the last change to the last write
	}{
		{"one pod", []time.Duration{0}, false, 1, 1, quiet},
		{"five at once", every(5*ms, 5), false, 1, 1, quiet},
		{"a new workload's five", every(60*ms, 5), true, 1, 1, quietNew},
		{"a new workload that goes on", every(100*ms, 100), true, 5, 12, longestGap},
		{"a hundred in three seconds", every(30*ms, 100), false, 4, 8, longestGap},
		{"a rollout of ten minutes", every(time.Second, 600), false, 290, 310, longestGap},
		{"one a minute", every(time.Minute, 10), false, 10, 10, quiet},
	} {
		t.Run(test.name, func(t *testing.T) {
			var p pace
			start := time.Unix(1000, 0)
			now, pending, writes, isNew := start, 0, 0, test.isNew
			for next := 0; next < len(test.changes) || pending > 0; {
				due := time.Duration(1 << 62)
				if pending > 0 {
					if due = p.wait(uint64(next), isNew, now); due == 0 {
						p.wrote(now)
						pending, isNew = 0, false
						writes++
						continue
					}
				}
				if next < len(test.changes) && start.Add(test.changes[next]).Sub(now) <= due {
					now = start.Add(test.changes[next])
					next++
					pending++
					continue
				}
				now = now.Add(due)
			}
			if writes < test.least || writes > test.most {
				t.Errorf("got %d writes, want %d to %d", writes, test.least, test.most)
			}
			if got := p.written.Sub(start) - test.changes[len(test.changes)-1]; got > test.last {
				t.Errorf("got the last write %s after the last change, want at most %s", got, test.last)
			}
		})
	}
}

func TestFullRole(t *testing.T) {
	task := newPlay(t)
	recorder := task.recorder
	owner := workload{deployment, "web", "1"}
	var names []string
	for i := range maxPods + 1 {
		names = append(names, fmt.Sprintf("web-%06d", i))
	}
	role := task.role("ns", plan{owner: owner, names: names})
	if got := role.Rules[1].ResourceNames; len(got) != maxPods || got[0] != "web-000000" {
		t.Errorf("got %d names from %s on, want the first %d", len(got), got[0], maxPods)
	}
	task.state("ns/web")
	for range 3 {
		task.settled("ns/web", found{role: role}, plan{owner: owner, names: names}, 0)
	}
	if got := <-recorder.Events; !strings.Contains(got, reasonFull) || !strings.Contains(got, "of 5001 pods") {
		t.Errorf("got Event %q, want %s", got, reasonFull)
	}
	if len(recorder.Events) > 0 {
		t.Errorf("it is told again: %s", <-recorder.Events)
	}
	if got := task.states["ns/web"].status; got != stateFull {
		t.Errorf("got state %s, want %s", got, stateFull)
	}
}

func TestMembers(t *testing.T) {
	task := newPlay(t)
	yes := true
	add := func(indexer interface{ Add(any) error }, namespace, name string, uid types.UID, owner metav1.OwnerReference) {
		t.Helper()
		owner.Controller = &yes
		object := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uid}}
		if owner.Kind != "" {
			object.OwnerReferences = []metav1.OwnerReference{owner}
		}
		slimmed, err := slim(object)
		if err != nil {
			t.Fatal(err)
		}
		if err := indexer.Add(slimmed); err != nil {
			t.Fatal(err)
		}
	}
	ref := func(version, kind, name string, uid types.UID) metav1.OwnerReference {
		return metav1.OwnerReference{APIVersion: version, Kind: kind, Name: name, UID: uid}
	}
	add(task.replicaSets, "a", "web-1", "rs1", ref("apps/v1", deployment, "web", "d"))
	add(task.replicaSets, "a", "web-2", "rs2", ref("apps/v1", deployment, "web", "d"))
	add(task.replicaSets, "a", "canary", "rs3", ref("argoproj.io/v1alpha1", "Rollout", "web", "r"))
	add(task.jobs, "a", "web", "j", metav1.OwnerReference{})
	for name, owner := range map[string]metav1.OwnerReference{
		"old": ref("apps/v1", replicaSet, "web-1", "rs1"), "new-b": ref("apps/v1", replicaSet, "web-2", "rs2"),
		"new-a": ref("apps/v1", replicaSet, "web-2", "rs2"), "rolled": ref("apps/v1", replicaSet, "canary", "rs3"),
		"other-uid": ref("apps/v1", replicaSet, "web-1", "rs9"), "worker": ref("batch/v1", job, "web", "j"),
		"web-0": ref("apps/v1", statefulSet, "web", "s"), "loose": {},
		"other-kind": ref("batch/v1", job, "web-1", "rs1"),
	} {
		add(task.pods, "a", name, types.UID("pod-"+name), owner)
	}
	add(task.pods, "b", "elsewhere", "pod-elsewhere", ref("apps/v1", replicaSet, "web-1", "rs1"))
	want := map[workload][]string{
		{deployment, "web", "d"}:  {"new-a", "new-b", "old"},
		{statefulSet, "web", "s"}: {"web-0"},
		{job, "web", "j"}:         {"worker"},
	}
	if diff := cmp.Diff(want, task.members("a/web"), cmp.AllowUnexported(workload{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := task.members("b/web"); len(got) > 0 {
		t.Errorf("got %v in the other namespace, want none", got)
	}
}
