package leader_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/test/expect"
)

// workspaceManifest lets the leader write what the test's task writes, and
// nothing else beside deploy/base.
const workspaceManifest = `
apiVersion: v1
kind: Namespace
metadata: {name: work}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: scribe, namespace: work}
rules:
- {apiGroups: [""], resources: [configmaps], verbs: [get, list, watch, create, update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: scribe, namespace: work}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: scribe}
subjects: [{kind: ServiceAccount, name: chandler-leader, namespace: chandler}]
`

func TestElection(t *testing.T) {
	w := newWorld(t)
	if err := w.Apply(t.Context(), []byte(workspaceManifest)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"graceful takeover", w.testGraceful},
		{"made by hand", w.testMadeByHand},
		{"killed leader", w.testKilled},
		{"frozen leader", w.testFrozen},
		{"frozen leader whose task is deaf", w.testFrozenDeaf},
		{"deposed by an administrator", w.testDeposed},
		{"rights taken away while running", w.testRightsTakenAway},
		{"rights missing at the start", w.testRightsMissing},
		{"informers", w.testInformers},
		{"counts agents", w.testCountsAgents},
		{"candidates", w.testCandidates},
		{"events", w.testEvents},
		{"policies missing", w.testUnguarded},
		{"API server restarted", w.testAPIServerRestart},
	} {
		w.vacate(t)
		t.Run(test.name, test.run)
	}
}

// awaitHolder waits until the Lease names the agent, and returns how long.
func (w *world) awaitHolder(t *testing.T, name string) time.Duration {
	t.Helper()
	return expect.Within(t, 30*time.Second, func() error {
		got, err := w.holder(t.Context())
		if err == nil && got != podName(name) {
			err = fmt.Errorf("the Lease names %q, want %s", got, podName(name))
		}
		return err
	})
}

// scribbled returns the version of what the agent's task last wrote.
func (w *world) scribbled(t *testing.T, name string) string {
	t.Helper()
	found, err := w.admin.CoreV1().ConfigMaps(workspace).Get(t.Context(), podName(name), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return found.ResourceVersion
}

// awaitScribbling waits for a write newer than the version.
func (w *world) awaitScribbling(t *testing.T, name, since string) {
	t.Helper()
	expect.Within(t, 30*time.Second, func() error {
		if w.scribbled(t, name) == since {
			return fmt.Errorf("%s has not written", name)
		}
		return nil
	})
}

func (w *world) testGraceful(t *testing.T) {
	first := w.start(t, "a")
	w.awaitHolder(t, "a")
	second := w.start(t, "b")
	w.awaitScribbling(t, "a", "")
	first.end(t)
	t.Logf("taken %s after the release", w.awaitHolder(t, "b"))
	w.awaitScribbling(t, "b", "")
	if first.leads() || !second.leads() {
		t.Errorf("got first leading %t, second %t", first.leads(), second.leads())
	}
	second.end(t)
	if got, err := w.holder(t.Context()); got != "" || err != nil {
		t.Errorf("after both ended: got holder %q and error %v, want none", got, err)
	}
}

func (w *world) testKilled(t *testing.T) {
	first := w.startChild(t, "a", "hears")
	w.awaitScribbling(t, "a", w.scribbled(t, "a"))
	w.start(t, "b")
	first.signal(t, syscall.SIGKILL)
	_ = first.Wait() // it was killed
	t.Logf("taken %s after the kill", w.awaitHolder(t, "b"))
	w.awaitScribbling(t, "b", w.scribbled(t, "b"))
}

// freeze stops a leading child until another has led for a while, resumes it,
// and checks that it writes nothing more.
func (w *world) freeze(t *testing.T, frozen *child) {
	t.Helper()
	w.awaitScribbling(t, "a", w.scribbled(t, "a"))
	successor := w.start(t, "b")
	frozen.signal(t, syscall.SIGSTOP)
	w.awaitHolder(t, "b")
	w.awaitScribbling(t, "b", w.scribbled(t, "b"))
	before := w.scribbled(t, "a")
	frozen.signal(t, syscall.SIGCONT)
	after(2 * duration * time.Second)
	if got := w.scribbled(t, "a"); got != before {
		t.Errorf("got a write by the leader that was frozen past its lease")
	}
	if got, err := w.holder(t.Context()); got != podName("b") || err != nil {
		t.Errorf("got holder %q and error %v, want %s", got, err, podName("b"))
	}
	if !successor.leads() {
		t.Error("the successor no longer leads")
	}
}

func (w *world) testFrozen(t *testing.T) {
	frozen := w.startChild(t, "a", "hears")
	w.freeze(t, frozen)
	frozen.signal(t, syscall.SIGTERM)
	if err := frozen.Wait(); err != nil {
		t.Errorf("it had gone back to following: got %v, want exit code 0", err)
	}
}

// testFrozenDeaf: only the fence stands between such a task and the cluster.
func (w *world) testFrozenDeaf(t *testing.T) {
	frozen := w.startChild(t, "a", "deaf")
	w.freeze(t, frozen)
	var exit *exec.ExitError
	if err := frozen.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("got %v, want the process to end with exit code 1", err)
	}
	if got := strings.TrimSpace(frozen.out.String()); got == "0" || got == "" {
		t.Errorf("got %q refused writes, want some: the task went on writing", got)
	}
}

