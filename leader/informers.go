package leader

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
)

// Selection narrows an informer on the server's side. The zero value selects
// every object of every namespace.
type Selection struct {
	Namespace string // e.g. "ci-cd"; empty means all
	Labels    string // label selector, e.g. "chandler.dev/task=pullsecrets"; empty means all
	Fields    string // field selector, e.g. "metadata.name=chandler"; empty means all
	// Optional informers hold up nothing: the task's workers start without them,
	// which they never do if a permission is missing. Whoever reads their store
	// asks HasSynced first. They are not shared with those that are required.
	Optional bool
}

// Informers hands out one task's informers for one term, on the leader's
// client, made on demand. Two calls with equal arguments answer the same one.
// Tasks do not share informers, so that one that may not list something holds
// up no other.
type Informers interface {
	// Metadata returns the informer for the metadata of the selected objects. Its
	// objects are *metav1.PartialObjectMetadata without managed fields and without
	// annotations other than those under "chandler.dev/".
	Metadata(resource schema.GroupVersionResource, sel Selection) cache.SharedIndexInformer

	// Typed returns the factory of typed informers for the selected objects, e.g.
	// Typed(Selection{Namespace: "ci-cd"}).Core().V1().Secrets(). Objects lack
	// managed fields. The caller takes informers and listers from it and does not
	// start it.
	Typed(sel Selection) informers.SharedInformerFactory
}

// TermInformers implements Informers. A task's tests may build one on fake
// clients; in the program the runner does.
type TermInformers struct {
	client   kubernetes.Interface
	metadata metadata.Interface
	typed    map[Selection]informers.SharedInformerFactory
	bare     map[bareKey]cache.SharedIndexInformer
	running  sync.WaitGroup // the started ones of bare
}

type bareKey struct {
	resource schema.GroupVersionResource
	sel      Selection
}

// NewInformers returns informers on the given clients. Nothing runs before
// Start. It is not safe for concurrent use until then.
func NewInformers(client kubernetes.Interface, metadata metadata.Interface) *TermInformers {
	return &TermInformers{
		client:   client,
		metadata: metadata,
		typed:    map[Selection]informers.SharedInformerFactory{},
		bare:     map[bareKey]cache.SharedIndexInformer{},
	}
}

// Metadata implements Informers.
func (t *TermInformers) Metadata(resource schema.GroupVersionResource, sel Selection) cache.SharedIndexInformer {
	key := bareKey{resource, sel}
	if informer, ok := t.bare[key]; ok {
		return informer
	}
	indexers := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	informer := metadatainformer.NewFilteredMetadataInformer(
		t.metadata, resource, sel.Namespace, 0, indexers, sel.narrow).Informer()
	_ = informer.SetTransform(stripMetadata) // only a started informer refuses
	t.bare[key] = informer
	return informer
}

// Typed implements Informers.
func (t *TermInformers) Typed(sel Selection) informers.SharedInformerFactory {
	factory, ok := t.typed[sel]
	if !ok {
		factory = informers.NewSharedInformerFactoryWithOptions(t.client, 0,
			informers.WithNamespace(sel.Namespace),
			informers.WithTweakListOptions(sel.narrow),
			informers.WithTransform(stripManagedFields))
		t.typed[sel] = factory
	}
	return factory
}

// Start starts every informer asked for so far. They end with ctx; Shutdown
// waits for that. Start is called once.
func (t *TermInformers) Start(ctx context.Context) {
	for _, informer := range t.bare {
		t.running.Go(func() { informer.RunWithContext(ctx) })
	}
	for _, factory := range t.typed {
		factory.StartWithContext(ctx)
	}
}

// Shutdown blocks until every informer has ended. The context given to Start
// must have ended.
func (t *TermInformers) Shutdown() {
	t.running.Wait()
	for _, factory := range t.typed {
		factory.Shutdown()
	}
}

// Wait blocks until every started informer that is not optional has synced or
// ctx ends, and returns the names of those that have not, sorted, e.g. "pods" or
// "*v1.Secret in ci-cd".
func (t *TermInformers) Wait(ctx context.Context) []string { return t.await(ctx, false) }

// WaitOptional is Wait for the optional ones.
func (t *TermInformers) WaitOptional(ctx context.Context) []string { return t.await(ctx, true) }

func (t *TermInformers) await(ctx context.Context, optional bool) []string {
	missing := map[string]bool{}
	for key, informer := range t.bare {
		if key.sel.Optional == optional && !cache.WaitFor(ctx, "", informer.HasSyncedChecker()) {
			missing[key.resource.GroupResource().String()+key.sel.where()] = true
		}
	}
	for sel, factory := range t.typed {
		if sel.Optional != optional {
			continue
		}
		for kind, synced := range factory.WaitForCacheSyncWithContext(ctx).Synced {
			if !synced {
				missing[kind.String()+sel.where()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(missing))
}

// where says what the selection narrows, for logs; empty if nothing.
func (s Selection) where() string {
	text := ""
	if s.Namespace != "" {
		text += " in " + s.Namespace
	}
	for _, selector := range []string{s.Labels, s.Fields} {
		if selector != "" {
			text += " with " + selector
		}
	}
	return text
}

func (s Selection) narrow(options *metav1.ListOptions) {
	options.LabelSelector = s.Labels
	options.FieldSelector = s.Fields
}

func stripManagedFields(obj any) (any, error) {
	if object, ok := obj.(metav1.Object); ok {
		object.SetManagedFields(nil)
	}
	return obj, nil
}

func stripMetadata(obj any) (any, error) {
	object, ok := obj.(metav1.Object)
	if !ok {
		return obj, nil
	}
	object.SetManagedFields(nil)
	var kept map[string]string
	for key, value := range object.GetAnnotations() {
		if !strings.HasPrefix(key, "chandler.dev/") {
			continue
		}
		if kept == nil {
			kept = map[string]string{}
		}
		kept[key] = value
	}
	object.SetAnnotations(kept)
	return obj, nil
}
