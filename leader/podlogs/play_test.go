package podlogs

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"

	"github.com/chandler-k8s/chandler/leader"
)

// play is a task that nothing runs: the test says what its watches show, and when
// it syncs.
type play struct {
	*Task
	registry *prometheus.Registry
	client   *fake.Clientset
	recorder *events.FakeRecorder
	enqueued []string
	shown    cache.Indexer // Roles
}

func newPlay(t *testing.T, change ...func(*Options)) *play {
	t.Helper()
	registry := prometheus.NewRegistry()
	metrics, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	p := &play{registry: registry, client: fake.NewClientset(), recorder: events.NewFakeRecorder(100)}
	p.client.PrependReactor("create", "*", policies)
	opts := Options{ListPods: true, Metrics: metrics}
	for _, c := range change {
		c(&opts)
	}
	p.Task, err = New(leader.Term{
		Client: p.client, Events: p.recorder, Metrics: registry, Namespace: "chandler", Log: slog.New(slog.DiscardHandler),
	}, opts)
	if err != nil {
		t.Fatal(err)
	}
	in := leader.NewInformers(p.client, metadata.NewForConfigOrDie(&rest.Config{})) // never used: nothing starts
	if err := p.Watch(in, func(key string) { p.enqueued = append(p.enqueued, key) }); err != nil {
		t.Fatal(err)
	}
	p.shown = in.Typed(leader.Selection{Labels: leader.TaskLabel + "=" + Name}).Rbac().V1().Roles().Informer().GetIndexer()
	return p
}

// policies answers the dry runs of the guard as the admission policies do.
func policies(action clienttesting.Action) (bool, runtime.Object, error) {
	created, ok := action.(clienttesting.CreateActionImpl)
	if !ok || len(created.CreateOptions.DryRun) == 0 {
		return false, nil, nil
	}
	if object, ok := created.Object.(metav1.Object); !ok || object.GetLabels()[leader.TaskLabel] != Name {
		return true, nil, denied()
	}
	if role, ok := created.Object.(*rbacv1.Role); ok {
		for _, rule := range role.Rules {
			if slices.Contains(rule.Resources, "pods/log") && len(rule.ResourceNames) == 0 {
				return true, nil, denied()
			}
		}
	}
	return true, created.Object, nil
}

// counts are the requests so far, by verb and resource, without dry runs.
func (p *play) counts() map[string]int {
	counts := map[string]int{}
	for _, action := range p.client.Actions() {
		if created, ok := action.(clienttesting.CreateActionImpl); ok && len(created.CreateOptions.DryRun) > 0 {
			continue
		}
		counts[action.GetVerb()+" "+action.GetResource().Resource]++
	}
	return counts
}

// sync syncs a key, and again as long as that is asked for at once: not for what the
// watches should have shown by then.
func (p *play) sync(t *testing.T, key string) {
	t.Helper()
	for {
		again := p.once(t, key)
		if again == 0 || again >= echo {
			return
		}
		time.Sleep(again)
	}
}

// syncEnqueued syncs once what the handlers have enqueued.
func (p *play) syncEnqueued(t *testing.T) {
	t.Helper()
	keys := p.enqueued
	p.enqueued = nil
	for _, key := range keys {
		p.once(t, key)
	}
}

func (p *play) once(t *testing.T, key string) time.Duration {
	t.Helper()
	again, err := p.Sync(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func put(t *testing.T, indexer cache.Indexer, object any) {
	t.Helper()
	if err := indexer.Update(object); err != nil {
		t.Fatal(err)
	}
}

// pod is one of a workload, as the watch shows it.
func pod(name string, owner workload) *metav1.PartialObjectMetadata {
	yes := true
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: name, OwnerReferences: []metav1.OwnerReference{{
			APIVersion: apiVersion(owner.kind), Kind: owner.kind, Name: owner.name, UID: owner.uid, Controller: &yes,
		}},
	}}
}

// showRole has the watch show the Role as it is.
func (p *play) showRole(t *testing.T, name string) {
	t.Helper()
	role, err := p.client.RbacV1().Roles("ns").Get(t.Context(), prefix+name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, p.shown, role)
}

// show has a watch of metadata show what the task made.
func show(t *testing.T, indexer cache.Indexer, owner workload) {
	t.Helper()
	put(t, indexer, &metav1.PartialObjectMetadata{ObjectMeta: objectMeta("ns", owner)})
}
