package leader_test

import (
	"context"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// duration is the lease duration of these tests: short, since they wait for the
// API server's own clock.
const duration = 3

func leaseOf(pod string) *coordinationv1.Lease {
	seconds := int32(duration)
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: lease, Namespace: namespace},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &pod, LeaseDurationSeconds: &seconds,
			RenewTime: &metav1.MicroTime{Time: time.Now()},
		},
	}
}

// TestPolicies tries forgeries and honest moves against the manifests of
// deploy/base on a real API server.
func TestPolicies(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"type check", w.testTypeCheck},
		{"lease", w.testLease},
		{"leader's token", w.testLeaderToken},
		{"agent's token", w.testAgentsToken},
		{"stolen leader's token", w.testStolen},
	} {
		w.vacate(t)
		t.Run(test.name, test.run)
	}
}

func (w *world) testLease(t *testing.T) {
	bound := map[string]kubernetes.Interface{"a": w.client(t, "a"), "b": w.client(t, "b")}
	unboundConfig, err := w.AsServiceAccount(t.Context(), namespace, agent)
	if err != nil {
		t.Fatal(err)
	}
	unbound := kubernetes.NewForConfigOrDie(unboundConfig)

	for _, m := range append(seizures(), abuses()...) {
		t.Run("refused/"+m.as+": "+m.name, func(t *testing.T) {
			w.holdLive(t, bound["a"])
			w.wantRefused(t, m, bound[m.as])
		})
		t.Run("refused/unbound: "+m.name, func(t *testing.T) {
			w.holdLive(t, bound["a"])
			w.wantRefused(t, m, unbound)
		})
	}
	t.Run("refused/of a vacant Lease", func(t *testing.T) { w.testVacant(t, bound, unbound) })
	t.Run("refused/of an expired Lease", func(t *testing.T) { w.testExpiredForgeries(t, bound, unbound) })
	t.Run("honest", func(t *testing.T) { w.testHonest(t, bound) })
	t.Run("dry run", func(t *testing.T) { w.testDryRun(t, bound) })
}

// holdLive makes the Lease anew, in a's hands and just renewed, with an
// annotation of the administrator's.
func (w *world) holdLive(t *testing.T, a kubernetes.Interface) {
	t.Helper()
	w.vacate(t)
	held := leaseOf(podName("a"))
	held.Spec.AcquireTime = held.Spec.RenewTime
	transitions := int32(1)
	held.Spec.LeaseTransitions = &transitions
	if err := create(t.Context(), a, held); err != nil {
		t.Fatalf("honest creation: %v", err)
	}
	w.edit(t, func(l *coordinationv1.Lease) { metav1.SetMetaDataAnnotation(&l.ObjectMeta, "note", "admin's") })
}

