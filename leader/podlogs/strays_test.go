package podlogs

import (
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/test/expect"
)

func TestStray(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		task := newPlay(t)
		recorder := task.recorder
		sync := func() time.Duration {
			t.Helper()
			again, err := task.Sync(t.Context(), "ns/pod/bare")
			if err != nil {
				t.Fatal(err)
			}
			return again
		}
		pod := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "bare", UID: "1"}}
		put := func() {
			t.Helper()
			if err := task.pods.Update(pod.DeepCopy()); err != nil {
				t.Fatal(err)
			}
		}
		put()
		time.Sleep(sync() - time.Second)
		if got := sync(); got != time.Second || len(recorder.Events) > 0 {
			t.Errorf("got %d Events, again after %s, want it told after %s", len(recorder.Events), got, lag)
		}
		time.Sleep(time.Second)
		for range 3 {
			if got := sync(); got != 0 {
				t.Errorf("got again after %s, want never", got)
			}
		}
		if got := len(recorder.Events); got != 1 {
			t.Errorf("got %d Events, want one", got)
		}
		<-recorder.Events
		// One that is being deleted is no concern, nor is one of another name's.
		now := metav1.Now()
		pod.UID, pod.DeletionTimestamp = "2", &now
		put()
		if got := sync(); got != 0 || task.strays.has("ns/pod/bare") || len(recorder.Events) > 0 {
			t.Errorf("a pod on its way out: again after %s, %d strays", got, task.strays.count())
		}
	})
}

// TestStrayNoMore has pods that belong to nothing until their ReplicaSet gets the label,
// or they are deleted, after they were reported.
func TestStrayNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t)
		web := workload{deployment, "web", "d"}
		set := pod("web-1", web)
		set.UID = "rs"
		for _, name := range []string{"web-1-a", "web-1-b"} {
			member := pod(name, workload{replicaSet, "web-1", "rs"})
			put(t, p.pods, member)
			p.podChanged(member)
		}
		p.syncEnqueued(t)
		time.Sleep(lag)
		p.sync(t, "ns/pod/web-1-a")
		p.sync(t, "ns/pod/web-1-b")
		if got := len(p.recorder.Events); got != 1 {
			t.Fatalf("got %d Events about pods of one ReplicaSet, want 1", got)
		}
		<-p.recorder.Events
		wantStrays(t, p, 2)

		put(t, p.replicaSets, set)
		p.betweenChanged(replicaSet, workloadOfReplicaSet)(set)
		p.syncEnqueued(t)
		wantStrays(t, p, 0)
		if len(p.report.told) > 0 {
			t.Errorf("got %v still told, want none", p.report.told)
		}

		// The label is gone from the ReplicaSet, and it is told again.
		if err := p.replicaSets.Delete(set); err != nil {
			t.Fatal(err)
		}
		member := pod("web-1-a", workload{replicaSet, "web-1", "rs"})
		p.podChanged(member)
		p.syncEnqueued(t)
		time.Sleep(lag)
		p.sync(t, "ns/pod/web-1-a")
		wantStrays(t, p, 1)
		if got := len(p.recorder.Events); got != 1 {
			t.Errorf("got %d Events, want one more", got)
		}
		// By the time it is deleted its ReplicaSet has the label.
		put(t, p.replicaSets, set)
		if err := p.pods.Delete(member); err != nil {
			t.Fatal(err)
		}
		p.podChanged(member)
		p.syncEnqueued(t)
		wantStrays(t, p, 0)
	})
}

func wantStrays(t *testing.T, p *play, want float64) {
	t.Helper()
	if got, _ := expect.Metric(t, p.registry, "chandler_podlogs_ignored_pods"); got != want {
		t.Errorf("got %v ignored pods, want %v", got, want)
	}
}
