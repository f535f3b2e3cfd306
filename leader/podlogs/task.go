package podlogs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	rbaclisters "k8s.io/client-go/listers/rbac/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/chandler-k8s/chandler/leader"
)

// Name is the task's name, and the value of the label chandler.dev/task on
// everything that it makes.
const Name = "podlogs"

const (
	// prefix begins the names of what the task makes; the workload's follows.
	prefix = "podlogreader-"

	labelKey  = "podlogreader-affiliate"
	enabled   = "enable"
	selection = labelKey + "=" + enabled

	// byOwner indexes pods, ReplicaSets and Jobs by what they belong to.
	byOwner = "owner"
)

// Options is what New needs besides the term.
type Options struct {
	// CreateServiceAccounts also makes a ServiceAccount and a RoleBinding for each
	// Role where there is none of that name.
	CreateServiceAccounts bool
	// ListPods lets each Role also list the pods of its namespace.
	ListPods bool
	// Metrics are those of the process. Required.
	Metrics *Metrics
}

// Task keeps pod-log Roles for one term. It implements leader.Task.
type Task struct {
	opts     Options
	log      *slog.Logger
	client   kubernetes.Interface
	report   *report
	guards   map[string]*leader.Guard // by resource
	register prometheus.Registerer    // of the term
	enqueue  func(key string)

	pods, replicaSets, jobs cache.Indexer
	roles                   rbaclisters.RoleLister
	bindings, accounts      cache.Indexer

	strays *strays

	mu     sync.Mutex
	states map[string]*state // by key of a Role
}

// New builds the task of one term. It does no I/O.
func New(term leader.Term, opts Options) (*Task, error) {
	if opts.Metrics == nil {
		return nil, errors.New("pod logs: Metrics is required")
	}
	return &Task{
		opts:     opts,
		log:      term.Log.With("task", Name),
		client:   term.Client,
		report:   newReport(term),
		guards:   newGuards(term.Client, term.Namespace),
		register: term.Metrics,
		states:   map[string]*state{},
		strays:   newStrays(),
	}, nil
}

// Name implements leader.Task.
func (t *Task) Name() string { return Name }

// Watch implements leader.Task.
func (t *Task) Watch(in leader.Informers, enqueue func(key string)) error {
	t.enqueue = enqueue
	labelled := func(resource schema.GroupVersionResource, index cache.IndexFunc) (cache.SharedIndexInformer, error) {
		informer := in.Metadata(resource, leader.Selection{Labels: selection})
		return informer, errors.Join(informer.SetTransform(slim), informer.AddIndexers(cache.Indexers{byOwner: index}))
	}
	pods, err1 := labelled(corev1.SchemeGroupVersion.WithResource("pods"), indexPods)
	replicaSets, err2 := labelled(appsv1.SchemeGroupVersion.WithResource("replicasets"), indexBetween(workloadOfReplicaSet))
	jobs, err3 := labelled(batchv1.SchemeGroupVersion.WithResource("jobs"), indexBetween(workloadOfJob))
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("index by owner: %w", err)
	}
	ours := leader.Selection{Labels: leader.TaskLabel + "=" + Name}
	roles := in.Typed(ours).Rbac().V1().Roles()
	bindings := in.Metadata(rbacv1.SchemeGroupVersion.WithResource("rolebindings"), ours)
	accounts := in.Metadata(corev1.SchemeGroupVersion.WithResource("serviceaccounts"), ours)
	t.pods, t.replicaSets, t.jobs = pods.GetIndexer(), replicaSets.GetIndexer(), jobs.GetIndexer()
	t.roles, t.bindings, t.accounts = roles.Lister(), bindings.GetIndexer(), accounts.GetIndexer()
	for _, w := range []struct {
		informer cache.SharedIndexInformer
		changed  func(metav1.Object)
	}{
		{pods, t.podChanged},
		{replicaSets, t.betweenChanged(replicaSet, workloadOfReplicaSet)},
		{jobs, t.betweenChanged(job, workloadOfJob)},
		{roles.Informer(), t.madeChanged},
		{bindings, t.madeChanged},
		{accounts, t.madeChanged},
	} {
		if _, err := w.informer.AddEventHandler(leader.OnChange(w.changed)); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
	}
	if err := t.register.Register(&collector{task: t}); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	return nil
}

// podChanged enqueues the pod's Role. That of a pod whose ReplicaSet or Job has not
// been seen yet is enqueued when it is; until then the pod is looked after.
func (t *Task) podChanged(pod metav1.Object) {
	key, problem := t.claim(pod)
	if problem == "" {
		t.enqueue(key)
	}
	if stray := podKey(pod); problem != "" || t.strays.has(stray) {
		t.enqueue(stray)
	}
}

func (t *Task) betweenChanged(kind string, workloadOf func(metav1.Object) (workload, bool)) func(metav1.Object) {
	return func(between metav1.Object) {
		if owner, ok := workloadOf(between); ok {
			t.enqueue(roleKey(between.GetNamespace(), owner.name))
		}
		for _, key := range t.strays.of(uidKey(between.GetNamespace(), kind, between.GetUID())) {
			t.enqueue(key)
		}
	}
}

func (t *Task) madeChanged(object metav1.Object) {
	if name, ok := strings.CutPrefix(object.GetName(), prefix); ok {
		t.enqueue(roleKey(object.GetNamespace(), name))
	}
}

// Sync implements leader.Task. Keys are "<namespace>/<workload>" for what a
// workload of that name gets, and "<namespace>/pod/<name>" for a pod that belongs to
// none.
func (t *Task) Sync(ctx context.Context, key string) (again time.Duration, err error) {
	namespace, name, _ := strings.Cut(key, "/")
	if pod, ok := strings.CutPrefix(name, "pod/"); ok {
		return t.syncStray(key, namespace+"/"+pod), nil
	}
	return t.syncRole(ctx, key, namespace, name)
}

// Permissions implements leader.Permitted.
func (t *Task) Permissions() []authorizationv1.ResourceAttributes {
	var needed []authorizationv1.ResourceAttributes
	add := func(group, resource string, verbs ...string) {
		for _, verb := range verbs {
			needed = append(needed, authorizationv1.ResourceAttributes{Group: group, Resource: resource, Verb: verb})
		}
	}
	add("", "pods", "list", "watch")
	add(appsv1.GroupName, "replicasets", "list", "watch")
	add(batchv1.GroupName, "jobs", "list", "watch", "get")
	for _, resource := range []string{"deployments", "statefulsets", "daemonsets"} {
		add(appsv1.GroupName, resource, "get")
	}
	add(batchv1.GroupName, "cronjobs", "get")
	add(rbacv1.GroupName, "roles", "list", "watch", "create", "update", "delete", "escalate", "bind")
	add(rbacv1.GroupName, "rolebindings", "list", "watch", "create", "delete")
	add("", "serviceaccounts", "list", "watch", "create", "delete")
	return needed
}