// edit changes the Lease by hand.
func (w *world) edit(t *testing.T, change func(*coordinationv1.Lease)) {
	t.Helper()
	leases := w.admin.CoordinationV1().Leases(namespace)
	found, err := leases.Get(t.Context(), lease, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	change(found)
	if _, err := leases.Update(t.Context(), found, metav1.UpdateOptions{FieldManager: "kubectl-edit"}); err != nil {
		t.Fatal(err)
	}
}

// try reads the Lease and makes the move.
func (w *world) try(t *testing.T, m move, client kubernetes.Interface) error {
	t.Helper()
	wanted, err := w.admin.CoordinationV1().Leases(namespace).Get(t.Context(), lease, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if m.change != nil {
		wanted.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
		m.change(wanted)
	}
	if m.send == nil {
		m.send = update
	}
	return m.send(t.Context(), client, wanted)
}

// wantRefused makes the move and checks that it is refused and leaves no trace.
func (w *world) wantRefused(t *testing.T, m move, client kubernetes.Interface) {
	t.Helper()
	leases := w.admin.CoordinationV1().Leases(namespace)
	before, err := leases.Get(t.Context(), lease, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = w.try(t, m, client)
	// A create of what exists is answered before admission.
	if !apierrors.IsForbidden(err) && !apierrors.IsAlreadyExists(err) {
		t.Errorf("got %v, want it forbidden", err)
	}
	now, err := leases.Get(t.Context(), lease, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if now.ResourceVersion != before.ResourceVersion {
		t.Errorf("got a changed Lease %v, was %v", now.Spec, before.Spec)
	}
}

// testVacant: nobody may write a released Lease but to take it.
func (w *world) testVacant(t *testing.T, bound map[string]kubernetes.Interface, unbound kubernetes.Interface) {
	for _, m := range []move{
		{name: "annotate it", as: "b", change: func(l *coordinationv1.Lease) {
			metav1.SetMetaDataAnnotation(&l.ObjectMeta, "chandler.dev/agents", "999999")
		}},
		{name: "touch it", as: "b", change: nothing},
		{name: "take it for another", as: "b", change: named(podName("a"))},
		{name: "take it for 30 years", as: "b", change: seize(func(l *coordinationv1.Lease) { *l.Spec.LeaseDurationSeconds = 1e9 })},
		{name: "take it from far ahead", as: "b", change: seize(func(l *coordinationv1.Lease) {
			l.Spec.RenewTime = &metav1.MicroTime{Time: time.Now().Add(time.Hour)}
		})},
	} {
		t.Run(m.name, func(t *testing.T) {
			w.holdLive(t, bound["a"])
			if err := w.try(t, move{change: named("")}, bound["a"]); err != nil {
				t.Fatalf("honest release: %v", err)
			}
			w.wantRefused(t, m, bound["b"])
			w.wantRefused(t, m, unbound)
		})
	}
	t.Run("create it for another", func(t *testing.T) {
		w.vacate(t)
		if err := create(t.Context(), bound["b"], leaseOf(podName("a"))); !apierrors.IsForbidden(err) {
			t.Errorf("got %v, want it forbidden", err)
		}
	})
	t.Run("create it without a pod's token", func(t *testing.T) {
		w.vacate(t)
		if err := create(t.Context(), unbound, leaseOf(podName("a"))); !apierrors.IsForbidden(err) {
			t.Errorf("got %v, want it forbidden", err)
		}
		if err := create(t.Context(), unbound, leaseOf("")); !apierrors.IsForbidden(err) {
			t.Errorf("nameless: got %v, want it forbidden", err)
		}
	})
}

// testExpiredForgeries: even an expired Lease is taken only by one's own name.
func (w *world) testExpiredForgeries(t *testing.T, bound map[string]kubernetes.Interface, unbound kubernetes.Interface) {
	w.holdLive(t, bound["a"])
	after((duration + 2) * time.Second)
	w.wantRefused(t, move{change: named(podName("c"))}, bound["b"])
	w.wantRefused(t, move{change: named("")}, bound["b"])
	w.wantRefused(t, move{change: seize(nothing), send: raw("", "chandler")}, bound["b"])
	w.wantRefused(t, move{change: seize(nothing)}, unbound)
}

// testHonest plays every honest move, also after an administrator's edit.
func (w *world) testHonest(t *testing.T, bound map[string]kubernetes.Interface) {
	steps := func(t *testing.T, meddle func()) {
		must := func(what string, m move, as string) {
			t.Helper()
			meddle()
			if err := w.try(t, m, bound[as]); err != nil {
				t.Errorf("%s: got %v, want it to pass", what, err)
			}
		}
		must("renew", move{change: nothing}, "a")
		must("renew and count", move{change: func(l *coordinationv1.Lease) {
			metav1.SetMetaDataAnnotation(&l.ObjectMeta, "chandler.dev/agents", "5000")
		}}, "a")
		must("renew without sending managedFields", move{change: func(l *coordinationv1.Lease) { l.ManagedFields = nil }}, "a")
		must("release", move{change: named("")}, "a")
		must("take a released Lease", move{change: named(podName("b"))}, "b")
		must("lead on after a restart", move{change: named(podName("b"))}, "b")
		meddle()
		after((duration + 2) * time.Second)
		must("take an expired Lease", move{change: named(podName("a"))}, "a")
	}
	t.Run("by themselves", func(t *testing.T) {
		w.holdLive(t, bound["a"])
		steps(t, func() {})
	})
	t.Run("after an administrator's edits", func(t *testing.T) {
		w.holdLive(t, bound["a"])
		edits := 0
		steps(t, func() {
			edits++
			w.edit(t, func(l *coordinationv1.Lease) {
				metav1.SetMetaDataAnnotation(&l.ObjectMeta, "note", time.Now().String())
				if edits%2 == 0 {
					l.Spec.AcquireTime = &metav1.MicroTime{Time: time.Now()}
				}
			})
		})
	})
	t.Run("after an administrator wiped managedFields", func(t *testing.T) {
		w.holdLive(t, bound["a"])
		w.edit(t, func(l *coordinationv1.Lease) { l.ManagedFields = []metav1.ManagedFieldsEntry{{}} })
		w.wantRefused(t, move{change: nothing}, bound["a"])
		w.wantRefused(t, move{change: named(podName("b"))}, bound["b"])
		w.vacate(t)
		if err := create(t.Context(), bound["b"], leaseOf(podName("b"))); err != nil {
			t.Errorf("create after a deletion: got %v, want it to pass", err)
		}
	})
	t.Run("of a Lease that an administrator made", func(t *testing.T) {
		w.vacate(t)
		made := leaseOf("nobody-there")
		if _, err := w.admin.CoordinationV1().Leases(namespace).Create(t.Context(), made, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := w.try(t, move{change: named(podName("b"))}, bound["b"]); err != nil {
			t.Errorf("take: got %v, want it to pass", err)
		}
		w.wantRefused(t, move{change: named(podName("a"))}, bound["a"])
	})
	t.Run("after an administrator named a third", func(t *testing.T) {
		w.holdLive(t, bound["a"])
		w.edit(t, func(l *coordinationv1.Lease) { named(podName("c"))(l) })
		w.wantRefused(t, move{change: named(podName("a"))}, bound["a"])
	})
}

// testDryRun: a dry run is judged like any other write and changes nothing.
func (w *world) testDryRun(t *testing.T, bound map[string]kubernetes.Interface) {
	dry := func(ctx context.Context, client kubernetes.Interface, wanted *coordinationv1.Lease) error {
		_, err := client.CoordinationV1().Leases(namespace).Update(ctx, wanted,
			metav1.UpdateOptions{FieldManager: manager, DryRun: []string{metav1.DryRunAll}})
		return err
	}
	w.holdLive(t, bound["a"])
	w.wantRefused(t, move{change: named(podName("b")), send: dry}, bound["b"])
	if err := w.try(t, move{change: nothing, send: dry}, bound["a"]); err != nil {
		t.Errorf("the holder's dry run: got %v, want it to pass", err)
	}
}

// bearer returns a client that authenticates with the token alone.
func (w *world) bearer(token string) kubernetes.Interface {
	config := rest.AnonymousClientConfig(w.Admin())
	config.BearerToken, config.QPS = token, -1
	return kubernetes.NewForConfigOrDie(config)
}
