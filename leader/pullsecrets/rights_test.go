package pullsecrets_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/leader/pullsecrets"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fakeaws"
)

// updateTaken: the metric tells of what is in the Secrets, so that an alert on it
// fires although a newer token is there.
func updateTaken(t *testing.T, s *scene) {
	s.setKeys(t, host, s.keys)
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	s.aws.SetTokenLife(20 * time.Second)
	r := s.run(t)
	r.wantMetric(t, 1, "chandler_pullsecrets_secrets", "state=current")
	first, _ := expect.Metric(t, r.Registry, "chandler_pullsecrets_expiry_timestamp_seconds", "registry="+host)
	s.takeVerb(t, "update")
	s.aws.SetTokenLife(time.Hour)
	eventually(t, func() error {
		if got := len(s.aws.Issued()); got < 2 {
			return fmt.Errorf("got %d tokens, want a renewal", got)
		}
		if !strings.Contains(r.Log.String(), "write pull secret "+s.real("team-a")) {
			return errors.New("the refused write is not logged")
		}
		return nil
	})
	r.wantMetric(t, 0, "chandler_pullsecrets_secrets", "state=current")
	if got, _ := expect.Metric(t, r.Registry, "chandler_pullsecrets_expiry_timestamp_seconds", "registry="+host); got != first {
		t.Errorf("got expiry %v, want %v: the Secret still holds the first token", got, first)
	}
	r.wantMetric(t, 1, "chandler_pullsecrets_secrets", "state=expired")
	// Nor does a takeover lose it.
	r.Stop()
	next := s.run(t)
	next.wantMetric(t, first, "chandler_pullsecrets_expiry_timestamp_seconds", "registry="+host)
	next.wantMetric(t, 1, "chandler_pullsecrets_secrets", "state=expired")
	s.apply(t, "base/pullsecrets.yaml")
	next.wantMetric(t, 1, "chandler_pullsecrets_secrets", "state=current")
	if got, _ := expect.Metric(t, next.Registry, "chandler_pullsecrets_expiry_timestamp_seconds", "registry="+host); got <= first {
		t.Errorf("got expiry %v, want one after %v", got, first)
	}
}

// takeVerb takes a verb on Secrets away from the leader, until the test ends.
func (s *scene) takeVerb(t *testing.T, verb string) {
	t.Helper()
	roles := s.admin.RbacV1().ClusterRoles()
	role, err := roles.Get(t.Context(), "chandler-leader-pullsecrets", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, v := range role.Rules[0].Verbs {
		if v != verb {
			left = append(left, v)
		}
	}
	role.Rules[0].Verbs = left
	if _, err := roles.Update(t.Context(), role, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.apply(t, "base/pullsecrets.yaml") })
}

// keysUnseen: another host namespace, without the Role in it. The process's own
// identity would do, and must not stand in.
func keysUnseen(t *testing.T, s *scene) {
	const listed = "999999999999.dkr.ecr.eu-west-1.amazonaws.com"
	own := s.aws.NewKeys("own")
	t.Setenv("AWS_ACCESS_KEY_ID", own.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", own.SecretAccessKey)
	elsewhere := s.real("team-keys")
	s.addNamespace(t, elsewhere, nil)
	s.setKeysIn(t, elsewhere, host, s.keys)
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	s.addNamespace(t, "team-listed", map[string]string{listed: "true"})
	s.addNamespace(t, "team-left", map[string]string{host: "false"})
	r := s.run(t, func(o *pullsecrets.Options) {
		o.HostNamespace = elsewhere
		o.OwnIdentityFor = []string{listed[:12]}
	})
	s.await(t, "team-listed", listed, s.newest)
	s.event(t, elsewhere, "RegistryTokenFailed", "may not list and watch secrets in namespace "+elsewhere)
	r.wantMetric(t, 1, "chandler_pullsecrets_failing_registries")
	r.wantMetric(t, 1, "chandler_pullsecrets_secrets", "state=waiting")
	if got := s.aws.Count(fakeaws.Call{Caller: own.AccessKeyID}); got != 1 {
		t.Errorf("got %d calls as the process, want the one for the listed registry", got)
	}
	rules := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"list", "watch"}}}
	_, err := s.admin.RbacV1().Roles(elsewhere).Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "keys"}, Rules: rules}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.admin.RbacV1().RoleBindings(elsewhere).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "keys"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "keys"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: home, Name: account}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.await(t, "team-a", host, s.newest)
	if got := s.aws.Count(fakeaws.Call{Caller: s.keys.AccessKeyID}); got != 1 {
		t.Errorf("got %d calls with the keys, want 1", got)
	}
	r.wantMetric(t, 0, "chandler_pullsecrets_failing_registries")
}

// keysReplaced: who replaces a Secret often deletes it first. The process's own
// identity must not slip in between.
func keysReplaced(t *testing.T, s *scene) {
	own := s.aws.NewKeys("own")
	t.Setenv("AWS_ACCESS_KEY_ID", own.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", own.SecretAccessKey)
	s.setKeys(t, host, s.keys)
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	r := s.run(t)
	s.await(t, "team-a", host, s.newest)
	if err := s.secrets(keysIn).Delete(t.Context(), prefix+"-"+host, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if !strings.Contains(r.Log.String(), "its identity is kept for a while") {
			return errors.New("the deletion is not noticed")
		}
		return nil
	})
	fresh := s.aws.NewKeys("fresh")
	s.setKeys(t, host, fresh)
	eventually(t, func() error {
		if got := s.aws.Count(fakeaws.Call{Caller: fresh.AccessKeyID}); got != 1 {
			return fmt.Errorf("got %d calls with the new keys, want 1", got)
		}
		return nil
	})
	if got := s.aws.Count(fakeaws.Call{Caller: own.AccessKeyID}); got != 0 {
		t.Errorf("got %d calls as the process, want none", got)
	}
}

func ownIdentityListed(t *testing.T, s *scene) {
	t.Setenv("AWS_ACCESS_KEY_ID", s.keys.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s.keys.SecretAccessKey)
	const other = "999999999999.dkr.ecr.eu-west-1.amazonaws.com"
	s.addNamespace(t, "team-a", map[string]string{host: "true", other: "true"})
	r := s.run(t, func(o *pullsecrets.Options) { o.OwnIdentityFor = []string{host} })
	s.await(t, "team-a", host, s.newest)
	s.event(t, keysIn, "RegistryTokenFailed", "defaultChainFor does not list the registry")
	r.wantMetric(t, 1, "chandler_pullsecrets_failing_registries")
	if got := len(s.aws.Issued()); got != 1 {
		t.Errorf("got %d tokens, want 1", got)
	}
	s.setKeys(t, other, s.keys)
	s.await(t, "team-a", other, s.newest)
}
