package podlogs_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/chandler-k8s/chandler/test/expect"
)

// removePolicies takes the admission policies out of force until the test ends, or
// restore is called.
func (s *scene) removePolicies(t *testing.T) (restore func()) {
	t.Helper()
	t.Cleanup(func() { s.apply(t, "podlogs") })
	bindings := s.admin.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	for _, resource := range []string{"roles", "rolebindings", "serviceaccounts"} {
		expect.OK(t, bindings.Delete(t.Context(), "chandler-pod-logs-"+resource, metav1.DeleteOptions{}))
	}
	s.awaitPolicies(t, false)
	return func() {
		s.apply(t, "podlogs")
		s.awaitPolicies(t, true)
	}
}

func policiesRemoved(t *testing.T, s *scene) {
	r := s.run(t)
	s.addDeployment(t, "web", 2, true)
	s.addDeployment(t, "old", 1, true)
	s.awaitFollowed(t, "web", 2)
	s.awaitFollowed(t, "old", 1)
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	s.awaitExisting(t, "old", "Role", "RoleBinding", "ServiceAccount")
	r.Stop()
	restore := s.removePolicies(t)
	r = s.run(t)
	// What takes away goes on.
	patch(t, "old", unlabel, s.admin.AppsV1().Deployments(s.namespace).Patch)
	s.awaitExisting(t, "old")
	s.scale(t, "web", 1)
	one := s.awaitFollowed(t, "web", 1)
	// What grants does not.
	s.addDeployment(t, "new", 1, true)
	s.scale(t, "web", 3)
	eventually(t, func() error {
		for _, app := range []string{"web", "new"} {
			if !strings.Contains(r.Log.String(), "/"+app+`","err":"admission policy chandler-pod-logs-roles is not in force: apply deploy/base/podlogs.yaml`) {
				return errors.New("the missing policy is not named for " + app)
			}
		}
		return nil
	})
	s.awaitExisting(t, "new")
	s.awaitRole(t, "web", one...)
	// Both at once.
	patch(t, "web", `{"spec":{"template":{"metadata":{"annotations":{"revision":"2"}}}}}`, s.admin.AppsV1().Deployments(s.namespace).Patch)
	s.awaitRole(t, "web")
	restore()
	for app, n := range map[string]int{"web": 3, "new": 1} {
		s.awaitFollowed(t, app, n)
		s.awaitExisting(t, app, "Role", "RoleBinding", "ServiceAccount")
	}
}

