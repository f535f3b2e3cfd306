package pullsecrets_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"github.com/chandler-k8s/chandler/leader/pullsecrets"
)

func (s *scene) wantPullSecrets(t *testing.T, namespace, name string, want ...string) {
	t.Helper()
	eventually(t, func() error {
		found, err := s.admin.CoreV1().ServiceAccounts(s.real(namespace)).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		var got []string
		for _, entry := range found.ImagePullSecrets {
			got = append(got, entry.Name)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("ServiceAccount %s/%s -want +got:\n%s", namespace, name, diff)
		}
		return nil
	})
}

func (s *scene) setPullSecrets(t *testing.T, namespace, name string, entries ...string) {
	t.Helper()
	list := []corev1.LocalObjectReference{}
	for _, entry := range entries {
		list = append(list, corev1.LocalObjectReference{Name: entry})
	}
	patch, err := json.Marshal(map[string]any{"imagePullSecrets": list})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := s.admin.CoreV1().ServiceAccounts(s.real(namespace)).Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{})
		return err
	})
}

func serviceAccounts(t *testing.T, s *scene) {
	s.apply(t, "optional/pullsecrets-serviceaccounts.yaml")
	s.setKeys(t, host, s.keys)
	for _, name := range []string{"team-empty", "team-others", "team-busy"} {
		s.addNamespace(t, name, map[string]string{host: "true"})
	}
	s.setPullSecrets(t, "team-others", "default", "a", "b")
	r := s.run(t, func(o *pullsecrets.Options) { o.ServiceAccounts = []string{"default"} })
	s.wantPullSecrets(t, "team-empty", "default", host)
	s.wantPullSecrets(t, "team-others", "default", "a", "b", host)

	// Somebody else replaces the list: the informer brings the news.
	s.setPullSecrets(t, "team-others", "default", "c")
	s.wantPullSecrets(t, "team-others", "default", "c", host)

	s.concurrentWriters(t, "team-busy")

	s.label(t, "team-others", host, "")
	s.awaitGone(t, "team-others", host)
	s.wantPullSecrets(t, "team-others", "default", "c")
	s.label(t, "team-empty", host, "")
	s.wantPullSecrets(t, "team-empty", "default")

	// Made later; kube-controller-manager makes the account some time after it.
	s.addNamespace(t, "team-later", map[string]string{host: "true"})
	s.wantPullSecrets(t, "team-later", "default", host)

	// Unlabelled while nobody leads.
	r.Stop()
	s.label(t, "team-later", host, "")
	s.run(t, func(o *pullsecrets.Options) { o.ServiceAccounts = []string{"default"} })
	s.awaitGone(t, "team-later", host)
	s.wantPullSecrets(t, "team-later", "default")
}

