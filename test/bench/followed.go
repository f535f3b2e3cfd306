package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/chandler-k8s/chandler/leader"
)

const (
	logSpaces     = 10 // namespaces that workloads are spread over
	logNamespaces = "logs-"
	logPrefix     = "podlogreader-"
)

// followed is a world with labelled Deployments, and a watch of what they get.
type followed struct {
	*world
	stop func()

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change
	pods     map[types.NamespacedName]map[string]bool
	roles    map[types.NamespacedName][]string
	besides  map[string]int // RoleBindings and ServiceAccounts of ours
	wrong    map[types.NamespacedName]bool
	lastPod  time.Time // when a pod was last seen to come or go
	lastSeen time.Time // when anything was
}

// newFollowed makes the namespaces and begins to watch.
func newFollowed(ctx context.Context, w *world) (*followed, error) {
	for i := range logSpaces {
		_, err := w.admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(logNamespaces, i)}}, metav1.CreateOptions{})
		if err != nil {
			return nil, err
		}
	}
	f := &followed{
		world: w, changed: make(chan struct{}), besides: map[string]int{}, wrong: map[types.NamespacedName]bool{},
		pods: map[types.NamespacedName]map[string]bool{}, roles: map[types.NamespacedName][]string{},
	}
	ctx, cancel := context.WithCancel(ctx)
	selected := func(selector string) informers.SharedInformerFactory {
		return informers.NewSharedInformerFactoryWithOptions(w.admin, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = selector }))
	}
	pods, ours := selected("podlogreader-affiliate=enable"), selected(leader.TaskLabel+"=podlogs")
	for informer, seen := range map[cache.SharedIndexInformer]func(any, bool){
		pods.Core().V1().Pods().Informer():            f.podSeen,
		ours.Rbac().V1().Roles().Informer():           f.roleSeen,
		ours.Rbac().V1().RoleBindings().Informer():    func(any, bool) {},
		ours.Core().V1().ServiceAccounts().Informer(): func(any, bool) {},
	} {
		if _, err := informer.AddEventHandler(f.handler(seen)); err != nil {
			cancel()
			return nil, err
		}
	}
	for _, factory := range []informers.SharedInformerFactory{pods, ours} {
		factory.StartWithContext(ctx)
		factory.WaitForCacheSyncWithContext(ctx)
	}
	f.stop = func() { cancel(); pods.Shutdown(); ours.Shutdown() }
	return f, nil
}

// handler counts RoleBindings and ServiceAccounts, hands everything to seen, and
// wakes who waits.
func (f *followed) handler(seen func(obj any, there bool)) cache.ResourceEventHandler {
	note := func(obj any, there bool, count int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if final, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = final.Obj
		}
		switch obj.(type) {
		case *rbacv1.RoleBinding, *corev1.ServiceAccount:
			f.besides[fmt.Sprintf("%T", obj)] += count
		}
		f.lastSeen = time.Now()
		seen(obj, there)
		close(f.changed)
		f.changed = make(chan struct{})
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { note(obj, true, 1) },
		UpdateFunc: func(_, obj any) { note(obj, true, 0) },
		DeleteFunc: func(obj any) { note(obj, false, -1) },
	}
}

func (f *followed) podSeen(obj any, there bool) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	name := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Labels["app"]}
	if f.pods[name] == nil {
		f.pods[name] = map[string]bool{}
	}
	if f.pods[name][pod.Name] != there {
		f.lastPod = time.Now()
	}
	if there {
		f.pods[name][pod.Name] = true
	} else {
		delete(f.pods[name], pod.Name)
	}
	f.judge(name)
}

func (f *followed) roleSeen(obj any, there bool) {
	role, ok := obj.(*rbacv1.Role)
	if !ok {
		return
	}
	name := types.NamespacedName{Namespace: role.Namespace, Name: role.Name[len(logPrefix):]}
	delete(f.roles, name)
	for _, rule := range role.Rules {
		if there && slices.Contains(rule.Resources, "pods/log") {
			f.roles[name] = rule.ResourceNames
		}
	}
	f.judge(name)
}

// judge notes whether a Role lists exactly the pods of its workload. The caller
// holds mu.
func (f *followed) judge(name types.NamespacedName) {
	if slices.Equal(slices.Sorted(maps.Keys(f.pods[name])), f.roles[name]) {
		delete(f.wrong, name)
	} else {
		f.wrong[name] = true
	}
}

// await blocks until what is seen satisfies a condition, which is called with mu
// held, and returns when it first did.
func (f *followed) await(ctx context.Context, what string, done func() bool) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	for {
		f.mu.Lock()
		ok, seen, changed := done(), f.lastSeen, f.changed
		f.mu.Unlock()
		if ok {
			return seen, nil
		}
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-changed:
		}
	}
}

// count returns the number of labelled pods. The caller holds mu.
func (f *followed) count() int {
	n := 0
	for _, pods := range f.pods {
		n += len(pods)
	}
	return n
}

// awaitRight waits until there are so many pods and workloads and each has what it
// is due, and returns when that was, and when the last pod had come or gone.
func (f *followed) awaitRight(ctx context.Context, workloads, pods int) (done, lastPod time.Time, err error) {
	done, err = f.await(ctx, "Roles", func() bool {
		lastPod = f.lastPod
		return f.count() == pods && len(f.wrong) == 0 && len(f.roles) == workloads &&
			f.besides["*v1.RoleBinding"] == workloads && f.besides["*v1.ServiceAccount"] == workloads
	})
	return done, lastPod, err
}

func workloadName(i int) types.NamespacedName {
	return types.NamespacedName{Namespace: fmt.Sprint(logNamespaces, i%logSpaces), Name: fmt.Sprint("web-", i)}
}

// addWorkloads makes labelled Deployments, from the one of a number on.
func (f *followed) addWorkloads(ctx context.Context, from, n int, replicas int32) error {
	var making errgroup.Group
	making.SetLimit(16)
	for i := from; i < from+n; i++ {
		name := workloadName(i)
		making.Go(func() error {
			_, err := f.admin.AppsV1().Deployments(name.Namespace).Create(ctx, &appsv1.Deployment{
				ObjectMeta: metav1.ObjectMeta{Name: name.Name},
				Spec: appsv1.DeploymentSpec{
					Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name.Name}},
					Template: corev1.PodTemplateSpec{
						ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name.Name, "podlogreader-affiliate": "enable"}},
						Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "main"}}},
					},
				},
			}, metav1.CreateOptions{})
			return err
		})
	}
	return making.Wait()
}

func (f *followed) patch(ctx context.Context, name types.NamespacedName, body string) error {
	_, err := f.admin.AppsV1().Deployments(name.Namespace).Patch(ctx, name.Name, types.MergePatchType, []byte(body), metav1.PatchOptions{})
	return err
}