func (w *world) testDeposed(t *testing.T) {
	r := w.start(t, "a")
	expect.Within(t, 10*time.Second, r.mustLead)
	found, err := w.admin.CoordinationV1().Leases(namespace).Get(t.Context(), lease, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	expect.Within(t, 5*time.Second, func() error {
		named(podName("c"))(found)
		_, err := w.admin.CoordinationV1().Leases(namespace).Update(t.Context(), found, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			found, err = w.admin.CoordinationV1().Leases(namespace).Get(t.Context(), lease, metav1.GetOptions{})
			return errors.Join(errors.New("the leader was faster"), err)
		}
		return err
	})
	expect.Within(t, 5*time.Second, func() error {
		if r.leads() {
			return errors.New("still leads")
		}
		return nil
	})
	w.awaitHolder(t, "a") // c never renews
}

func (r *replica) mustLead() error {
	if !r.leads() {
		return errors.New("does not lead")
	}
	return nil
}

func (w *world) testRightsTakenAway(t *testing.T) {
	r := w.start(t, "a")
	w.awaitScribbling(t, "a", w.scribbled(t, "a"))
	if err := w.admin.RbacV1().RoleBindings(workspace).Delete(t.Context(), "scribe", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	expect.Within(t, 10*time.Second, func() error {
		if metric(r.registry, "chandler_task_errors_total") < 2 {
			return errors.New("no failure is counted")
		}
		return nil
	})
	if !r.leads() {
		t.Error("it gave up leading over a task's failure")
	}
	if err := w.Apply(t.Context(), []byte(workspaceManifest)); err != nil {
		t.Fatal(err)
	}
	w.awaitScribbling(t, "a", w.scribbled(t, "a"))
}

// watcher is a task that watches a resource and remembers what it was given.
type watcher struct {
	resource schema.GroupVersionResource
	sel      leader.Selection
	mu       sync.Mutex
	seen     map[string]metav1.ObjectMeta
	synced   map[string]bool
}

func newWatcher(resource string, sel leader.Selection) *watcher {
	return &watcher{
		resource: schema.GroupVersionResource{Version: "v1", Resource: resource},
		sel:      sel,
		seen:     map[string]metav1.ObjectMeta{},
		synced:   map[string]bool{},
	}
}

func (o *watcher) Name() string { return "watcher-" + o.resource.Resource }

func (o *watcher) Watch(in leader.Informers, enqueue func(string)) error {
	_, err := in.Metadata(o.resource, o.sel).AddEventHandler(leader.OnChange(func(obj metav1.Object) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.seen[obj.GetName()] = metav1.ObjectMeta{
			Labels: obj.GetLabels(), Annotations: obj.GetAnnotations(), ManagedFields: obj.GetManagedFields(),
		}
		enqueue(obj.GetName())
	}))
	return err
}

func (o *watcher) Sync(_ context.Context, key string) (time.Duration, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.synced[key] = true
	return 0, nil
}

func (o *watcher) Permissions() []authorizationv1.ResourceAttributes {
	return []authorizationv1.ResourceAttributes{
		{Verb: "list", Group: o.resource.Group, Resource: o.resource.Resource},
		{Verb: "watch", Group: o.resource.Group, Resource: o.resource.Resource},
	}
}

func (o *watcher) has(name string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.synced[name] {
		return fmt.Errorf("%s is not synced", name)
	}
	return nil
}

func running(tasks ...leader.Task) func(*leader.Options) {
	return func(o *leader.Options) {
		o.Tasks = func(leader.Term) ([]leader.Task, error) { return tasks, nil }
	}
}

// testRightsMissing: a task that may not list what it watches waits and is named;
// its neighbour works, and granting the right needs no restart.
func (w *world) testRightsMissing(t *testing.T) {
	secrets, namespaces := newWatcher("secrets", leader.Selection{}), newWatcher("namespaces", leader.Selection{})
	r := w.start(t, "a", running(secrets, namespaces))
	expect.Within(t, 10*time.Second, func() error { return namespaces.has("default") })
	expect.Within(t, 5*time.Second, func() error {
		if got := metric(r.registry, "chandler_task_missing_permissions"); got != 2 {
			return fmt.Errorf("got %v missing permissions, want list and watch of secrets", got)
		}
		return nil
	})
	_, err := w.admin.CoreV1().Secrets(workspace).Create(t.Context(),
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "found-later"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Apply(t.Context(), []byte(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reads-secrets}
rules: [{apiGroups: [""], resources: [secrets], verbs: [list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reads-secrets}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reads-secrets}
subjects: [{kind: ServiceAccount, name: chandler-leader, namespace: chandler}]
`)); err != nil {
		t.Fatal(err)
	}
	expect.Within(t, time.Minute, func() error { return secrets.has("found-later") })
	if err := w.admin.RbacV1().ClusterRoleBindings().Delete(t.Context(), "reads-secrets", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) testInformers(t *testing.T) {
	watching := newWatcher("namespaces", leader.Selection{Labels: "supplied=yes"})
	w.start(t, "a", running(watching))
	w.awaitHolder(t, "a")
	for name, labels := range map[string]map[string]string{"selected": {"supplied": "yes"}, "unselected": nil} {
		_, err := w.admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: labels, Annotations: map[string]string{"big": "blob", "chandler.dev/note": "kept"},
		}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	expect.Within(t, 10*time.Second, func() error { return watching.has("selected") })
	watching.mu.Lock()
	defer watching.mu.Unlock()
	if len(watching.seen) != 1 {
		t.Errorf("got %v, want only what the server selected", watching.seen)
	}
	got := watching.seen["selected"]
	if len(got.ManagedFields) != 0 || len(got.Annotations) != 1 || got.Annotations["chandler.dev/note"] != "kept" {
		t.Errorf("got annotations %v and %d managed fields, want them stripped", got.Annotations, len(got.ManagedFields))
	}
}

// testAPIServerRestart: the leader stops before its lease runs out, someone leads
// again afterwards, and the new term's informers work.
func (w *world) testAPIServerRestart(t *testing.T) {
	replicas := []*replica{w.start(t, "a"), w.start(t, "b")}
	expect.Within(t, 10*time.Second, func() error { return errors.Join(leaders(replicas)) })
	w.StopAPIServer()
	after((duration + 1) * time.Second)
	for i, r := range replicas {
		if r.leads() {
			t.Errorf("replica %d leads past its lease", i)
		}
	}
	if err := w.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := map[string]string{"a": w.scribbled(t, "a"), "b": w.scribbled(t, "b")}
	expect.Within(t, 30*time.Second, func() error {
		if err := leaders(replicas); err != nil {
			return err
		}
		if w.scribbled(t, "a") == before["a"] && w.scribbled(t, "b") == before["b"] {
			return errors.New("nobody has written")
		}
		return nil
	})
}

func leaders(replicas []*replica) error {
	count := 0
	for _, r := range replicas {
		if r.leads() {
			count++
		}
	}
	if count != 1 {
		return fmt.Errorf("got %d leaders, want 1", count)
	}
	return nil
}
