package podlogs_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/chandler-k8s/chandler/test/expect"
)

type (
	ctx       = context.Context
	patchType = types.PatchType
)

func cut(resource string) (main, sub string, ok bool) { return strings.Cut(resource, "/") }

func editedByHand(t *testing.T, s *scene) {
	s.run(t)
	web := s.addDeployment(t, "web", 2, true)
	s.addPod(t, "stranger", "stranger", false, nil)
	pods := s.awaitFollowed(t, "web", 2)
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	reader := s.reader(t, "web")
	reader.wantAccess(t, pods, []string{"stranger"})
	roles := s.admin.RbacV1().Roles(s.namespace)
	for name, body := range map[string]string{
		"every log":       `{"rules":[{"apiGroups":[""],"resources":["pods/log"],"verbs":["get"]}]}`,
		"everything":      `{"rules":[{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}]}`,
		"one name more":   `{"rules":[{"apiGroups":[""],"resources":["pods/log"],"verbs":["get","list","watch"],"resourceNames":["stranger"]}]}`,
		"nothing":         `{"rules":null}`,
		"no owner":        `{"metadata":{"ownerReferences":null}}`,
		"no owner, wider": `{"metadata":{"ownerReferences":null},"rules":[{"apiGroups":[""],"resources":["pods/log"],"verbs":["get"]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			patch(t, "podlogreader-web", body, roles.Patch)
			eventually(t, func() error {
				role, err := s.role(t, "web")
				if err != nil {
					return err
				}
				if diff := cmp.Diff(wantRules(pods...), role.Rules); diff != "" || len(role.OwnerReferences) != 1 || role.OwnerReferences[0].UID != web.UID {
					return fmt.Errorf("owners %v, rules -want +got:\n%s", role.OwnerReferences, diff)
				}
				return nil
			})
			reader.wantAccess(t, pods, []string{"stranger"})
		})
	}
	// What others add to it besides is theirs.
	patch(t, "podlogreader-web", `{"metadata":{"annotations":{"note":"ours"},"labels":{"team":"a"}}}`, roles.Patch)
	s.scale(t, "web", 3)
	s.awaitFollowed(t, "web", 3)
	role, err := s.role(t, "web")
	expect.OK(t, err)
	if role.Annotations["note"] != "ours" || role.Labels["team"] != "a" {
		t.Errorf("got labels %v and annotations %v, want those of others kept", role.Labels, role.Annotations)
	}
}

func deletedByHand(t *testing.T, s *scene) {
	s.run(t)
	s.addDeployment(t, "web", 2, true)
	s.awaitFollowed(t, "web", 2)
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	expect.OK(t, s.admin.RbacV1().Roles(s.namespace).Delete(t.Context(), "podlogreader-web", metav1.DeleteOptions{}))
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	expect.OK(t, s.admin.RbacV1().RoleBindings(s.namespace).Delete(t.Context(), "podlogreader-web", metav1.DeleteOptions{}))
	expect.OK(t, s.admin.CoreV1().ServiceAccounts(s.namespace).Delete(t.Context(), "podlogreader-web", metav1.DeleteOptions{}))
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	s.reader(t, "web").wantAccess(t, s.awaitFollowed(t, "web", 2), nil)
}

func (s *scene) addForeign(t testing.TB, app string) {
	t.Helper()
	name := metav1.ObjectMeta{Name: "podlogreader-" + app}
	options := metav1.CreateOptions{}
	_, err1 := s.admin.RbacV1().Roles(s.namespace).Create(t.Context(), &rbacv1.Role{ObjectMeta: name, Rules: wantRules("theirs")}, options)
	_, err2 := s.admin.RbacV1().RoleBindings(s.namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: name, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name.Name},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: name.Name, Namespace: s.namespace}, {Kind: "Group", APIGroup: rbacv1.GroupName, Name: "auditors"}},
	}, options)
	_, err3 := s.admin.CoreV1().ServiceAccounts(s.namespace).Create(t.Context(), &corev1.ServiceAccount{
		ObjectMeta: name, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "theirs"}},
	}, options)
	expect.OK(t, errors.Join(err1, err2, err3))
}

// versions are the resource versions of an app's three objects.
func (s *scene) versions(t testing.TB, app string) []string {
	t.Helper()
	name := "podlogreader-" + app
	role, err1 := s.role(t, app)
	binding, err2 := s.admin.RbacV1().RoleBindings(s.namespace).Get(t.Context(), name, metav1.GetOptions{})
	account, err3 := s.admin.CoreV1().ServiceAccounts(s.namespace).Get(t.Context(), name, metav1.GetOptions{})
	expect.OK(t, errors.Join(err1, err2, err3))
	return []string{role.ResourceVersion, binding.ResourceVersion, account.ResourceVersion}
}

func foreignObjects(t *testing.T, s *scene) {
	s.addForeign(t, "web")
	before := s.versions(t, "web")
	r := s.run(t)
	s.addDeployment(t, "web", 2, true)
	s.event(t, "PodLogRoleForeign", "web", "is left alone")
	r.wantMetric(t, 1, "chandler_podlogs_roles", "state=foreign")
	// More pods are no reason to try again, nor is their end one to delete.
	mark := s.mark(t)
	s.scale(t, "web", 4)
	s.awaitPods(t, "web", 4)
	s.scale(t, "web", 0)
	s.awaitPods(t, "web", 0)
	patch(t, "web", unlabel, s.admin.AppsV1().Deployments(s.namespace).Patch)
	r.wantMetric(t, 0, "chandler_podlogs_roles", "state=foreign")
	if got := s.requests(t, mark); len(got) > 0 {
		t.Errorf("got requests %v, want none", got)
	}
	if diff := cmp.Diff(before, s.versions(t, "web")); diff != "" {
		t.Errorf("foreign objects changed, -before +after:\n%s", diff)
	}
}

// handedOver is the move from podlogreader: the Role gets our label.
func handedOver(t *testing.T, s *scene) {
	s.addForeign(t, "web")
	before := s.versions(t, "web")
	r := s.run(t)
	web := s.addDeployment(t, "web", 2, true)
	r.wantMetric(t, 1, "chandler_podlogs_roles", "state=foreign")
	patch(t, "podlogreader-web", `{"metadata":{"labels":{"chandler.dev/task":"podlogs"}}}`, s.admin.RbacV1().Roles(s.namespace).Patch)
	pods := s.awaitFollowed(t, "web", 2)
	s.reader(t, "web").wantAccess(t, pods, []string{"theirs"})
	role, err := s.role(t, "web")
	expect.OK(t, err)
	if len(role.OwnerReferences) != 1 || role.OwnerReferences[0].UID != web.UID {
		t.Errorf("got owners %v, want the Deployment", role.OwnerReferences)
	}
	if diff := cmp.Diff(before[1:], s.versions(t, "web")[1:]); diff != "" {
		t.Errorf("RoleBinding and ServiceAccount were changed, -before +after:\n%s", diff)
	}
	// What has no workload any more is deleted, as far as it is handed over.
	s.addForeign(t, "orphan")
	ours := `{"metadata":{"labels":{"chandler.dev/task":"podlogs"}}}`
	patch(t, "podlogreader-orphan", ours, s.admin.RbacV1().Roles(s.namespace).Patch)
	s.awaitExisting(t, "orphan", "RoleBinding", "ServiceAccount")
	patch(t, "podlogreader-orphan", ours, s.admin.RbacV1().RoleBindings(s.namespace).Patch)
	patch(t, "podlogreader-orphan", ours, s.admin.CoreV1().ServiceAccounts(s.namespace).Patch)
	s.awaitExisting(t, "orphan")
	// A workload without pods keeps it, and takes it along when it goes.
	s.addForeign(t, "asleep")
	asleep := s.addDeployment(t, "asleep", 0, true)
	patch(t, "podlogreader-asleep", ours, s.admin.CoreV1().ServiceAccounts(s.namespace).Patch)
	patch(t, "podlogreader-asleep", ours, s.admin.RbacV1().RoleBindings(s.namespace).Patch)
	patch(t, "podlogreader-asleep", ours, s.admin.RbacV1().Roles(s.namespace).Patch)
	if role := s.awaitRole(t, "asleep"); len(role.OwnerReferences) != 1 || role.OwnerReferences[0].UID != asleep.UID {
		t.Errorf("got owners %v, want the Deployment without pods", role.OwnerReferences)
	}
	s.awaitExisting(t, "asleep", "Role", "RoleBinding", "ServiceAccount")
	expect.OK(t, s.admin.AppsV1().Deployments(s.namespace).Delete(t.Context(), "asleep", metav1.DeleteOptions{}))
	s.awaitExisting(t, "asleep")
	// Taken out of our hands again by the same label.
	patch(t, "podlogreader-web", `{"metadata":{"labels":null}}`, s.admin.RbacV1().Roles(s.namespace).Patch)
	r.wantMetric(t, 1, "chandler_podlogs_roles", "state=foreign")
}

func rivals(t *testing.T, s *scene) {
	r := s.run(t)
	first := s.addDeployment(t, "web", 2, true)
	pods := s.awaitFollowed(t, "web", 2)
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	s.addStatefulSet(t, "web", 1)
	s.event(t, "PodLogRoleNameTaken", "web", "belongs to Deployment web")
	r.wantMetric(t, 1, "chandler_podlogs_roles", "state=contested")
	reader := s.reader(t, "web")
	reader.wantAccess(t, pods, []string{"web-0"})
	// The next leader sees it the same way.
	r.Stop()
	r = s.run(t)
	r.wantMetric(t, 1, "chandler_podlogs_roles", "state=contested")
	s.scale(t, "web", 3)
	eventually(t, func() error {
		role, err := s.role(t, "web")
		if err == nil && (role.OwnerReferences[0].UID != first.UID || len(role.Rules[1].ResourceNames) != 3) {
			err = errStill
		}
		return err
	})
	reader.wantAccess(t, pods, []string{"web-0"})
	// Scaled to zero it keeps the Role; deleted it leaves it to the other.
	s.scale(t, "web", 0)
	s.awaitRole(t, "web")
	reader.wantAccess(t, nil, append(pods, "web-0"))
	expect.OK(t, s.admin.AppsV1().Deployments(s.namespace).Delete(t.Context(), "web", metav1.DeleteOptions{}))
	s.awaitRole(t, "web", "web-0")
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	s.reader(t, "web").wantAccess(t, []string{"web-0"}, pods)
}

func strays(t *testing.T, s *scene) {
	r := s.run(t)
	unlabelled := s.addDeployment(t, "plain", 1, false)
	pod := s.awaitPods(t, "plain", 1)[0]
	patch(t, pod, `{"metadata":{"labels":{"podlogreader-affiliate":"enable"}}}`, s.admin.CoreV1().Pods(s.namespace).Patch)
	s.addPod(t, "bare", "bare", true, nil)
	s.addPod(t, "rollout-x", "rollout", true, ownedBy("argoproj.io/v1alpha1", "Rollout", "rollout", "1234"))
	s.addPod(t, "other-group", "group", true, ownedBy("example.com/v1", "StatefulSet", "group", unlabelled.UID))
	notController := ownedBy("apps/v1", "Deployment", "plain", unlabelled.UID)
	notController.Controller = nil
	s.addPod(t, "no-controller", "no-controller", true, notController)
	s.event(t, "PodLogLabelIgnored", "plain-", "lacks the label podlogreader-affiliate=enable")
	s.event(t, "PodLogLabelIgnored", "bare", "has no controller")
	s.event(t, "PodLogLabelIgnored", "rollout-x", "Rollout rollout (argoproj.io/v1alpha1)")
	s.event(t, "PodLogLabelIgnored", "other-group", "StatefulSet group (example.com/v1)")
	s.event(t, "PodLogLabelIgnored", "no-controller", "has no controller")
	list, err := s.admin.RbacV1().Roles(s.namespace).List(t.Context(), metav1.ListOptions{})
	expect.OK(t, err)
	if len(list.Items) > 0 {
		t.Errorf("got %d Roles, want none", len(list.Items))
	}
	expect.OK(t, s.admin.CoreV1().Pods(s.namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}))
	r.wantMetric(t, 0, "chandler_podlogs_ignored_pods")
}

// acrossNamespaces has pods that claim to belong to a ReplicaSet or a StatefulSet of
// another namespace, under the name of a pod there. Finalizers keep them from the
// garbage collector, to which they are orphans.
func acrossNamespaces(t *testing.T, s *scene) {
	s.run(t)
	s.addDeployment(t, "web", 1, true)
	db := s.addStatefulSet(t, "db", 1)
	s.addPod(t, "secretive", "secretive", false, nil)
	s.addPod(t, "hidden", "secretive", false, nil)
	s.awaitFollowed(t, "web", 1)
	s.awaitFollowed(t, "db", 1)
	sets, err := s.admin.AppsV1().ReplicaSets(s.namespace).List(t.Context(), metav1.ListOptions{})
	expect.OK(t, err)
	evil := &scene{world: s.world, namespace: s.namespace + "-evil"}
	s.addNamespace(t, evil.namespace)
	evil.addPod(t, "secretive", "web", true, ownedBy("apps/v1", "ReplicaSet", sets.Items[0].Name, sets.Items[0].UID), "example.com/stay")
	evil.addPod(t, "hidden", "db", true, ownedBy("apps/v1", "StatefulSet", "db", db.UID), "example.com/stay")
	t.Cleanup(func() {
		for _, pod := range []string{"secretive", "hidden"} {
			_, err := s.admin.CoreV1().Pods(evil.namespace).Patch(context.Background(), pod, types.MergePatchType, []byte(leave), metav1.PatchOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				t.Error(err)
			}
		}
	})
	// What comes later by the same watch has been handled, so those pods have.
	s.scale(t, "web", 2)
	s.scaleStatefulSet(t, "db", 2)
	pods := append(s.awaitFollowed(t, "web", 2), s.awaitFollowed(t, "db", 2)...)
	for _, pod := range []string{"secretive", "hidden"} {
		_, err := s.admin.CoreV1().Pods(evil.namespace).Get(t.Context(), pod, metav1.GetOptions{})
		expect.OK(t, err) // still there: the Roles are right although it is
	}
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	s.awaitExisting(t, "db", "Role", "RoleBinding", "ServiceAccount")
	s.reader(t, "web").wantAccess(t, pods[:2], append([]string{"secretive", "hidden"}, pods[2:]...))
	s.reader(t, "db").wantAccess(t, pods[2:], append([]string{"secretive", "hidden"}, pods[:2]...))
}

// bogusOwner has a pod of a StatefulSet that never was, which a finalizer keeps from
// being collected.
func bogusOwner(t *testing.T, s *scene) {
	s.run(t)
	mark := s.mark(t)
	// From the beginning, or the garbage collector may be faster.
	pod := s.addPod(t, "ghost-0", "ghost", true, ownedBy("apps/v1", "StatefulSet", "ghost", "11111111-2222-3333-4444-555555555555"), "example.com/stay")
	t.Cleanup(func() {
		_, err := s.admin.CoreV1().Pods(s.namespace).Patch(context.Background(), pod.Name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	eventually(t, func() error {
		if got := s.requests(t, mark); got["get statefulsets"] == 0 {
			return fmt.Errorf("got requests %v, want the owner read once its Role has vanished", got)
		}
		return nil
	})
	s.awaitExisting(t, "ghost")
	s.addDeployment(t, "web", 1, true)
	s.awaitFollowed(t, "web", 1)
	if got := s.requests(t, mark); got["create roles"] > 2 {
		t.Errorf("got requests %v, want one Role for the ghost and one for the Deployment", got)
	}
}

func twoLeaders(t *testing.T, s *scene) {
	const deployments = 10
	a, b := s.run(t), s.run(t)
	for i := range deployments {
		s.addDeployment(t, fmt.Sprint("web-", i), 3, true)
	}
	for i := range deployments {
		s.awaitFollowed(t, fmt.Sprint("web-", i), 3)
		s.scale(t, fmt.Sprint("web-", i), i%4)
	}
	for i := range deployments {
		s.awaitFollowed(t, fmt.Sprint("web-", i), i%4)
		s.awaitExisting(t, fmt.Sprint("web-", i), "Role", "RoleBinding", "ServiceAccount")
	}
	for _, r := range []*term{a, b} {
		r.wantMetric(t, 3, "chandler_podlogs_roles", "state=empty")
		r.wantMetric(t, deployments-3, "chandler_podlogs_roles", "state=current")
		r.wantMetric(t, 0, "chandler_podlogs_roles", "state=foreign")
	}
}

func apiServerRestarted(t *testing.T, s *scene) {
	s.run(t)
	s.addDeployment(t, "web", 60, true)
	before := s.awaitFollowed(t, "web", 60)
	patch(t, "web", `{"spec":{"template":{"metadata":{"annotations":{"revision":"2"}}}}}`, s.admin.AppsV1().Deployments(s.namespace).Patch)
	eventually(t, func() error { // the rollout has begun
		if slices.Equal(before, s.pods(t, "web")) {
			return errStill
		}
		return nil
	})
	s.StopAPIServer()
	expect.OK(t, s.StartAPIServer(t.Context()))
	s.addDeployment(t, "later", 2, true)
	eventually(t, func() error {
		names := s.pods(t, "web")
		role, err := s.role(t, "web")
		if err != nil {
			return err
		}
		old := slices.ContainsFunc(names, func(pod string) bool { return slices.Contains(before, pod) })
		if diff := cmp.Diff(wantRules(names...), role.Rules); old || diff != "" || len(names) != 60 {
			return fmt.Errorf("%d pods, old ones left: %t, rules -want +got:\n%s", len(names), old, diff)
		}
		return nil
	})
	s.awaitFollowed(t, "later", 2)
}
