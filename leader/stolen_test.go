package leader_test

import (
	"fmt"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/test/expect"
)

// testStolen: a leader's token writes nothing once the Lease is on another node,
// though it lives on; and nobody else is ever bothered by the policy.
func (w *world) testStolen(t *testing.T) {
	a, b := w.client(t, "a"), w.client(t, "b")
	if err := create(t.Context(), a, leaseOf(podName("a"))); err != nil {
		t.Fatal(err)
	}
	w.settled(t, "a", a)
	token, err := w.leaderToken(t, a, tokenRequest(nodeName("a")))
	if err != nil {
		t.Fatal(err)
	}
	stolen := w.bearer(token)
	for _, step := range []struct {
		name    string
		move    move
		as      kubernetes.Interface
		refused bool
	}{
		{"the holder", move{change: on("a")}, a, false},
		{"released", move{change: named("")}, a, false},
		{"taken by another node", move{change: on("b")}, b, true},
		{"released there", move{change: named("")}, b, true},
		{"taken by a pod that names no node", move{change: func(l *coordinationv1.Lease) {
			named(podName("b"))(l)
			delete(l.Annotations, "chandler.dev/node")
		}}, b, false},
	} {
		t.Run(step.name, func(t *testing.T) {
			if err := w.try(t, step.move, step.as); err != nil {
				t.Fatal(err)
			}
			expect.Within(t, 30*time.Second, func() error {
				err := tellEvent(t, stolen)
				if (err == nil) == step.refused || (err != nil && !apierrors.IsRequestEntityTooLargeError(err)) {
					return fmt.Errorf("got %w, want it refused: %t", err, step.refused)
				}
				return nil
			})
			if err := tellEvent(t, w.admin); err != nil {
				t.Errorf("the administrator's: got %v, want it to pass", err)
			}
		})
	}
	t.Run("the new holder's own token", func(t *testing.T) {
		if err := w.try(t, move{change: on("b")}, b); err != nil {
			t.Fatal(err)
		}
		w.settled(t, "b", b)
		fresh, err := w.leaderToken(t, b, tokenRequest(nodeName("b")))
		if err != nil {
			t.Fatal(err)
		}
		if err := tellEvent(t, w.bearer(fresh)); err != nil {
			t.Errorf("got %v, want it to pass", err)
		}
	})
	t.Run("no Lease", func(t *testing.T) {
		w.vacate(t)
		for name, client := range map[string]kubernetes.Interface{"the leader's token": stolen, "the administrator": w.admin} {
			expect.Within(t, 30*time.Second, func() error {
				if err := tellEvent(t, client); err != nil {
					return fmt.Errorf("%s: got %w, want it to pass", name, err)
				}
				return nil
			})
		}
	})
}

// on names an agent's pod and its node.
func on(name string) func(*coordinationv1.Lease) {
	return func(l *coordinationv1.Lease) {
		named(podName(name))(l)
		metav1.SetMetaDataAnnotation(&l.ObjectMeta, "chandler.dev/node", nodeName(name))
	}
}

func tellEvent(t *testing.T, client kubernetes.Interface) error {
	t.Helper()
	_, err := client.EventsV1().Events("default").Create(t.Context(), &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "told-"}, EventTime: metav1.NowMicro(),
		ReportingController: "chandler", ReportingInstance: "pod", Action: "Tell", Reason: "Told", Type: corev1.EventTypeNormal,
		Regarding: corev1.ObjectReference{Kind: "Namespace", Namespace: "default", Name: "default"},
	}, metav1.CreateOptions{})
	return err
}