// concurrentWriters lets ten others add entries of their own, each rereading the
// account when it is beaten, while our entry comes and goes. Nobody's may be lost.
func (s *scene) concurrentWriters(t *testing.T, namespace string) {
	t.Helper()
	accounts := s.admin.CoreV1().ServiceAccounts(s.real(namespace))
	patiently := wait.Backoff{Steps: 100, Duration: 10 * time.Millisecond, Factor: 1.05, Jitter: 1}
	var writers sync.WaitGroup
	want := map[string]bool{host: true}
	for i := range 10 {
		name := fmt.Sprintf("writer-%d", i)
		want[name] = true
		writers.Go(func() {
			err := retry.OnError(patiently, func(error) bool { return true }, func() error {
				account, err := accounts.Get(t.Context(), "default", metav1.GetOptions{})
				if err != nil {
					return err
				}
				account.ImagePullSecrets = append(account.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
				_, err = accounts.Update(t.Context(), account, metav1.UpdateOptions{})
				return err
			})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		if i%3 == 0 {
			s.label(t, namespace, host, "false")
			s.label(t, namespace, host, "true")
		}
	}
	writers.Wait()
	eventually(t, func() error {
		account, err := accounts.Get(t.Context(), "default", metav1.GetOptions{})
		if err != nil {
			return err
		}
		got := map[string]bool{}
		for _, entry := range account.ImagePullSecrets {
			if got[entry.Name] {
				return fmt.Errorf("entry %s is there twice", entry.Name)
			}
			got[entry.Name] = true
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("entries -want +got:\n%s", diff)
		}
		return nil
	})
}

// accountsUnseen: without the optional manifest everything else goes on.
func accountsUnseen(t *testing.T, s *scene) {
	s.setKeys(t, host, s.keys)
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	r := s.run(t, func(o *pullsecrets.Options) { o.ServiceAccounts = []string{"default"} })
	s.await(t, "team-a", host, s.newest)
	r.wantMetric(t, 1, "chandler_pullsecrets_secrets", "state=current")
	s.wantPullSecrets(t, "team-a", "default")
	s.apply(t, "optional/pullsecrets-serviceaccounts.yaml")
	s.wantPullSecrets(t, "team-a", "default", host)
}

// accountsForeign: an entry that somebody else made stays, whether the Secret
// beside it is theirs or ours.
func accountsForeign(t *testing.T, s *scene) {
	s.setKeys(t, host, s.keys)
	for _, name := range []string{"team-foreign", "team-ours"} {
		s.addNamespace(t, name, nil)
		s.setPullSecrets(t, name, "default", host)
	}
	s.setSecret(t, "team-foreign", host, corev1.SecretTypeOpaque, map[string]string{"password": "hunter2"})
	r := s.run(t, func(o *pullsecrets.Options) { o.ServiceAccounts = []string{"default"} })
	for _, name := range []string{"team-foreign", "team-ours"} {
		s.label(t, name, host, "true")
	}
	r.wantMetric(t, 1, "chandler_pullsecrets_secrets", "state=foreign")
	r.wantMetric(t, 1, "chandler_pullsecrets_secrets", "state=current")
	for _, name := range []string{"team-foreign", "team-ours"} {
		s.label(t, name, host, "")
	}
	s.awaitGone(t, "team-ours", host)
	eventually(t, func() error {
		if left := s.ledger(t, host); left != nil {
			return fmt.Errorf("got a ledger with %v, want none", left)
		}
		return nil
	})
	for _, name := range []string{"team-foreign", "team-ours"} {
		s.wantPullSecrets(t, name, "default", host)
	}
}

// accountsFormer: a name that is taken out of the configuration is cleaned up by
// the next term, as far as the permission goes.
func accountsFormer(t *testing.T, s *scene) {
	s.allowAccount(t, "builder")
	s.setKeys(t, host, s.keys)
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	_, err := s.admin.CoreV1().ServiceAccounts(s.real("team-a")).
		Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "builder"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := s.run(t, func(o *pullsecrets.Options) { o.ServiceAccounts = []string{"default", "builder"} })
	s.wantPullSecrets(t, "team-a", "default", host)
	s.wantPullSecrets(t, "team-a", "builder", host)
	r.Stop()
	s.apply(t, "optional/pullsecrets-serviceaccounts.yaml") // as shipped: default alone
	s.awaitAccounts(t, "builder", false)
	r = s.run(t, func(o *pullsecrets.Options) { o.ServiceAccounts = []string{"default"} })
	s.event(t, home, "ServiceAccountNotChanged", "builder")
	r.wantMetric(t, 1, "chandler_pullsecrets_secrets", "state=current")
	s.wantPullSecrets(t, "team-a", "builder", host)
	r.Stop()
	s.allowAccount(t, "builder")
	s.run(t, func(o *pullsecrets.Options) { o.ServiceAccounts = []string{"default"} })
	s.wantPullSecrets(t, "team-a", "builder")
	s.wantPullSecrets(t, "team-a", "default", host)
}

// allowAccount adds a name to the optional manifest's.
func (s *scene) allowAccount(t *testing.T, name string) {
	t.Helper()
	roles := s.admin.RbacV1().ClusterRoles()
	role, err := roles.Get(t.Context(), "chandler-leader-pullsecrets-serviceaccounts", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	role.Rules[0].ResourceNames = append(role.Rules[0].ResourceNames, name)
	if _, err := roles.Update(t.Context(), role, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.awaitAccounts(t, name, true)
}

// awaitAccounts waits until the API server knows whether the leader may see accounts
// of a name.
func (s *scene) awaitAccounts(t *testing.T, name string, may bool) {
	t.Helper()
	accounts := kubernetes.NewForConfigOrDie(s.leader(t)).CoreV1().ServiceAccounts(home)
	eventually(t, func() error {
		_, err := accounts.List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		if (err == nil) != may {
			return fmt.Errorf("list ServiceAccounts %s: got %w, want it allowed: %t", name, err, may)
		}
		return nil
	})
}
