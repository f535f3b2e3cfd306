package clusterstatus

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// many returns targets of one kind: so many in each of so many namespaces.
func many(kind string, namespaces, each int) []Target {
	var targets []Target
	for i := range namespaces {
		for j := range each {
			targets = append(targets, Target{Kind: kind, Namespace: fmt.Sprint("n", i), Name: fmt.Sprint("w", j)})
		}
	}
	return targets
}

func TestPlan(t *testing.T) {
	selected := Target{Kind: deployment, Namespace: "n0", Selector: "a=b"}
	for _, test := range []struct {
		name    string
		targets []Target
		first   scope
		count   int // of watches
	}{
		{"few names", many(deployment, 1, maxNamed), scope{deployment, "n0", "w0", ""}, maxNamed},
		{"the same name twice", append(many(deployment, 1, maxNamed), many(deployment, 1, maxNamed)...), scope{deployment, "n0", "w0", ""}, maxNamed},
		{"many names of a namespace", many(deployment, 1, maxNamed+1), scope{deployment, "n0", "", ""}, 1},
		{"kinds count by themselves", append(many(deployment, 1, maxNamed), many(daemonSet, 1, maxNamed)...), scope{deployment, "n0", "w0", ""}, 2 * maxNamed},
		{"as many watches as may be", many(deployment, maxWatches, 1), scope{deployment, "n0", "w0", ""}, maxWatches},
		{"too many watches", many(deployment, maxWatches+1, 1), scope{deployment, "", "", ""}, 1},
		{"too many watches of names, few of namespaces", many(deployment, maxWatches, maxNamed+1), scope{deployment, "n0", "", ""}, maxWatches},
		{"a selector stays", append(many(deployment, maxWatches, 1), selected), scope{deployment, "", "", ""}, 2},
		{"a selector among many names", append([]Target{selected}, many(deployment, 1, maxNamed+1)...), scope{deployment, "n0", "", "a=b"}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := plan(test.targets)
			watches := map[scope]bool{}
			for _, s := range got {
				watches[s] = true
			}
			if got[0] != test.first || len(watches) != test.count || len(got) != len(test.targets) {
				t.Errorf("got %d watches, the first target's %+v; want %d and %+v", len(watches), got[0], test.count, test.first)
			}
		})
	}
}

func TestDoubt(t *testing.T) {
	denied := apierrors.NewForbidden(schema.GroupResource{Resource: "deployments"}, "", errors.New("no"))
	open := &following{}
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, test := range []struct {
		name   string
		stream *stream
		synced bool
		want   state // healthy: no doubt
	}{
		{"just begun", &stream{}, false, unknown},
		{"first answers under way", &stream{current: open, heard: now}, false, unknown},
		{"open", &stream{current: open, heard: ago(time.Second)}, true, healthy},
		{"open, never had bookmarks", &stream{current: open, heard: ago(time.Hour)}, true, healthy},
		{"open, bookmarks came lately", &stream{current: open, heard: ago(2 * time.Minute), marks: true}, true, healthy},
		{"open, bookmarks stay away", &stream{current: open, heard: ago(silence + time.Second), marks: true}, true, unknown},
		{"ended in good order just now", &stream{heard: ago(time.Second)}, true, healthy},
		{"ended in good order, not opened again", &stream{heard: ago(reopening + time.Second)}, true, unknown},
		{"cannot be opened again", &stream{heard: ago(time.Second), refused: errors.New("connection refused")}, true, unknown},
		{"never could be opened", &stream{refused: errors.New("connection refused")}, false, unknown},
		{"forbidden from the start", &stream{refused: denied}, false, forbidden},
		{"forbidden later", &stream{heard: ago(time.Second), refused: denied}, true, forbidden},
		{"forbidden before, open now", &stream{current: open, heard: now}, true, healthy},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := test.stream.doubt(test.synced, now)
			switch {
			case got == nil && test.want != healthy:
				t.Errorf("got no doubt, want %s", test.want)
			case got != nil && (got.state != test.want || got.reason == ""):
				t.Errorf("got %+v, want %s with a reason", *got, test.want)
			}
		})
	}
}

