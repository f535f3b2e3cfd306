package clusterstatus

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
)

// numbers are those of a status, under whatever names its kind has for them.
type numbers struct{ desired, existing, updated, ready int32 }

// situation is what the API shows of a target.
type situation struct {
	name   string
	of     numbers
	change func(*metav1.ObjectMeta, *int64) // of the metadata and status.observedGeneration
	detail func(*appsv1.Deployment)         // makes it one of Deployments alone
	absent bool
	watch  func(*stream)
	behind time.Duration // since it was first seen so
	want   [4]state      // with AllOfThem, AtLeastOne, AtLeast 2, Percentage 50
}

func always(s state) [4]state { return [4]state{s, s, s, s} }

// situations are those that all kinds with replicas have.
func situations() []situation {
	unseen := func(_ *metav1.ObjectMeta, observed *int64) { *observed = 0 }
	older := func(m *metav1.ObjectMeta, _ *int64) { m.Generation++ }
	return []situation{
		{name: "all ready", of: numbers{3, 3, 3, 3}, want: always(healthy)},
		{name: "more ready than desired", of: numbers{2, 5, 2, 5}, want: always(healthy)},
		{name: "none ready", of: numbers{3, 3, 3, 0}, want: always(noneReady)},
		{name: "blocked by a quota", of: numbers{3, 0, 0, 0}, want: always(uncreated)},
		{name: "partly blocked by a quota", of: numbers{3, 2, 2, 2}, want: [4]state{uncreated, healthy, healthy, healthy}},
		{name: "one ready", of: numbers{3, 3, 3, 1}, want: [4]state{tooFewReady, healthy, tooFewReady, tooFewReady}},
		{name: "exactly half ready", of: numbers{4, 4, 4, 2}, want: [4]state{tooFewReady, healthy, healthy, healthy}},
		{name: "less than half ready", of: numbers{5, 5, 5, 2}, want: [4]state{tooFewReady, healthy, healthy, tooFewReady}},
		{name: "half rolled out", of: numbers{4, 4, 2, 2}, want: [4]state{rollingOut, healthy, healthy, healthy}},
		{name: "half rolled out, none ready", of: numbers{4, 4, 2, 0}, want: always(rollingOut)},
		{name: "rollout that surges", of: numbers{3, 4, 1, 3}, want: always(healthy)},
		{name: "rolled out, new pods not ready", of: numbers{4, 4, 4, 0}, want: always(noneReady)},
		// A DaemonSet that no node matches among them.
		{name: "zero desired", of: numbers{0, 0, 0, 0}, want: [4]state{healthy, noneReady, noneReady, healthy}},
		{name: "zero desired, pods still there", of: numbers{0, 3, 3, 3}, want: [4]state{healthy, noneReady, noneReady, healthy}},
		{name: "one desired and ready", of: numbers{1, 1, 1, 1}, want: [4]state{healthy, healthy, tooFewReady, healthy}},
		{name: "never looked at", of: numbers{3, 0, 0, 0}, change: unseen, want: always(unobserved)},
		{name: "never looked at, none desired", change: unseen, want: always(unobserved)},
		// The numbers are a moment older than the spec.
		{name: "just scaled up", of: numbers{5, 3, 3, 3}, change: older, behind: longestLag - time.Second, want: [4]state{uncreated, healthy, healthy, healthy}},
		{name: "just scaled down", of: numbers{3, 5, 5, 5}, change: older, behind: longestLag - time.Second, want: always(healthy)},
		{name: "controller behind for long", of: numbers{3, 3, 3, 3}, change: older, behind: longestLag, want: always(unobserved)},
		{name: "being deleted", of: numbers{3, 3, 3, 3}, change: func(m *metav1.ObjectMeta, _ *int64) { m.DeletionTimestamp = &metav1.Time{Time: now} }, want: always(deleting)},
		{name: "missing", absent: true, want: always(missing)},
	}
}