// policyWeakened has the policy for Roles as it should be but for what a Role may grant.
func policyWeakened(t *testing.T, s *scene) {
	t.Cleanup(func() { s.apply(t, "podlogs") })
	policies := s.admin.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	policy, err := policies.Get(t.Context(), "chandler-pod-logs-roles", metav1.GetOptions{})
	expect.OK(t, err)
	policy.Spec.Validations = policy.Spec.Validations[:len(policy.Spec.Validations)-1]
	_, err = policies.Update(t.Context(), policy, metav1.UpdateOptions{})
	expect.OK(t, err)
	client := kubernetesClient(s.leader(t))
	eventually(t, func() error {
		open := &rbacv1.Role{ObjectMeta: s.meta("web"), Rules: wantRules("a")}
		open.Rules[1].ResourceNames = nil
		_, err := client.RbacV1().Roles(s.namespace).Create(t.Context(), open, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	})
	r := s.run(t)
	s.addDeployment(t, "web", 1, true)
	eventually(t, func() error {
		if !strings.Contains(r.Log.String(), "admission policy chandler-pod-logs-roles is not in force: apply deploy/base/podlogs.yaml") {
			return errors.New("the weak policy is not named")
		}
		return nil
	})
	s.awaitExisting(t, "web")
	s.apply(t, "podlogs")
	s.awaitFollowed(t, "web", 1)
}

// heldRoles have somebody's finalizer, which keeps them when they are deleted: they must
// not grant on. Others bind them, so it is the Role that counts.
func heldRoles(t *testing.T, s *scene) {
	s.run(t)
	roles := s.admin.RbacV1().Roles(s.namespace)
	readers, pods := map[string]*reader{}, map[string][]string{}
	for _, app := range []string{"unlabelled", "deleted"} {
		s.addDeployment(t, app, 1, true)
		s.bind(t, app)
	}
	s.addStatefulSet(t, "terminating", 1)
	s.bind(t, "terminating")
	for _, app := range []string{"unlabelled", "deleted", "terminating"} {
		pods[app] = s.awaitFollowed(t, app, 1)
		patch(t, "podlogreader-"+app, stay, roles.Patch)
		readers[app] = s.boundReader(t, app)
		readers[app].wantAccess(t, pods[app], nil)
	}
	s.addForeign(t, "orphan")
	patch(t, "podlogreader-orphan", stay, roles.Patch)
	t.Cleanup(func() {
		for _, app := range []string{"unlabelled", "deleted", "terminating", "orphan"} {
			_, err := roles.Patch(context.Background(), "podlogreader-"+app, types.MergePatchType, []byte(leave), metav1.PatchOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				t.Error(err)
			}
		}
	})

	patch(t, "unlabelled", unlabel, s.admin.AppsV1().Deployments(s.namespace).Patch)
	expect.OK(t, s.admin.AppsV1().Deployments(s.namespace).Delete(t.Context(), "deleted", metav1.DeleteOptions{}))
	s.deleteStatefulSet(t, "terminating", "terminating-0")
	patch(t, "podlogreader-orphan", `{"metadata":{"labels":{"chandler.dev/task":"podlogs"}}}`, roles.Patch)
	for _, app := range []string{"unlabelled", "deleted", "terminating", "orphan"} {
		eventually(t, func() error {
			role, err := s.role(t, app)
			if err == nil && (len(role.Rules) > 0 || role.DeletionTimestamp == nil) {
				err = fmt.Errorf("Role of %s: deleted at %v, got rules %v, want none", app, role.DeletionTimestamp, role.Rules)
			}
			return err
		})
		if reader := readers[app]; reader != nil {
			reader.wantAccess(t, nil, pods[app])
		}
	}
	patch(t, "terminating-0", leave, s.admin.CoreV1().Pods(s.namespace).Patch)
}

// bind has somebody bind the Role of an app to an account of his own.
func (s *scene) bind(t *testing.T, app string) {
	t.Helper()
	_, err := s.admin.CoreV1().ServiceAccounts(s.namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "reader-of-" + app}}, metav1.CreateOptions{})
	expect.OK(t, err)
	_, err = s.admin.RbacV1().RoleBindings(s.namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "reader-of-" + app},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "podlogreader-" + app},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "reader-of-" + app, Namespace: s.namespace}},
	}, metav1.CreateOptions{})
	expect.OK(t, err)
}

func (s *scene) boundReader(t *testing.T, app string) *reader {
	t.Helper()
	return &reader{s, kubernetesClient(s.token(t, s.namespace, "reader-of-"+app))}
}

// mayNotRead shows that a Role is emptied even if its workload cannot be asked for.
func mayNotRead(t *testing.T, s *scene) {
	r := s.run(t)
	s.addDeployment(t, "web", 1, true)
	pods := s.awaitFollowed(t, "web", 1)
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	reader := s.reader(t, "web")
	reader.wantAccess(t, pods, nil)
	clusterRoles := s.admin.RbacV1().ClusterRoles()
	role, err := clusterRoles.Get(t.Context(), "chandler-leader-podlogs", metav1.GetOptions{})
	expect.OK(t, err)
	role.Rules = slices.DeleteFunc(role.Rules, func(rule rbacv1.PolicyRule) bool { return slices.Contains(rule.Resources, "deployments") })
	_, err = clusterRoles.Update(t.Context(), role, metav1.UpdateOptions{})
	expect.OK(t, err)
	t.Cleanup(func() { s.apply(t, "podlogs") })
	leaders := kubernetesClient(s.leader(t))
	eventually(t, func() error {
		_, err := leaders.AppsV1().Deployments(s.namespace).Get(t.Context(), "web", metav1.GetOptions{})
		if !apierrors.IsForbidden(err) {
			return fmt.Errorf("got %w, want it forbidden", err)
		}
		return nil
	})
	s.scale(t, "web", 0)
	s.awaitRole(t, "web")
	reader.wantAccess(t, nil, pods)
	eventually(t, func() error {
		if !strings.Contains(r.Log.String(), "read Deployment "+s.namespace+"/web") {
			return errors.New("the failure is not logged")
		}
		return nil
	})
}
