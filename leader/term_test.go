package leader_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/test/expect"
)

// testCountsAgents: the count reaches the Lease under the rights of deploy/base,
// from the DaemonSet and from the nodes that may lead.
func (w *world) testCountsAgents(t *testing.T) {
	labels := map[string]string{"app.kubernetes.io/name": "chandler"}
	set, err := w.admin.AppsV1().DaemonSets(namespace).Create(t.Context(), &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "chandler"},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "chandler", Image: "chandler"}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.admin.AppsV1().DaemonSets(namespace).Delete(context.WithoutCancel(t.Context()), set.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}()
	expect.Within(t, 30*time.Second, func() error { // its controller counts the nodes
		set, err = w.admin.AppsV1().DaemonSets(namespace).Get(t.Context(), set.Name, metav1.GetOptions{})
		if err == nil && set.Status.DesiredNumberScheduled != 3 {
			err = fmt.Errorf("the DaemonSet wants %d pods, not 3 yet", set.Status.DesiredNumberScheduled)
		}
		return err
	})
	_, err = w.admin.CoreV1().Nodes().Patch(t.Context(), nodeName("a"), types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"role":"infra"}}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, candidates, want string
	}{
		{"all agents", "", "3"},
		{"one node may lead", "role=infra", "1"},
		{"two may", "role!=infra", "2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.vacate(t)
			r := w.start(t, "a", func(o *leader.Options) { o.Agents = leader.CountAgents(set.Name, test.candidates) })
			expect.Within(t, 10*time.Second, func() error {
				found, err := w.admin.CoordinationV1().Leases(namespace).Get(t.Context(), lease, metav1.GetOptions{})
				if err == nil && found.Annotations[leader.AgentsAnnotation] != test.want {
					err = fmt.Errorf("got annotation %q, want %q", found.Annotations[leader.AgentsAnnotation], test.want)
				}
				return err
			})
			r.end(t)
		})
	}
}

// testCandidates: of two agents only the one on a matching node leads.
func (w *world) testCandidates(t *testing.T) {
	for _, name := range []string{"b", "a"} {
		w.start(t, name, func(o *leader.Options) {
			is, err := leader.NodeCandidate(w.client(t, name), nodeName(name), "kubernetes.io/hostname in (node-a), role=infra")
			if err != nil {
				t.Fatal(err)
			}
			_, err = w.admin.CoreV1().Nodes().Patch(t.Context(), nodeName(name), types.MergePatchType,
				[]byte(`{"metadata":{"labels":{"role":"infra","kubernetes.io/hostname":"`+nodeName(name)+`"}}}`), metav1.PatchOptions{})
			if err != nil {
				t.Fatal(err)
			}
			o.Candidate = is
		})
	}
	w.awaitHolder(t, "a")
}

// teller is a task that reports an Event on the namespace "default".
type teller struct{ term leader.Term }

func (*teller) Name() string { return "teller" }

func (*teller) Watch(_ leader.Informers, enqueue func(string)) error {
	enqueue("default")
	return nil
}

func (s *teller) Sync(ctx context.Context, key string) (time.Duration, error) {
	found, err := s.term.Client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + key})
	if err != nil {
		return 0, err
	}
	for i := range found.Items {
		for note := range 100 {
			s.term.Events.Eventf(&found.Items[i], nil, corev1.EventTypeWarning, fmt.Sprint("Told", note), "Tell", "note %d", note)
		}
	}
	return 0, nil
}

func (w *world) testEvents(t *testing.T) {
	r := w.start(t, "a", func(o *leader.Options) {
		o.Tasks = func(term leader.Term) ([]leader.Task, error) { return []leader.Task{&teller{term}}, nil }
	})
	expect.Within(t, 10*time.Second, func() error {
		events, err := w.admin.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "reason=Told0"})
		if err == nil && len(events.Items) != 1 {
			err = fmt.Errorf("got %d Events, want 1", len(events.Items))
		}
		return err
	})
	if got := metric(r.registry, "chandler_leader_dropped_events_total"); got < 70 || got > 75 {
		t.Errorf("got %v Events dropped of 100 at once, want 75 beyond the burst", got)
	}
}
