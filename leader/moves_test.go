package leader_test

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// move is one write of the Lease, honest or not.
type move struct {
	name   string
	as     string                      // the agent who makes it
	change func(*coordinationv1.Lease) // of what it read; renewTime is already now
	// send sends it; nil means Update as field manager chandler.
	send func(context.Context, kubernetes.Interface, *coordinationv1.Lease) error
}

func update(ctx context.Context, client kubernetes.Interface, wanted *coordinationv1.Lease) error {
	_, err := client.CoordinationV1().Leases(wanted.Namespace).Update(ctx, wanted, metav1.UpdateOptions{FieldManager: manager})
	return err
}

func create(ctx context.Context, client kubernetes.Interface, wanted *coordinationv1.Lease) error {
	wanted = wanted.DeepCopy()
	wanted.ResourceVersion = ""
	wanted.UID = ""
	_, err := client.CoordinationV1().Leases(wanted.Namespace).Create(ctx, wanted, metav1.CreateOptions{FieldManager: manager})
	return err
}

// raw sends a PUT of the Lease with a query of its own.
func raw(query, userAgent string) func(context.Context, kubernetes.Interface, *coordinationv1.Lease) error {
	return func(ctx context.Context, client kubernetes.Interface, wanted *coordinationv1.Lease) error {
		request := client.CoordinationV1().RESTClient().Put().
			RequestURI("/apis/coordination.k8s.io/v1/namespaces/chandler/leases/chandler" + query).Body(wanted)
		if userAgent != "" {
			request.SetHeader("User-Agent", userAgent)
		}
		return request.Do(ctx).Error()
	}
}

func patch(kind types.PatchType, body string) func(context.Context, kubernetes.Interface, *coordinationv1.Lease) error {
	return func(ctx context.Context, client kubernetes.Interface, _ *coordinationv1.Lease) error {
		_, err := client.CoordinationV1().Leases(namespace).Patch(ctx, lease, kind, []byte(body), metav1.PatchOptions{FieldManager: manager})
		return err
	}
}

func named(pod string) func(*coordinationv1.Lease) {
	return func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = &pod }
}

// seize names agent b and then does more.
func seize(more func(*coordinationv1.Lease)) func(*coordinationv1.Lease) {
	return func(l *coordinationv1.Lease) {
		named(podName("b"))(l)
		more(l)
	}
}

func nothing(*coordinationv1.Lease) {}

// stamped returns the managedFields entry of an honest write, at another time.
func stamped(l *coordinationv1.Lease, at time.Time) metav1.ManagedFieldsEntry {
	for _, entry := range l.ManagedFields {
		if entry.Manager == manager {
			entry.Time = &metav1.Time{Time: at}
			return entry
		}
	}
	return metav1.ManagedFieldsEntry{}
}

