package podlogs_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
)

const stay, leave = `{"metadata":{"finalizers":["example.com/stay"]}}`, `{"metadata":{"finalizers":null}}`

// deletedWhileTerminating has a StatefulSet deleted whose pod takes its time, after
// it was read once because it had no pods: that answer must not serve again.
func deletedWhileTerminating(t *testing.T, s *scene) {
	r := s.run(t)
	s.addStatefulSet(t, "db", 1)
	s.awaitFollowed(t, "db", 1)
	s.awaitExisting(t, "db", "Role", "RoleBinding", "ServiceAccount")
	s.scaleStatefulSet(t, "db", 0)
	s.awaitRole(t, "db")
	r.wantMetric(t, 1, "chandler_podlogs_roles", "state=empty")
	s.scaleStatefulSet(t, "db", 1)
	s.awaitFollowed(t, "db", 1)
	mark := s.deleteStatefulSet(t, "db", "db-0")
	s.awaitExisting(t, "db")
	s.awaitRead(t, mark, "statefulsets")
	patch(t, "db-0", leave, s.admin.CoreV1().Pods(s.namespace).Patch)
	s.awaitPods(t, "db", 0)
	s.awaitExisting(t, "db")
	if got := s.requests(t, mark); got["create roles"]+got["create rolebindings"]+got["create serviceaccounts"] > 0 {
		t.Errorf("got requests %v, want nothing made for a workload that is gone", got)
	}
}

// contestedWhileTerminating is the same with a name that two claim: the one that
// lives gets the Role, once.
func contestedWhileTerminating(t *testing.T, s *scene) {
	r := s.run(t)
	s.addStatefulSet(t, "web", 1)
	s.awaitFollowed(t, "web", 1)
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	web := s.addDeployment(t, "web", 1, true)
	s.event(t, "PodLogRoleNameTaken", "web", "belongs to StatefulSet web")
	r.wantMetric(t, 1, "chandler_podlogs_roles", "state=contested")
	mark := s.deleteStatefulSet(t, "web", "web-0")
	eventually(t, func() error {
		role, err := s.role(t, "web")
		if err == nil && role.OwnerReferences[0].UID != web.UID {
			err = errStill
		}
		return err
	})
	s.awaitRead(t, mark, "statefulsets")
	s.awaitExisting(t, "web", "Role", "RoleBinding", "ServiceAccount")
	patch(t, "web-0", leave, s.admin.CoreV1().Pods(s.namespace).Patch)
	s.awaitFollowed(t, "web", 1)
	if got := s.requests(t, mark); got["create roles"] > 1 || got["create rolebindings"] > 1 || got["create serviceaccounts"] > 1 {
		t.Errorf("got requests %v, want each object made once, for the Deployment", got)
	}
}

// deleteStatefulSet deletes one whose pod then stays until its finalizer is taken
// away, and returns the mark before.
func (s *scene) deleteStatefulSet(t *testing.T, name, pod string) cluster.Mark {
	t.Helper()
	patch(t, pod, stay, s.admin.CoreV1().Pods(s.namespace).Patch)
	mark := s.mark(t)
	expect.OK(t, s.admin.AppsV1().StatefulSets(s.namespace).Delete(t.Context(), name, metav1.DeleteOptions{}))
	return mark
}

// awaitRead waits until the leader has read workloads of a kind.
func (s *scene) awaitRead(t *testing.T, since cluster.Mark, resource string) {
	t.Helper()
	eventually(t, func() error {
		if s.requests(t, since)["get "+resource] == 0 {
			return errStill
		}
		return nil
	})
}

func (s *scene) scaleStatefulSet(t *testing.T, name string, replicas int) {
	t.Helper()
	patch(t, name, `{"spec":{"replicas":`+itoa(replicas)+`}}`, s.admin.AppsV1().StatefulSets(s.namespace).Patch)
}