func TestStreamLooksOn(t *testing.T) {
	s, api := &stream{}, watch.NewFake()
	w := s.follow(api, false)
	mark := func(annotations map[string]string) watch.Event {
		return watch.Event{Type: watch.Bookmark, Object: &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Annotations: annotations}}}
	}
	pass := func(event watch.Event) {
		t.Helper()
		go api.Action(event.Type, event.Object)
		if diff := cmp.Diff(<-w.ResultChan(), event); diff != "" {
			t.Errorf("passed on (-got +want):\n%s", diff)
		}
	}
	pass(mark(map[string]string{metav1.InitialEventsAnnotationKey: "true"}))
	if s.marks {
		t.Error("the bookmark that ends the first events counts as a periodic one")
	}
	pass(mark(nil))
	if !s.marks {
		t.Error("a periodic bookmark was not noticed")
	}
	gone := apierrors.NewResourceExpired("too old").ErrStatus
	pass(watch.Event{Type: watch.Error, Object: &gone})
	api.Stop()
	if _, ok := <-w.ResultChan(); ok {
		t.Error("the watch goes on after the API's has ended")
	}
	w.Stop()
	if got := s.doubt(true, time.Now()); got == nil || got.state != unknown {
		t.Errorf("got %+v after an error, want unknown", got)
	}
	again := s.follow(watch.NewFake(), false)
	defer again.Stop()
	if got := s.doubt(true, time.Now()); got != nil {
		t.Errorf("got %+v with a new watch, want no doubt", got)
	}
}

func TestTrim(t *testing.T) {
	meta := metav1.ObjectMeta{Name: "n", Namespace: "ns", UID: "u", Generation: 2, Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"}}
	three, then := int32(3), metav1.NewTime(now)
	condition := appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: progressDeadlineExceeded}
	for _, test := range []struct {
		name   string
		object any
		want   workload
	}{
		{
			"Deployment", &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Replicas: &three}, Status: appsv1.DeploymentStatus{
				ObservedGeneration: 1, Replicas: 4, UpdatedReplicas: 2, ReadyReplicas: 1, Conditions: []appsv1.DeploymentCondition{condition},
			}},
			workload{observed: 1, desired: 3, existing: 4, updated: 2, ready: 1, stalled: true},
		},
		{"Deployment without replicas", &appsv1.Deployment{ObjectMeta: meta}, workload{desired: 1}},
		{
			"StatefulSet", &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Replicas: &three}, Status: appsv1.StatefulSetStatus{
				ObservedGeneration: 2, Replicas: 3, UpdatedReplicas: 2, ReadyReplicas: 1,
			}},
			workload{observed: 2, desired: 3, existing: 3, updated: 2, ready: 1},
		},
		{
			"DaemonSet", &appsv1.DaemonSet{ObjectMeta: meta, Status: appsv1.DaemonSetStatus{
				ObservedGeneration: 2, DesiredNumberScheduled: 5, CurrentNumberScheduled: 4, UpdatedNumberScheduled: 3, NumberReady: 2,
			}},
			workload{observed: 2, desired: 5, existing: 4, updated: 3, ready: 2},
		},
		{
			"Job that is complete", &batchv1.Job{ObjectMeta: meta, Status: batchv1.JobStatus{
				CompletionTime: &then, Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}},
			}},
			workload{run: run{succeeded: now}},
		},
		{
			"Job that failed", &batchv1.Job{ObjectMeta: meta, Status: batchv1.JobStatus{
				Conditions: []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: "DeadlineExceeded", LastTransitionTime: then}},
			}},
			workload{run: run{failed: now, why: "DeadlineExceeded"}},
		},
		{
			"CronJob", &batchv1.CronJob{ObjectMeta: meta, Status: batchv1.CronJobStatus{
				Active: []corev1.ObjectReference{{}}, LastScheduleTime: &then, LastSuccessfulTime: &then,
			}},
			workload{run: run{active: true, began: now, succeeded: now}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := trim(test.object)
			if err != nil {
				t.Fatal(err)
			}
			test.want.ObjectMeta = metav1.ObjectMeta{Name: "n", Namespace: "ns", UID: "u", Generation: 2}
			if diff := cmp.Diff(got, &test.want, cmp.AllowUnexported(workload{}, run{})); diff != "" {
				t.Errorf("-got +want:\n%s", diff)
			}
			if again, err := trim(got); err != nil || again != got {
				t.Errorf("trimmed again: got %v, %v", again, err)
			}
		})
	}
}