// seizures are attempts on a Lease that agent a holds and has just renewed.
func seizures() []move {
	hourAgo, century := time.Now().Add(-time.Hour), time.Now().Add(100*365*24*time.Hour)
	return []move{
		{name: "seize at once", as: "b", change: seize(nothing)},
		{name: "seize with a renewTime to come", as: "b", change: seize(func(l *coordinationv1.Lease) {
			l.Spec.RenewTime = &metav1.MicroTime{Time: time.Now().Add(time.Minute)}
		})},
		{name: "seize with managedFields of an hour ago", as: "b", change: seize(func(l *coordinationv1.Lease) {
			l.ManagedFields = []metav1.ManagedFieldsEntry{stamped(l, hourAgo)}
		})},
		{name: "seize with managedFields to come", as: "b", change: seize(func(l *coordinationv1.Lease) {
			l.ManagedFields = []metav1.ManagedFieldsEntry{stamped(l, century)}
		})},
		{name: "seize with managedFields emptied", as: "b", change: seize(func(l *coordinationv1.Lease) {
			l.ManagedFields = []metav1.ManagedFieldsEntry{}
		})},
		{name: "seize with managedFields reset", as: "b", change: seize(func(l *coordinationv1.Lease) {
			l.ManagedFields = []metav1.ManagedFieldsEntry{{}}
		})},
		{name: "seize with managedFields doubled", as: "b", change: seize(func(l *coordinationv1.Lease) {
			double := stamped(l, hourAgo)
			double.APIVersion = "coordination.k8s.io/v1beta1"
			l.ManagedFields = []metav1.ManagedFieldsEntry{stamped(l, hourAgo), double}
		})},
		{name: "seize with an Apply entry of the manager", as: "b", change: seize(func(l *coordinationv1.Lease) {
			apply := stamped(l, hourAgo)
			apply.Operation = metav1.ManagedFieldsOperationApply
			l.ManagedFields = []metav1.ManagedFieldsEntry{apply}
		})},
		{name: "seize under another field manager", as: "b", change: seize(nothing), send: raw("?fieldManager=mallory", "")},
		{name: "seize under no field manager", as: "b", change: seize(nothing), send: raw("", "")},
		{name: "seize with the manager as user agent", as: "b", change: seize(nothing), send: raw("", "chandler/v1")},
		{name: "seize with two managers in the query", as: "b", change: seize(nothing), send: raw("?fieldManager=mallory&fieldManager=chandler", "")},
		{name: "seize with two managers the other way", as: "b", change: seize(nothing), send: raw("?fieldManager=chandler&fieldManager=mallory", "")},
		{name: "seize with a shorter duration", as: "b", change: seize(func(l *coordinationv1.Lease) { *l.Spec.LeaseDurationSeconds = 1 })},
		{name: "seize in two steps, first the name out", as: "b", change: named("")},
		{name: "seize for a third", as: "b", change: named(podName("c"))},
		{name: "renew in the holder's name", as: "b", change: nothing},
		{name: "shorten the holder's lease", as: "b", change: func(l *coordinationv1.Lease) { *l.Spec.LeaseDurationSeconds = 3 }},
		{name: "annotate the holder's lease", as: "b", change: func(l *coordinationv1.Lease) {
			metav1.SetMetaDataAnnotation(&l.ObjectMeta, "chandler.dev/agents", "999999")
		}},
		{name: "seize by create", as: "b", change: seize(nothing), send: create},
		{name: "seize by merge patch", as: "b", send: patch(types.MergePatchType, `{"spec":{"holderIdentity":"agent-b"}}`)},
		{name: "seize by apply", as: "b", send: patch(types.ApplyPatchType,
			`{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"chandler"},"spec":{"holderIdentity":"agent-b"}}`)},
		{name: "delete", as: "b", send: remove},
	}
}

func remove(ctx context.Context, client kubernetes.Interface, _ *coordinationv1.Lease) error {
	return client.CoordinationV1().Leases(namespace).Delete(ctx, lease, metav1.DeleteOptions{})
}

