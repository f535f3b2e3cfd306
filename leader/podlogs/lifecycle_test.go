package podlogs_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/leader/podlogs"
	"github.com/chandler-k8s/chandler/test/expect"
)

func labelRemoved(t *testing.T, s *scene) {
	r := s.run(t)
	s.addDeployment(t, "web", 3, true)
	s.awaitFollowed(t, "web", 3)
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	reader := s.reader(t, "web")
	patch(t, "web", unlabel, s.admin.AppsV1().Deployments(s.namespace).Patch)
	s.awaitExisting(t, "web")
	eventually(t, func() error { // a token of a ServiceAccount that is gone is none
		for _, pod := range s.pods(t, "web") {
			err := reader.client.CoreV1().Pods(s.namespace).GetLogs(pod, &corev1.PodLogOptions{}).Do(t.Context()).Error()
			if !apierrors.IsUnauthorized(err) && !apierrors.IsForbidden(err) {
				return fmt.Errorf("log of %s: got %w, want it refused", pod, err)
			}
		}
		return nil
	})
	r.wantMetric(t, 0, "chandler_podlogs_roles")
	// And back: as if for the first time.
	patch(t, "web", `{"spec":{"template":{"metadata":{"labels":{"podlogreader-affiliate":"enable"}}}}}`, s.admin.AppsV1().Deployments(s.namespace).Patch)
	pods := s.awaitFollowed(t, "web", 3)
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	s.reader(t, "web").wantAccess(t, pods, nil)
}

// nameReused takes the label from a StatefulSet whose Role somebody else binds: its
// pod comes back under the same name, and must not stay readable.
func nameReused(t *testing.T, s *scene) {
	r := s.run(t, func(o *podlogs.Options) { o.CreateServiceAccounts = false })
	s.bind(t, "db")
	s.addStatefulSet(t, "db", 1)
	s.awaitFollowed(t, "db", 1)
	reader := s.boundReader(t, "db")
	reader.wantAccess(t, []string{"db-0"}, nil)

	// Same name, another pod, still labelled.
	expect.OK(t, s.admin.CoreV1().Pods(s.namespace).Delete(t.Context(), "db-0", metav1.DeleteOptions{}))
	s.awaitFollowed(t, "db", 1)
	reader.wantAccess(t, []string{"db-0"}, nil)

	patch(t, "db", unlabel, s.admin.AppsV1().StatefulSets(s.namespace).Patch)
	eventually(t, func() error {
		pod, err := s.admin.CoreV1().Pods(s.namespace).Get(t.Context(), "db-0", metav1.GetOptions{})
		if err == nil && pod.Labels[label] != "" {
			err = errStill
		}
		return err
	})
	reader.wantAccess(t, nil, []string{"db-0"})
	s.awaitExisting(t, "db")
	r.wantMetric(t, 0, "chandler_podlogs_roles")
}

func deletedAndMade(t *testing.T, s *scene) {
	r := s.run(t)
	first := s.addDeployment(t, "web", 2, true)
	s.awaitFollowed(t, "web", 2)
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	expect.OK(t, s.admin.AppsV1().Deployments(s.namespace).Delete(t.Context(), "web", metav1.DeleteOptions{}))
	second := s.addDeployment(t, "web", 2, true)
	eventually(t, func() error {
		role, err := s.role(t, "web")
		if err == nil && role.OwnerReferences[0].UID != second.UID {
			err = fmt.Errorf("the Role belongs to %s, want %s, not %s", role.OwnerReferences[0].UID, second.UID, first.UID)
		}
		return err
	})
	eventually(t, func() error {
		binding, err1 := s.admin.RbacV1().RoleBindings(s.namespace).Get(t.Context(), "podlogreader-web", metav1.GetOptions{})
		account, err2 := s.admin.CoreV1().ServiceAccounts(s.namespace).Get(t.Context(), "podlogreader-web", metav1.GetOptions{})
		if err1 != nil || err2 != nil || binding.OwnerReferences[0].UID != second.UID || account.OwnerReferences[0].UID != second.UID {
			return fmt.Errorf("RoleBinding and ServiceAccount of the second Deployment: %w, %w", err1, err2)
		}
		return nil
	})
	s.reader(t, "web").wantAccess(t, s.awaitFollowed(t, "web", 2), nil)
	expect.OK(t, s.admin.AppsV1().Deployments(s.namespace).Delete(t.Context(), "web", metav1.DeleteOptions{}))
	s.awaitExisting(t, "web")
	r.wantMetric(t, 0, "chandler_podlogs_roles")
}

