package podlogs_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/test/expect"
)

func itoa(n int) string { return strconv.Itoa(n) }

// TestAgainstAPIServer runs the task under the RBAC and the policies of
// deploy/base. The subtests share a control plane and follow each other; each has a
// namespace of its own.
func TestAgainstAPIServer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane")
	}
	w := newWorld(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *scene)
	}{
		{"Deployment", ofDeployment},
		{"StatefulSet, DaemonSet, Job, CronJob", ofEveryKind},
		{"selector of expressions", ofExpressions},
		{"scaled up, down and to zero", scaled},
		{"finished pods", finishedPods},
		{"more than a hundred pods", manyPods},
		{"rollout", rollout},
		{"pods that change nothing", steady},
		{"label removed from the template", labelRemoved},
		{"pod name used again by a StatefulSet", nameReused},
		{"workload deleted, and made again", deletedAndMade},
		{"workload deleted before its pods", deletedBeforePods},
		{"workload deleted while its pods terminate", deletedWhileTerminating},
		{"one of two deleted while its pods terminate", contestedWhileTerminating},
		{"Roles that a finalizer keeps", heldRoles},
		{"leader away", leaderAway},
		{"without ServiceAccounts and listing", minimal},
		{"edited by hand", editedByHand},
		{"deleted by hand", deletedByHand},
		{"foreign objects", foreignObjects},
		{"handed over", handedOver},
		{"two workloads of one name", rivals},
		{"pods of no workload", strays},
		{"references across namespaces", acrossNamespaces},
		{"a workload that does not exist", bogusOwner},
		{"two leaders", twoLeaders},
		{"policies removed", policiesRemoved},
		{"policy weakened", policyWeakened},
		{"workloads may not be read", mayNotRead},
		{"API server restarted during a rollout", apiServerRestarted},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, w.newScene(t)) })
	}
}

func ofDeployment(t *testing.T, s *scene) {
	s.run(t)
	mark := s.mark(t)
	web := s.addDeployment(t, "web", 3, true)
	s.addDeployment(t, "neighbour", 2, false)
	theirs := s.awaitPods(t, "neighbour", 2)
	pods := s.awaitFollowed(t, "web", 3)
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	s.awaitExisting(t, "neighbour")

	r := s.reader(t, "web")
	r.wantAccess(t, pods, theirs)
	if _, err := r.client.CoreV1().Pods(s.namespace).List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("list pods: %v", err)
	}
	for what, err := range map[string]error{
		"get of its own pod":     r.try(t, "get", "pods", pods[0]),
		"get of secrets":         r.try(t, "list", "secrets", ""),
		"logs elsewhere":         r.tryIn(t, home, "get", "pods/log", pods[0]),
		"deletion of its pod":    r.try(t, "delete", "pods", pods[0]),
		"exec into its pod":      r.try(t, "create", "pods/exec", pods[0]),
		"change of its own Role": r.try(t, "update", "roles", "podlogreader-web"),
	} {
		if err == nil {
			t.Errorf("%s is allowed", what)
		}
	}
	role, err := s.role(t, "web")
	expect.OK(t, err)
	want := metav1.ObjectMeta{
		Name: "podlogreader-web", Namespace: s.namespace, Labels: map[string]string{"chandler.dev/task": "podlogs"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: web.UID}},
	}
	volatile := cmpopts.IgnoreFields(metav1.ObjectMeta{}, "UID", "ResourceVersion", "CreationTimestamp", "ManagedFields")
	if diff := cmp.Diff(want, role.ObjectMeta, volatile); diff != "" {
		t.Errorf("Role -want +got:\n%s", diff)
	}
	got := s.requests(t, mark)
	if got["create roles"] != 1 || got["create serviceaccounts"] != 1 || got["create rolebindings"] != 1 || len(got) > 4 || got["update roles"] > 2 {
		t.Errorf("got requests %v, want one creation each, and no reads", got)
	}
}

