package podlogs_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

const (
	home    = "chandler"
	account = "chandler-leader"
	node    = "node-1"
	patient = time.Minute
)

var leaderUser = cluster.ServiceAccountUser(home, account)

// world is a control plane with exactly the manifests of deploy/base that the task
// needs, and a node for DaemonSets.
type world struct {
	*cluster.Cluster
	admin  kubernetes.Interface
	scenes int
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{Cluster: cluster.ForTest(t, cluster.Options{})}
	w.admin = kubernetes.NewForConfigOrDie(w.Admin())
	for _, file := range []string{"00-namespace", "serviceaccounts", "rbac", "policies", "podlogs"} {
		w.apply(t, file)
	}
	// The policy of the leader's token denies everybody while there is no Lease.
	_, err := w.admin.CoordinationV1().Leases(home).Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: home}}, metav1.CreateOptions{})
	expect.OK(t, err)
	_, err = w.admin.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{})
	expect.OK(t, err)
	w.awaitPolicies(t, true)
	ctx, cancel := context.WithCancel(context.Background())
	var playing sync.WaitGroup
	playing.Go(func() {
		if err := fixtures.RunPods(ctx, w.Admin()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); playing.Wait() })
	return w
}

func (w *world) apply(t testing.TB, file string) {
	t.Helper()
	// Also called after the test, when its own context has ended.
	expect.OK(t, w.ApplyFiles(context.Background(), filepath.Join("..", "..", "deploy", "base", file+".yaml")))
}

// leader returns a configuration with a leader's token, as an elected replica has.
func (w *world) leader(t testing.TB) *rest.Config {
	t.Helper()
	return w.token(t, home, account)
}

func (w *world) token(t testing.TB, namespace, name string) *rest.Config {
	t.Helper()
	var config *rest.Config
	eventually(t, func() (err error) {
		config, err = w.AsServiceAccount(t.Context(), namespace, name)
		return err
	})
	config.QPS = -1
	return config
}

// awaitPolicies waits until the API server enforces the policies, or does not any
// more.
func (w *world) awaitPolicies(t testing.TB, inForce bool) {
	t.Helper()
	client := kubernetes.NewForConfigOrDie(w.leader(t))
	stray := metav1.ObjectMeta{Name: "stray"}
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	for name, try := range map[string]func() error{
		"Role": func() error {
			_, err := client.RbacV1().Roles(home).Create(t.Context(), &rbacv1.Role{ObjectMeta: stray}, dry)
			return err
		},
		"RoleBinding": func() error {
			_, err := client.RbacV1().RoleBindings(home).Create(t.Context(), &rbacv1.RoleBinding{
				ObjectMeta: stray, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "stray"},
			}, dry)
			return err
		},
		"ServiceAccount": func() error {
			_, err := client.CoreV1().ServiceAccounts(home).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: stray}, dry)
			return err
		},
	} {
		eventually(t, func() error {
			if err := try(); apierrors.IsInvalid(err) != inForce || !inForce && err != nil {
				return fmt.Errorf("a stray %s: got %w, want it refused: %t", name, err, inForce)
			}
			return nil
		})
	}
}

// scene is one subtest's namespace.
type scene struct {
	*world
	namespace string
}

func (w *world) newScene(t testing.TB) *scene {
	t.Helper()
	w.scenes++
	s := &scene{world: w, namespace: fmt.Sprintf("team-%d", w.scenes)}
	s.addNamespace(t, s.namespace)
	return s
}

// addNamespace makes a namespace that ends with the test, with nobody waiting.
func (w *world) addNamespace(t testing.TB, name string) {
	t.Helper()
	_, err := w.admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	expect.OK(t, err)
	t.Cleanup(func() {
		err := w.admin.CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
}

// pods returns the names of the pods that carry app=<app>, sorted.
func (s *scene) pods(t testing.TB, app string) []string {
	t.Helper()
	list, err := s.admin.CoreV1().Pods(s.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	expect.OK(t, err)
	var names []string
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	slices.Sort(names)
	return names
}

// awaitPods waits until an app has exactly so many pods, and returns their names.
func (s *scene) awaitPods(t testing.TB, app string, n int) []string {
	t.Helper()
	var names []string
	eventually(t, func() error {
		if names = s.pods(t, app); len(names) != n {
			return fmt.Errorf("%s has %d pods, want %d", app, len(names), n)
		}
		return nil
	})
	return names
}

func (s *scene) role(t testing.TB, app string) (*rbacv1.Role, error) {
	t.Helper()
	return s.admin.RbacV1().Roles(s.namespace).Get(t.Context(), "podlogreader-"+app, metav1.GetOptions{})
}

// wantRules are those of a Role for pods of the given names.
func wantRules(names ...string) []rbacv1.PolicyRule {
	all := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}}}
	if len(names) > 0 {
		all = append(all, rbacv1.PolicyRule{
			APIGroups: []string{""}, Resources: []string{"pods/log"}, Verbs: []string{"get", "list", "watch"}, ResourceNames: names,
		})
	}
	return all
}

// awaitRole waits until the Role of an app has the rules for pods of these names.
func (s *scene) awaitRole(t testing.TB, app string, names ...string) *rbacv1.Role {
	t.Helper()
	var found *rbacv1.Role
	eventually(t, func() (err error) {
		if found, err = s.role(t, app); err != nil {
			return err
		}
		if diff := cmp.Diff(wantRules(names...), found.Rules); diff != "" {
			return fmt.Errorf("rules of the Role of %s -want +got:\n%s", app, diff)
		}
		return nil
	})
	return found
}