// watches are the situations of a watch, whatever it has shown.
func watches() []situation {
	denied := apierrors.NewForbidden(schema.GroupResource{Resource: "deployments"}, "", errors.New("no"))
	all := numbers{3, 3, 3, 3}
	return []situation{
		{name: "forbidden", absent: true, watch: func(s *stream) { s.current, s.refused = nil, denied }, want: always(forbidden)},
		{name: "forbidden later", of: all, watch: func(s *stream) { s.current, s.refused = nil, denied }, want: always(forbidden)},
		{name: "API server unreachable", of: all, watch: func(s *stream) { s.current, s.refused = nil, errors.New("connection refused") }, want: always(unknown)},
		{name: "watch ended, not opened again", of: all, watch: func(s *stream) { s.current, s.heard = nil, now.Add(-time.Minute) }, want: always(unknown)},
		{name: "not current: bookmarks stay away", of: all, watch: func(s *stream) { s.marks, s.heard = true, now.Add(-time.Hour) }, want: always(unknown)},
		{name: "not current: being listed anew", of: all, watch: func(s *stream) { s.listing = true }, want: always(unknown)},
	}
}

// rollouts are the situations that only Deployments have.
func rollouts() []situation {
	progress := func(status corev1.ConditionStatus, reason string, more ...appsv1.DeploymentCondition) func(*appsv1.Deployment) {
		return func(d *appsv1.Deployment) {
			d.Status.Conditions = append(more, appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: status, Reason: reason})
		}
	}
	recreate := func(change func(*appsv1.Deployment)) func(*appsv1.Deployment) {
		return func(d *appsv1.Deployment) {
			d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
			change(d)
		}
	}
	late := progress(corev1.ConditionFalse, progressDeadlineExceeded)
	going := progress(corev1.ConditionTrue, "ReplicaSetUpdated")
	refused := appsv1.DeploymentCondition{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate"}
	return []situation{
		{name: "past its deadline, old pods serve", of: numbers{3, 4, 1, 3}, detail: late, want: [4]state{stalled, healthy, healthy, healthy}},
		{name: "past its deadline, too few serve", of: numbers{4, 4, 1, 1}, detail: late, want: [4]state{stalled, healthy, stalled, stalled}},
		{name: "paused half-way", of: numbers{4, 4, 2, 3}, detail: progress(corev1.ConditionUnknown, "DeploymentPaused"), want: [4]state{rollingOut, healthy, healthy, healthy}},
		{name: "replacing all at once", of: numbers{3, 0, 0, 0}, detail: recreate(going), want: always(rollingOut)},
		{name: "replacing all at once, blocked by a quota", of: numbers{3, 0, 0, 0}, detail: recreate(progress(corev1.ConditionTrue, "ReplicaSetUpdated", refused)), want: always(uncreated)},
		{name: "replaced all at once, pods evicted since", of: numbers{3, 0, 0, 0}, detail: recreate(progress(corev1.ConditionTrue, rolledOut)), want: always(uncreated)},
		{name: "rolling, none exist", of: numbers{3, 0, 0, 0}, detail: going, want: always(uncreated)},
	}
}

// shown is an informer whose store a test fills.
type shown struct {
	cache.SharedIndexInformer
	store cache.Indexer
}

func (shown) HasSynced() bool             { return true }
func (s shown) GetIndexer() cache.Indexer { return s.store }