// try asks the API server whether the reader may do something, as kubectl auth
// can-i does.
func (r *reader) try(t testing.TB, verb, resource, name string) error {
	t.Helper()
	return r.tryIn(t, r.scene.namespace, verb, resource, name)
}

func (r *reader) tryIn(t testing.TB, namespace, verb, resource, name string) error {
	t.Helper()
	attributes := &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Resource: resource, Name: name}
	if main, sub, ok := cut(resource); ok {
		attributes.Resource, attributes.Subresource = main, sub
	}
	if resource == "roles" {
		attributes.Group = rbacv1.GroupName
	}
	review, err := r.client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: attributes},
	}, metav1.CreateOptions{})
	expect.OK(t, err)
	if !review.Status.Allowed {
		return apierrors.NewForbidden(rbacv1.Resource(resource), name, nil)
	}
	return nil
}

func ofEveryKind(t *testing.T, s *scene) {
	s.run(t)
	s.addStatefulSet(t, "db", 2)
	s.addDaemonSet(t, "agent")
	s.addJob(t, "once")
	reports := s.addCronJob(t, "report")
	s.addJob(t, "report-manual", reports)
	s.addJob(t, "report-again", reports)
	for app, kind := range map[string]string{"db": "StatefulSet", "agent": "DaemonSet", "once": "Job", "report": "CronJob"} {
		n := map[string]int{"db": 2, "agent": 1, "once": 2, "report": 4}[app]
		pods := s.awaitFollowed(t, app, n)
		role, err := s.role(t, app)
		expect.OK(t, err)
		if owner := role.OwnerReferences[0]; owner.Kind != kind || owner.Name != app {
			t.Errorf("%s: got owner %s %s, want %s", app, owner.Kind, owner.Name, kind)
		}
		s.awaitExisting(t, app, "Role", "RoleBinding", "ServiceAccount")
		s.reader(t, app).wantAccess(t, pods, nil)
	}
	s.reader(t, "db").wantAccess(t, s.pods(t, "db"), s.pods(t, "report"))
	s.awaitExisting(t, "report-manual")
}

// ofExpressions has no matchLabels: what podlogreader took for every pod.
func ofExpressions(t *testing.T, s *scene) {
	s.run(t)
	s.addPod(t, "secretive", "secretive", false, nil)
	one := int32(1)
	_, err := s.admin.AppsV1().Deployments(s.namespace).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &one, Template: template("web", true),
			Selector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: "app", Operator: metav1.LabelSelectorOpIn, Values: []string{"web"}},
			}},
		},
	}, metav1.CreateOptions{})
	expect.OK(t, err)
	pods := s.awaitFollowed(t, "web", 1)
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	s.reader(t, "web").wantAccess(t, pods, []string{"secretive"})
}

func scaled(t *testing.T, s *scene) {
	r := s.run(t)
	s.addDeployment(t, "web", 5, true)
	s.addPod(t, "stranger", "stranger", false, nil)
	five := s.awaitFollowed(t, "web", 5)
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	reader := s.reader(t, "web")
	reader.wantAccess(t, five, []string{"stranger"})

	mark := s.mark(t)
	s.scale(t, "web", 6)
	six := s.awaitFollowed(t, "web", 6)
	if diff := cmp.Diff(map[string]int{"update roles": 1}, s.requests(t, mark)); diff != "" {
		t.Errorf("requests of one pod more -want +got:\n%s", diff)
	}
	reader.wantAccess(t, six, []string{"stranger"})

	s.scale(t, "web", 2)
	two := s.awaitFollowed(t, "web", 2)
	gone := slices.DeleteFunc(six, func(pod string) bool { return slices.Contains(two, pod) })
	reader.wantAccess(t, two, append(gone, "stranger"))

	s.scale(t, "web", 0)
	s.awaitRole(t, "web")
	reader.wantAccess(t, nil, append(two, "stranger"))
	r.wantMetric(t, 1, "chandler_podlogs_roles", "state=empty")
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")

	s.scale(t, "web", 1)
	reader.wantAccess(t, s.awaitFollowed(t, "web", 1), append(two, "stranger"))
	r.wantMetric(t, 1, "chandler_podlogs_roles", "state=current")
}