// awaitFollowed waits until an app has n pods and its Role lists exactly these.
func (s *scene) awaitFollowed(t testing.TB, app string, n int) []string {
	t.Helper()
	var names []string
	eventually(t, func() error {
		names = s.pods(t, app)
		found, err := s.role(t, app)
		if err != nil {
			return err
		}
		if diff := cmp.Diff(wantRules(names...), found.Rules); diff != "" || len(names) != n {
			return fmt.Errorf("%d pods, want %d; rules -want +got:\n%s", len(names), n, diff)
		}
		return nil
	})
	return names
}

// existing lists which of the three objects of an app there are.
func (s *scene) existing(t testing.TB, app string) []string {
	t.Helper()
	name, options := "podlogreader-"+app, metav1.GetOptions{}
	_, role := s.admin.RbacV1().Roles(s.namespace).Get(t.Context(), name, options)
	_, binding := s.admin.RbacV1().RoleBindings(s.namespace).Get(t.Context(), name, options)
	_, account := s.admin.CoreV1().ServiceAccounts(s.namespace).Get(t.Context(), name, options)
	found := []string{}
	for what, err := range map[string]error{"Role": role, "RoleBinding": binding, "ServiceAccount": account} {
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		if err == nil {
			found = append(found, what)
		}
	}
	slices.Sort(found)
	return found
}

func (s *scene) awaitExisting(t testing.TB, app string, want ...string) {
	t.Helper()
	eventually(t, func() error {
		if got := s.existing(t, app); !slices.Equal(got, want) {
			return fmt.Errorf("%s has %v, want %v", app, got, want)
		}
		return nil
	})
}

// reader acts with a token of the ServiceAccount that was made for an app.
type reader struct {
	scene  *scene
	client kubernetes.Interface
}

func (s *scene) reader(t testing.TB, app string) *reader {
	t.Helper()
	return &reader{s, kubernetes.NewForConfigOrDie(s.token(t, s.namespace, "podlogreader-"+app))}
}

// may reports whether the API server lets the reader have a pod's log. There is no
// kubelet to deliver it, so what is allowed fails in another way.
func (r *reader) may(t testing.TB, pod string) bool {
	t.Helper()
	err := r.client.CoreV1().Pods(r.scene.namespace).GetLogs(pod, &corev1.PodLogOptions{}).Do(t.Context()).Error()
	switch {
	case apierrors.IsForbidden(err):
		return false
	case err == nil, apierrors.IsBadRequest(err), apierrors.IsNotFound(err):
		return true // "does not have a host assigned"
	default:
		t.Fatalf("log of %s: got %v, want it refused or allowed", pod, err)
		return false
	}
}

// wantAccess waits until the reader may read exactly the allowed pods' logs, of
// these and the refused.
func (r *reader) wantAccess(t testing.TB, allowed, refused []string) {
	t.Helper()
	want := map[string]bool{}
	for _, pod := range allowed {
		want[pod] = true
	}
	for _, pod := range refused {
		want[pod] = false
	}
	eventually(t, func() error {
		got := map[string]bool{}
		for pod := range want {
			got[pod] = r.may(t, pod)
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("access -want +got:\n%s", cmp.Diff(want, got))
		}
		return nil
	})
}

// event waits for an Event in the scene's namespace.
func (s *scene) event(t testing.TB, reason, name, text string) {
	t.Helper()
	eventually(t, func() error {
		list, err := s.admin.EventsV1().Events(s.namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range list.Items {
			e := &list.Items[i]
			if e.Reason == reason && strings.HasPrefix(e.Regarding.Name, name) && strings.Contains(e.Note, text) {
				return nil
			}
		}
		return fmt.Errorf("no Event %s on %s with %q", reason, name, text)
	})
}

// requests returns those of the leader in the scene's namespace since the mark, by
// verb and resource, without Events.
func (s *scene) requests(t testing.TB, since cluster.Mark) map[string]int {
	t.Helper()
	all, err := s.Requests(since)
	expect.OK(t, err)
	found := map[string]int{}
	for request, count := range all.Where(cluster.User(leaderUser)) {
		if request.Namespace == s.namespace && request.Resource != "events" {
			found[request.Verb+" "+request.Resource] += count
		}
	}
	return found
}

func (s *scene) mark(t testing.TB) cluster.Mark {
	t.Helper()
	mark, err := s.Mark()
	expect.OK(t, err)
	return mark
}

// patch changes an object of the scene's namespace with a merge patch.
func patch[T any](t testing.TB, name, body string, do func(context.Context, string, types.PatchType, []byte, metav1.PatchOptions, ...string) (T, error)) {
	t.Helper()
	_, err := do(t.Context(), name, types.MergePatchType, []byte(body), metav1.PatchOptions{})
	expect.OK(t, err)
}

func kubernetesClient(config *rest.Config) kubernetes.Interface {
	return kubernetes.NewForConfigOrDie(config)
}

func eventually(t testing.TB, check func() error) {
	t.Helper()
	expect.Within(t, patient, check)
}

var errStill = errors.New("not yet")