// source is a watch that has shown the situation.
func (s situation) source(t *testing.T, kind string) *source {
	t.Helper()
	made := &source{informer: shown{store: cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})}}
	made.stream.current, made.stream.heard = &following{}, now
	if s.watch != nil {
		s.watch(&made.stream)
	}
	if s.absent {
		return made
	}
	object, err := trim(s.object(kind))
	if err == nil {
		err = made.informer.GetIndexer().Add(object)
	}
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (s situation) object(kind string) any {
	meta, observed := metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u", Generation: 2}, int64(2)
	if s.change != nil {
		s.change(&meta, &observed)
	}
	switch kind {
	case daemonSet:
		return &appsv1.DaemonSet{ObjectMeta: meta, Status: appsv1.DaemonSetStatus{
			ObservedGeneration: observed, DesiredNumberScheduled: s.of.desired, CurrentNumberScheduled: s.of.existing,
			UpdatedNumberScheduled: s.of.updated, NumberReady: s.of.ready,
		}}
	case statefulSet:
		return &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Replicas: &s.of.desired}, Status: appsv1.StatefulSetStatus{
			ObservedGeneration: observed, Replicas: s.of.existing, UpdatedReplicas: s.of.updated, ReadyReplicas: s.of.ready,
		}}
	}
	d := &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Replicas: &s.of.desired}, Status: appsv1.DeploymentStatus{
		ObservedGeneration: observed, Replicas: s.of.existing, UpdatedReplicas: s.of.updated, ReadyReplicas: s.of.ready,
	}}
	if s.detail != nil {
		s.detail(d)
	}
	return d
}

// looking is a task that has only sources to look at.
func looking(targets []Target, sources ...*source) *Task {
	return &Task{
		opts: Options{Targets: targets}, sources: sources, log: slog.New(slog.DiscardHandler), present: newPresent(),
		told: make([]verdict, len(targets)), lags: make([]lags, len(targets)),
	}
}

// TestEveryModeOfEveryState is the table of docs/clusterstatus.md, from the object in
// the API to the value.
func TestEveryModeOfEveryState(t *testing.T) {
	all := append(append(situations(), watches()...), rollouts()...)
	for _, kind := range []string{deployment, statefulSet, daemonSet} {
		for _, s := range all {
			if s.detail != nil && kind != deployment {
				continue
			}
			t.Run(kind+"/"+s.name, func(t *testing.T) {
				var got [4]state
				for i, target := range []Target{{Mode: AllOfThem}, {Mode: AtLeastOne}, {Mode: AtLeast, Count: 2}, {Mode: Percentage, Percentage: 50}} {
					target.Kind, target.Namespace, target.Name = kind, "shop", "web"
					task := looking([]Target{target}, s.source(t, kind))
					task.look(now.Add(-s.behind))
					found := task.look(now)
					v := found.verdicts[0]
					if got[i] = v.state; v.reason == "" {
						t.Errorf("%s: no reason", target.Mode)
					}
					if found.known != (v.state != unknown) || found.known && found.value != map[bool]float64{true: 1}[v.state == healthy] {
						t.Errorf("%s: got value %v, known %v", v.state, found.value, found.known)
					}
				}
				if diff := cmp.Diff(got, s.want); diff != "" {
					t.Errorf("AllOfThem, AtLeastOne, AtLeast 2, Percentage 50 (-got +want):\n%s", diff)
				}
			})
		}
	}
}

// TestSpecThatKeepsChanging hides no controller that does not work, nor does a moment
// of doubt.
func TestSpecThatKeepsChanging(t *testing.T) {
	s := situation{of: numbers{3, 3, 3, 3}}
	src := s.source(t, deployment)
	task := looking([]Target{{Kind: deployment, Namespace: "shop", Name: "web", Mode: AllOfThem}}, src)
	show := func(generation, observed int64) {
		s.change = func(m *metav1.ObjectMeta, o *int64) { m.Generation, *o = generation, observed }
		object, err := trim(s.object(deployment))
		if err == nil {
			err = src.informer.GetIndexer().Update(object)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	judged := func(after time.Duration) state {
		src.stream.heard = now.Add(after)
		return task.look(now.Add(after)).verdicts[0].state
	}
	for i := range int64(8) {
		show(3+i, 2)
		src.stream.listing = i == 5
		want := healthy
		switch {
		case i == 5:
			want = unknown
		case i >= 4: // two minutes
			want = unobserved
		}
		if got := judged(time.Duration(i) * 30 * time.Second); got != want {
			t.Errorf("generation %d, observed 2: got %s, want %s", 3+i, got, want)
		}
	}
	show(11, 9) // its controller works again, and is behind again
	if got := judged(5 * time.Minute); got != healthy {
		t.Errorf("newer numbers: got %s, want %s", got, healthy)
	}
}