func finishedPods(t *testing.T, s *scene) {
	s.run(t)
	s.addJob(t, "once")
	pods := s.awaitFollowed(t, "once", 2)
	s.awaitExisting(t, "once", "Role", "RoleBinding", "ServiceAccount")
	patch(t, pods[0], `{"status":{"phase":"Succeeded"}}`, func(ctx ctx, name string, kind patchType, body []byte, o metav1.PatchOptions, _ ...string) (*corev1.Pod, error) {
		return s.admin.CoreV1().Pods(s.namespace).Patch(ctx, name, kind, body, o, "status")
	})
	reader := s.reader(t, "once")
	reader.wantAccess(t, pods, nil)
	expect.OK(t, s.admin.CoreV1().Pods(s.namespace).Delete(t.Context(), pods[1], metav1.DeleteOptions{}))
	// The Job makes another in its place; the finished one stays.
	eventually(t, func() error {
		names := s.pods(t, "once")
		role, err := s.role(t, "once")
		if err != nil || !slices.Contains(names, pods[0]) || slices.Contains(names, pods[1]) || len(names) != 2 {
			return fmt.Errorf("pods %v: %w", names, err)
		}
		if diff := cmp.Diff(wantRules(names...), role.Rules); diff != "" {
			return fmt.Errorf("rules -want +got:\n%s", diff)
		}
		return nil
	})
	reader.wantAccess(t, []string{pods[0]}, []string{pods[1]})
}

func manyPods(t *testing.T, s *scene) {
	s.run(t)
	s.addDeployment(t, "web", 120, true)
	pods := s.awaitFollowed(t, "web", 120)
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	s.reader(t, "web").wantAccess(t, pods, nil)
}

func rollout(t *testing.T, s *scene) {
	s.run(t)
	s.addDeployment(t, "web", 100, true)
	before := s.awaitFollowed(t, "web", 100)
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	mark := s.mark(t)
	patch(t, "web", `{"spec":{"template":{"metadata":{"annotations":{"revision":"2"}}}}}`, s.admin.AppsV1().Deployments(s.namespace).Patch)
	eventually(t, func() error {
		names := s.pods(t, "web")
		role, err := s.role(t, "web")
		if err != nil {
			return err
		}
		old := slices.ContainsFunc(names, func(pod string) bool { return slices.Contains(before, pod) })
		if diff := cmp.Diff(wantRules(names...), role.Rules); old || diff != "" || len(names) != 100 {
			return fmt.Errorf("%d pods, old ones left: %t", len(names), old)
		}
		return nil
	})
	// Some ten on an idle machine; a slow one makes a long rollout of it.
	if got := s.requests(t, mark); got["update roles"] > 40 || len(got) != 1 {
		t.Errorf("got requests %v for 200 changes, want few updates of the Role and nothing else", got)
	}
}

func steady(t *testing.T, s *scene) {
	s.run(t)
	s.addDeployment(t, "web", 5, true)
	pods := s.awaitFollowed(t, "web", 5)
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	mark := s.mark(t)
	for _, pod := range pods {
		patch(t, pod, `{"metadata":{"annotations":{"changed":"true"}}}`, s.admin.CoreV1().Pods(s.namespace).Patch)
	}
	// What comes later by the same watch has been handled, so those changes have.
	other := &scene{world: s.world, namespace: s.namespace + "-later"}
	s.addNamespace(t, other.namespace)
	other.addDeployment(t, "later", 1, true)
	other.awaitFollowed(t, "later", 1)
	if got := s.requests(t, mark); len(got) > 0 {
		t.Errorf("got requests %v, want none", got)
	}
}