// deletedBeforePods has a Deployment that waits, while it is deleted, for a pod that
// takes its time: what the garbage collector takes away must not be made again.
func deletedBeforePods(t *testing.T, s *scene) {
	s.run(t)
	mark := s.mark(t)
	s.addDeployment(t, "web", 1, true)
	pod := s.awaitFollowed(t, "web", 1)[0]
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	pods := s.admin.CoreV1().Pods(s.namespace)
	patch(t, pod, `{"metadata":{"finalizers":["example.com/stay"]}}`, pods.Patch)
	foreground := metav1.DeletePropagationForeground
	expect.OK(t, s.admin.AppsV1().Deployments(s.namespace).Delete(t.Context(), "web", metav1.DeleteOptions{PropagationPolicy: &foreground}))
	s.awaitExisting(t, "web")
	eventually(t, func() error { // it was asked about
		if s.requests(t, mark)["get deployments"] == 0 {
			return errStill
		}
		return nil
	})
	patch(t, pod, `{"metadata":{"finalizers":null}}`, pods.Patch)
	s.awaitPods(t, "web", 0)
	s.awaitExisting(t, "web")
	if got := s.requests(t, mark); got["create roles"] != 1 || got["create rolebindings"] != 1 || got["create serviceaccounts"] != 1 {
		t.Errorf("got requests %v, want each object made once", got)
	}
}

func leaderAway(t *testing.T, s *scene) {
	r := s.run(t)
	for _, name := range []string{"gone", "unlabelled", "asleep", "grown", "same"} {
		s.addDeployment(t, name, 2, true)
	}
	s.addStatefulSet(t, "db", 1)
	for _, name := range []string{"gone", "unlabelled", "asleep", "grown", "same"} {
		s.awaitFollowed(t, name, 2)
		s.awaitExisting(t, name, "Role", "RoleBinding", "ServiceAccount")
	}
	s.awaitFollowed(t, "db", 1)
	s.awaitExisting(t, "db", "Role", "RoleBinding", "ServiceAccount")
	same, err := s.role(t, "same")
	expect.OK(t, err)
	r.Stop()

	expect.OK(t, s.admin.AppsV1().Deployments(s.namespace).Delete(t.Context(), "gone", metav1.DeleteOptions{}))
	patch(t, "unlabelled", unlabel, s.admin.AppsV1().Deployments(s.namespace).Patch)
	patch(t, "db", unlabel, s.admin.AppsV1().StatefulSets(s.namespace).Patch)
	s.scale(t, "asleep", 0)
	s.scale(t, "grown", 4)
	s.awaitPods(t, "asleep", 0)
	s.awaitPods(t, "grown", 4)
	for _, name := range []string{"unlabelled", "db"} {
		eventually(t, func() error {
			list, err := s.admin.CoreV1().Pods(s.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + name + "," + label})
			if err == nil && len(list.Items) > 0 {
				err = errStill
			}
			return err
		})
	}
	mark := s.mark(t)
	s.run(t)
	s.awaitExisting(t, "gone")
	s.awaitExisting(t, "unlabelled")
	s.awaitExisting(t, "db")
	s.awaitRole(t, "asleep")
	s.awaitExisting(t, "asleep", "Role", "RoleBinding", "ServiceAccount")
	s.awaitFollowed(t, "grown", 4)
	after, err := s.role(t, "same")
	expect.OK(t, err)
	if after.ResourceVersion != same.ResourceVersion {
		t.Error("a Role that was right has been written")
	}
	if got := s.requests(t, mark); got["update roles"] != 2 || got["create roles"] != 0 {
		t.Errorf("got requests %v, want two updates of Roles and no creation", got)
	}
}

func minimal(t *testing.T, s *scene) {
	s.run(t, func(o *podlogs.Options) { o.CreateServiceAccounts, o.ListPods = false, false })
	s.addDeployment(t, "web", 1, true)
	pods := s.awaitPods(t, "web", 1)
	eventually(t, func() error {
		role, err := s.role(t, "web")
		if err != nil {
			return err
		}
		if diff := cmp.Diff(wantRules(pods...)[1:], role.Rules); diff != "" {
			return fmt.Errorf("rules -want +got:\n%s", diff)
		}
		return nil
	})
	s.scale(t, "web", 0)
	eventually(t, func() error {
		role, err := s.role(t, "web")
		if err == nil && len(role.Rules) > 0 {
			err = errStill
		}
		return err
	})
	s.awaitExisting(t, "web", "Role")
}
