package podlogs_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
			if !strings.Contains(r.Log.String(), "sync of "+s.namespace+"/"+app+" admission policy chandler-pod-logs-roles is not in force: apply deploy/base/podlogs.yaml") {
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
