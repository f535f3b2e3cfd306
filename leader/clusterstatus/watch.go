package clusterstatus

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/chandler-k8s/chandler/leader"
)

// A watch costs us some 110 kB and the API server a stream that every event of the
// kind is held against; an object costs us some 500 bytes, trimmed. So single names
// are watched only where there are few of them. Selectors have a watch each; the
// configuration bounds their number.
const (
	maxNamed   = 4   // of one kind in one namespace; with more, the namespace is watched
	maxWatches = 100 // of one kind; with more, every namespace is watched
)

// scope is what one watch covers.
type scope struct {
	kind      string
	namespace string // empty means all
	name      string // empty means all
	selector  string
}

// plan says which scope shows each target.
func plan(targets []Target) []scope {
	names, scopes := map[scope]map[string]bool{}, make([]scope, len(targets))
	for i, t := range targets {
		scopes[i] = scope{t.Kind, t.Namespace, t.Name, t.Selector}
		around := scope{kind: t.Kind, namespace: t.Namespace}
		if names[around] == nil {
			names[around] = map[string]bool{}
		}
		if t.Name != "" {
			names[around][t.Name] = true
		}
	}
	for i, s := range scopes {
		if s.selector == "" && len(names[scope{kind: s.kind, namespace: s.namespace}]) > maxNamed {
			scopes[i].name = ""
		}
	}
	watches := map[string]map[scope]bool{}
	for _, s := range scopes {
		if watches[s.kind] == nil {
			watches[s.kind] = map[scope]bool{}
		}
		if s.selector == "" {
			watches[s.kind][s] = true
		}
	}
	for i, s := range scopes {
		if s.selector == "" && len(watches[s.kind]) > maxWatches {
			scopes[i] = scope{kind: s.kind}
		}
	}
	return scopes
}

// source is one watch and what it has shown.
type source struct {
	stream   stream
	informer cache.SharedIndexInformer
}

// watchScope asks for the informer of a scope. It holds up no other: a namespace
// that we may not read is a finding, not an obstacle.
func watchScope(in leader.Informers, s scope) (*source, error) {
	selection := leader.Selection{Namespace: s.namespace, Labels: s.selector, Optional: true}
	if s.name != "" {
		selection.Fields = "metadata.name=" + s.name
	}
	made := &source{}
	example := examples()[s.kind]
	made.informer = in.Typed(selection).InformerFor(example, func(client kubernetes.Interface, _ time.Duration) cache.SharedIndexInformer {
		watched := listWatch(&made.stream, s.kind, client, selection)
		indexers := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
		return cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(watched, client), example, 0, indexers)
	})
	// The factory has set its own transform before. Errors become findings, and the
	// reflector would log each of its attempts.
	err := errors.Join(
		made.informer.SetTransform(trim),
		made.informer.SetWatchErrorHandlerWithContext(func(context.Context, *cache.Reflector, error) {}),
	)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", s.kind, err)
	}
	return made, nil
}

// examples holds an object of each kind.
func examples() map[string]runtime.Object {
	return map[string]runtime.Object{
		daemonSet: &appsv1.DaemonSet{}, deployment: &appsv1.Deployment{}, statefulSet: &appsv1.StatefulSet{},
		job: &batchv1.Job{}, cronJob: &batchv1.CronJob{},
	}
}

func listWatch(s *stream, kind string, client kubernetes.Interface, sel leader.Selection) *cache.ListWatch {
	switch kind {
	case daemonSet:
		return followed(s, client.AppsV1().DaemonSets(sel.Namespace), sel)
	case deployment:
		return followed(s, client.AppsV1().Deployments(sel.Namespace), sel)
	case statefulSet:
		return followed(s, client.AppsV1().StatefulSets(sel.Namespace), sel)
	case job:
		return followed(s, client.BatchV1().Jobs(sel.Namespace), sel)
	default:
		return followed(s, client.BatchV1().CronJobs(sel.Namespace), sel)
	}
}

// api is what typed clients have in common.
type api[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// followed lists and watches with s looking on.
func followed[L runtime.Object](s *stream, a api[L], sel leader.Selection) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.LabelSelector, options.FieldSelector = sel.Labels, sel.Fields
			list, err := a.List(ctx, options)
			if err != nil {
				s.refuse(err)
				return nil, err
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.list()
			return list, nil
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.LabelSelector, options.FieldSelector = sel.Labels, sel.Fields
			events, err := a.Watch(ctx, options)
			if err != nil {
				s.refuse(err)
				return nil, err
			}
			return s.follow(events, options.SendInitialEvents != nil && *options.SendInitialEvents), nil
		},
	}
}

// find returns what the source has shown of a target; why says what is wrong with
// the source if that means nothing. What it returns must not be changed.
func (s *source) find(t Target, now time.Time) (found []*workload, why *verdict) {
	if why := s.stream.doubt(s.informer.HasSynced(), now); why != nil {
		return nil, why
	}
	store := s.informer.GetIndexer()
	if t.Name != "" {
		object, _, err := store.GetByKey(t.Namespace + "/" + t.Name)
		if w, ok := object.(*workload); ok && err == nil {
			found = append(found, w)
		}
		return found, nil
	}
	objects, err := store.ByIndex(cache.NamespaceIndex, t.Namespace)
	if err != nil {
		return nil, &verdict{state: unknown, reason: err.Error()}
	}
	for _, object := range objects {
		if w, ok := object.(*workload); ok {
			found = append(found, w)
		}
	}
	return found, nil
}