// abuses are what the holder itself must not do to its live Lease.
func abuses() []move {
	century := time.Now().Add(100 * 365 * 24 * time.Hour)
	return []move{
		{name: "hand over to another", as: "a", change: named(podName("b"))},
		{name: "a stamp of the next century, carried in by a write that only removes", as: "a", change: func(l *coordinationv1.Lease) {
			l.Spec.LeaseTransitions = nil
			l.Spec.RenewTime = nil
			l.ManagedFields = []metav1.ManagedFieldsEntry{stamped(l, century)}
		}},
		{name: "the same with renewTime left as it was", as: "a", change: func(l *coordinationv1.Lease) {
			l.Spec.LeaseTransitions = nil
			l.Spec.RenewTime = l.Spec.AcquireTime
			l.ManagedFields = []metav1.ManagedFieldsEntry{stamped(l, century)}
		}},
		{name: "an invented manager of the next century", as: "a", change: func(l *coordinationv1.Lease) {
			invented := stamped(l, century)
			invented.Manager = "mallory"
			l.ManagedFields = append(l.ManagedFields, invented)
		}},
		{name: "a duration of 30 years", as: "a", change: func(l *coordinationv1.Lease) { *l.Spec.LeaseDurationSeconds = 1e9 }},
		{name: "a duration of 1 s", as: "a", change: func(l *coordinationv1.Lease) { *l.Spec.LeaseDurationSeconds = 1 }},
		{name: "no duration", as: "a", change: func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = nil }},
		{name: "a renewTime to come", as: "a", change: func(l *coordinationv1.Lease) { l.Spec.RenewTime = &metav1.MicroTime{Time: century} }},
		{name: "a renewTime long past", as: "a", change: func(l *coordinationv1.Lease) { l.Spec.RenewTime = &metav1.MicroTime{Time: time.Unix(0, 0)} }},
		{name: "no renewTime", as: "a", change: func(l *coordinationv1.Lease) { l.Spec.RenewTime = nil }},
		{name: "coordinated election", as: "a", change: func(l *coordinationv1.Lease) {
			strategy := coordinationv1.OldestEmulationVersion
			l.Spec.Strategy = &strategy
		}},
		{name: "a foreign annotation", as: "a", change: func(l *coordinationv1.Lease) { metav1.SetMetaDataAnnotation(&l.ObjectMeta, "x", "y") }},
		{name: "an administrator's annotation changed", as: "a", change: func(l *coordinationv1.Lease) { l.Annotations["note"] = "mine" }},
		{name: "an administrator's annotation removed", as: "a", change: func(l *coordinationv1.Lease) { delete(l.Annotations, "note") }},
		{name: "another's node", as: "a", change: func(l *coordinationv1.Lease) {
			metav1.SetMetaDataAnnotation(&l.ObjectMeta, "chandler.dev/node", nodeName("b"))
		}},
		{name: "a release that names a node", as: "a", change: func(l *coordinationv1.Lease) {
			named("")(l)
			metav1.SetMetaDataAnnotation(&l.ObjectMeta, "chandler.dev/node", nodeName("a"))
		}},
		{name: "a negative count", as: "a", change: func(l *coordinationv1.Lease) { l.Annotations["chandler.dev/agents"] = "-1" }},
		{name: "a count of millions", as: "a", change: func(l *coordinationv1.Lease) { l.Annotations["chandler.dev/agents"] = "1000000" }},
		{name: "a count in words", as: "a", change: func(l *coordinationv1.Lease) { l.Annotations["chandler.dev/agents"] = "many" }},
		{name: "a label", as: "a", change: func(l *coordinationv1.Lease) { l.Labels = map[string]string{"x": "y"} }},
		{name: "an owner", as: "a", change: func(l *coordinationv1.Lease) {
			l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "x", UID: "x"}}
		}},
		{name: "a finalizer", as: "a", change: func(l *coordinationv1.Lease) { l.Finalizers = []string{"chandler.dev/stay"} }},
		{name: "another Lease by create", as: "a", change: func(l *coordinationv1.Lease) { l.Name = "stray" }, send: create},
		{name: "another Lease with a generated name", as: "a", change: func(l *coordinationv1.Lease) { l.Name, l.GenerateName = "", "chandler" }, send: create},
		{name: "another Lease by update", as: "a", change: func(l *coordinationv1.Lease) { l.Name, l.ResourceVersion, l.UID = "stray", "", "" }},
		{name: "a Lease of another namespace", as: "a", change: func(l *coordinationv1.Lease) { l.Namespace = "default" }, send: create},
		{name: "delete", as: "a", send: remove},
		{name: "delete all", as: "a", send: func(ctx context.Context, client kubernetes.Interface, _ *coordinationv1.Lease) error {
			return client.CoordinationV1().Leases(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
		}},
	}
}
