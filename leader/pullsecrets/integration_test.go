package pullsecrets_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/leader/pullsecrets"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fakeaws"
)

// TestAgainstAPIServer runs the task under the RBAC and the policies of
// deploy/base, against AWS over HTTP. The subtests share a control plane and
// follow each other.
func TestAgainstAPIServer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane")
	}
	w := newWorld(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *scene)
	}{
		{"first convergence", firstConvergence},
		{"a namespace labelled later", labelledLater},
		{"renewal", renewal},
		{"unlabelled", unlabelled},
		{"unlabelled while nobody leads", unlabelledMeanwhile},
		{"namespace deleted and made again", namespaceAgain},
		{"registries of one identity", sharedIdentity},
		{"role with external ID", assumedRole},
		{"the process's own identity", defaultChain},
		{"ECR Public", public},
		{"resync by annotation", resync},
		{"ledger deleted", ledgerDeleted},
		{"two leaders", twoLeaders},
		{"labels that mean nothing", strangeLabels},
		{"one registry of five with wrong keys", wrongKeys},
		{"throttled", throttled},
		{"expired keys", expiredKeys},
		{"ECR down for longer than a token lives", longOutage},
		{"AWS that does not answer", hungCall},
		{"Secret without a key", missingKey},
		{"keys rotated", rotatedKeys},
		{"foreign Secrets", foreignSecrets},
		{"tampered Secret", tampered},
		{"adopt", adopt},
		{"policy removed", policyRemoved},
		{"permissions taken away", permissionsTaken},
		{"update of Secrets not permitted", updateTaken},
		{"host namespace that cannot be read", keysUnseen},
		{"key Secret replaced", keysReplaced},
		{"registries that may use the process's own identity", ownIdentityListed},
		{"ServiceAccounts without the permission", accountsUnseen},
		{"ServiceAccounts", serviceAccounts},
		{"ServiceAccount beside a foreign Secret", accountsForeign},
		{"ServiceAccounts no longer configured", accountsFormer},
		{"API server restarted", apiServerRestarted},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, w.newScene(t)) })
	}
}

// passwordFor reads a pull secret as kubelet does.
func passwordFor(secret *corev1.Secret, registry string) (string, error) {
	if secret.Type != corev1.SecretTypeDockerConfigJson {
		return "", fmt.Errorf("type %s", secret.Type)
	}
	var parsed struct {
		Auths map[string]struct{ Auth string }
	}
	if err := json.Unmarshal(secret.Data[corev1.DockerConfigJsonKey], &parsed); err != nil {
		return "", err
	}
	decoded, err := base64.StdEncoding.DecodeString(parsed.Auths[registry].Auth)
	if err != nil {
		return "", err
	}
	user, password, _ := strings.Cut(string(decoded), ":")
	if user != "AWS" || password == "" {
		return "", errors.New("no credentials for user AWS")
	}
	return password, nil
}

func firstConvergence(t *testing.T, s *scene) {
	const namespaces = 60
	s.setKeys(t, host, s.keys)
	for i := range namespaces {
		s.addNamespace(t, fmt.Sprintf("team-first-%d", i), map[string]string{host: "true"})
	}
	mark := s.mark(t)
	r := s.run(t)
	r.wantMetric(t, namespaces, "chandler_pullsecrets_secrets", "state=current")
	want := map[string]int{
		"watch namespaces": 1, "watch secrets": 1, // informers, of the host namespace alone for Secrets
		"list configmaps": 1, "create configmaps": 1, // the ledger
		"create secrets": namespaces + 2, // two dry runs prove the policy
	}
	if diff := cmp.Diff(want, s.requests(t, mark)); diff != "" {
		t.Errorf("requests -want +got:\n%s", diff)
	}
	if got := len(s.aws.Issued()); got != 1 {
		t.Errorf("got %d tokens, want 1", got)
	}
	if got := len(s.ledger(t, host)); got != namespaces {
		t.Errorf("got %d namespaces in the ledger, want %d", got, namespaces)
	}
	written := s.await(t, "team-first-7", host, s.newest)
	if diff := cmp.Diff(map[string]string{"chandler.dev/task": "pullsecrets"}, written.Labels); diff != "" {
		t.Errorf("labels -want +got:\n%s", diff)
	}
	if _, err := passwordFor(written, "123456789012.dkr-ecr.eu-west-1.on.aws"); err != nil {
		t.Errorf("the dual-stack host: %v", err)
	}
	r.wantMetric(t, namespaces, "secrets_created_total")
	r.wantMetric(t, 0, "secret_renewals_total")
	r.wantMetric(t, 1, "chandler_pullsecrets_token_requests_total", "result=granted")
	expiry, _ := expect.Metric(t, r.Registry, "chandler_pullsecrets_expiry_timestamp_seconds", "registry="+host)
	if life := time.Until(time.Unix(int64(expiry), 0)); life < 11*time.Hour || life > 12*time.Hour {
		t.Errorf("got expiry in %s, want 12 hours", life)
	}
}

func labelledLater(t *testing.T, s *scene) {
	s.setKeys(t, host, s.keys)
	s.addNamespace(t, "team-early", map[string]string{host: "true"})
	s.addNamespace(t, "team-late", nil)
	r := s.run(t)
	r.wantMetric(t, 1, "chandler_pullsecrets_secrets", "state=current")
	mark := s.mark(t)
	s.label(t, "team-late", host, "true")
	s.await(t, "team-late", host, s.newest)
	r.wantMetric(t, 2, "chandler_pullsecrets_secrets", "state=current")
	if diff := cmp.Diff(map[string]int{"patch configmaps": 1, "create secrets": 1}, s.requests(t, mark)); diff != "" {
		t.Errorf("requests -want +got:\n%s", diff)
	}
	if got := s.aws.Count(fakeaws.Call{}); got != 1 {
		t.Errorf("got %d calls of AWS, want 1", got)
	}
}

func renewal(t *testing.T, s *scene) {
	s.setKeys(t, host, s.keys)
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	s.addNamespace(t, "team-b", map[string]string{host: "true"})
	s.aws.SetTokenLife(6 * time.Second)
	r := s.run(t)
	first := s.await(t, "team-a", host, nil)
	r.wantMetric(t, 2, "chandler_pullsecrets_secrets", "state=current")
	s.aws.SetTokenLife(time.Hour)
	mark := s.mark(t)
	r.wantMetric(t, 1, "secret_renewals_total")
	r.wantMetric(t, 2, "chandler_pullsecrets_writes_total", "operation=update")
	// The entries before the Secrets, the date after them.
	want := map[string]int{"patch configmaps": 2, "update secrets": 2}
	eventually(t, func() error {
		got := s.requests(t, mark)
		delete(got, "create secrets") // proofs of the policy are left out if the last is fresh
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("requests -want +got:\n%s", diff)
		}
		return nil
	})
	second := s.await(t, "team-a", host, s.newest)
	if second.UID != first.UID {
		t.Errorf("got UID %s after the renewal, want %s", second.UID, first.UID)
	}
	if got := s.aws.Count(fakeaws.Call{}); got != 2 {
		t.Errorf("got %d calls of AWS, want 2", got)
	}
	r.wantMetric(t, 4, "secrets_created_total")
}

func unlabelled(t *testing.T, s *scene) {
	s.setKeys(t, host, s.keys)
	for _, name := range []string{"team-a", "team-b", "team-c", "team-d"} {
		s.addNamespace(t, name, map[string]string{host: "true"})
	}
	r := s.run(t)
	r.wantMetric(t, 4, "chandler_pullsecrets_secrets", "state=current")
	s.label(t, "team-a", host, "")
	s.awaitGone(t, "team-a", host)
	s.label(t, "team-b", host, "false")
	s.awaitGone(t, "team-b", host)
	s.label(t, "team-c", host, "yes")
	s.awaitGone(t, "team-c", host)
	s.event(t, "team-c", "PullSecretLabelIgnored", `its value must be "true"`)
	s.await(t, "team-d", host, s.newest)
	eventually(t, func() error {
		if diff := cmp.Diff([]string{"team-d"}, s.ledger(t, host)); diff != "" {
			return fmt.Errorf("ledger -want +got:\n%s", diff)
		}
		return nil
	})
	s.label(t, "team-d", host, "")
	s.awaitGone(t, "team-d", host)
	eventually(t, func() error {
		if left := s.ledger(t, host); left != nil {
			return fmt.Errorf("got a ledger with %v, want none", left)
		}
		return nil
	})
	if _, there := expect.Metric(t, r.Registry, "chandler_pullsecrets_expiry_timestamp_seconds", "registry="+host); there {
		t.Error("the registry's expiry is still shown")
	}
}

func unlabelledMeanwhile(t *testing.T, s *scene) {
	s.setKeys(t, host, s.keys)
	for _, name := range []string{"team-stays", "team-leaves", "team-ends"} {
		s.addNamespace(t, name, map[string]string{host: "true"})
	}
	r := s.run(t)
	r.wantMetric(t, 3, "chandler_pullsecrets_secrets", "state=current")
	r.Stop()
	s.label(t, "team-leaves", host, "")
	if err := s.admin.CoreV1().Namespaces().Delete(t.Context(), s.real("team-ends"), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.setSecret(t, "team-leaves", "other", corev1.SecretTypeOpaque, nil)
	mark := s.mark(t)
	s.run(t)
	s.awaitGone(t, "team-leaves", host)
	s.await(t, "team-stays", host, s.newest)
	if _, err := s.secret(t, "team-leaves", "other"); err != nil {
		t.Errorf("a Secret of the namespace's own: %v", err)
	}
	eventually(t, func() error {
		if diff := cmp.Diff([]string{"team-stays"}, s.ledger(t, host)); diff != "" {
			return fmt.Errorf("ledger -want +got:\n%s", diff)
		}
		return nil
	})
	if got := s.requests(t, mark)["delete secrets"]; got > 1 {
		t.Errorf("got %d deletes, want 1", got)
	}
	// What the ledger names is updated at once.
	if got := s.requests(t, mark)["update secrets"]; got != 1 {
		t.Errorf("got %d updates, want 1", got)
	}
}

func namespaceAgain(t *testing.T, s *scene) {
	s.setKeys(t, host, s.keys)
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	r := s.run(t)
	first := s.await(t, "team-a", host, nil)
	if err := s.admin.CoreV1().Namespaces().Delete(t.Context(), s.real("team-a"), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.awaitGone(t, "team-a", host)
	eventually(t, func() error {
		_, err := s.admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
			ObjectMeta: metav1.ObjectMeta{Name: s.real("team-a"), Labels: map[string]string{host: "true"}},
		}, metav1.CreateOptions{})
		return err
	})
	if second := s.await(t, "team-a", host, s.newest); second.UID == first.UID {
		t.Error("got the Secret of the former namespace")
	}
	r.wantMetric(t, 1, "chandler_pullsecrets_secrets", "state=current")
}

func sharedIdentity(t *testing.T, s *scene) {
	const other = "999999999999.dkr.ecr.eu-west-1.amazonaws.com"
	const abroad = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
	for _, registry := range []string{host, other, abroad} {
		s.setKeys(t, registry, s.keys)
		s.addNamespace(t, "team-"+registry[:4]+registry[21:23], map[string]string{registry: "true"})
	}
	r := s.run(t)
	r.wantMetric(t, 3, "chandler_pullsecrets_secrets", "state=current")
	for region, want := range map[string]int{"eu-west-1": 1, "us-east-1": 1} {
		if got := s.aws.Count(fakeaws.Call{Region: region}); got != want {
			t.Errorf("region %s: got %d calls, want %d", region, got, want)
		}
	}
	// Its Secret says eu-west-1, its host us-east-1.
	s.event(t, keysIn, "RegistryRegionDiffers", "us-east-1, which is used")
}

func assumedRole(t *testing.T, s *scene) {
	role := pullsecrets.Role{ARN: "arn:aws:iam::123456789012:role/ecr-pull", ExternalID: "a-shared-secret"}
	s.aws.SetRole(fakeaws.Role{ARN: role.ARN, ExternalID: role.ExternalID})
	s.setKeys(t, host, s.keys)
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	s.run(t, func(o *pullsecrets.Options) { o.Roles = map[string]pullsecrets.Role{host: role} })
	s.await(t, "team-a", host, s.newest)
	if got := s.aws.Count(fakeaws.Call{Service: fakeaws.ServiceECR, Principal: role.ARN}); got != 1 {
		t.Errorf("got %d calls as the role, want 1", got)
	}
}

func defaultChain(t *testing.T, s *scene) {
	t.Setenv("AWS_ACCESS_KEY_ID", s.keys.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s.keys.SecretAccessKey)
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	s.run(t)
	s.await(t, "team-a", host, s.newest)
	if got := s.aws.Count(fakeaws.Call{Caller: s.keys.AccessKeyID}); got != 1 {
		t.Errorf("got %d calls, want 1", got)
	}
}

func public(t *testing.T, s *scene) {
	s.setKeys(t, pullsecrets.PublicHost, s.keys)
	s.addNamespace(t, "team-a", map[string]string{pullsecrets.PublicHost: "true"})
	off := s.run(t)
	s.event(t, "team-a", "PullSecretLabelIgnored", "ecrPublic is off")
	off.Stop()
	if got := s.aws.Count(fakeaws.Call{}); got != 0 {
		t.Errorf("got %d calls, want none", got)
	}
	s.run(t, func(o *pullsecrets.Options) { o.Public = true })
	s.await(t, "team-a", pullsecrets.PublicHost, s.newest)
	if got := s.aws.Count(fakeaws.Call{Service: fakeaws.ServiceECRPublic, Region: "us-east-1"}); got != 1 {
		t.Errorf("got %d calls, want 1", got)
	}
}

func resync(t *testing.T, s *scene) {
	s.setKeys(t, host, s.keys)
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	s.run(t)
	s.await(t, "team-a", host, s.newest)
	if err := s.secrets("team-a").Delete(t.Context(), host, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.mergeNamespace(t, "team-a", "annotations", "chandler.dev/resync", "1")
	s.await(t, "team-a", host, s.newest)
	if got := s.aws.Count(fakeaws.Call{}); got != 1 {
		t.Errorf("got %d calls of AWS, want 1", got)
	}
}

func ledgerDeleted(t *testing.T, s *scene) {
	s.setKeys(t, host, s.keys)
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	s.aws.SetTokenLife(6 * time.Second)
	s.run(t)
	s.await(t, "team-a", host, nil)
	if err := s.admin.CoreV1().ConfigMaps(home).Delete(t.Context(), "pullsecrets-"+host, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if diff := cmp.Diff([]string{"team-a"}, s.ledger(t, host)); diff != "" {
			return fmt.Errorf("ledger -want +got:\n%s", diff)
		}
		return nil
	})
}

func twoLeaders(t *testing.T, s *scene) {
	s.setKeys(t, host, s.keys)
	for i := range 20 {
		s.addNamespace(t, fmt.Sprintf("team-%d", i), map[string]string{host: "true"})
	}
	a, b := s.run(t), s.run(t)
	for i := range 20 {
		if i%2 == 0 {
			s.label(t, fmt.Sprintf("team-%d", i), host, "")
		}
	}
	s.addNamespace(t, "team-later", map[string]string{host: "true"})
	for _, r := range []*term{a, b} {
		r.wantMetric(t, 11, "chandler_pullsecrets_secrets", "state=current")
		r.wantMetric(t, 0, "chandler_pullsecrets_secrets", "state=foreign")
	}
	for i := range 20 {
		name := fmt.Sprintf("team-%d", i)
		if i%2 == 0 {
			s.awaitGone(t, name, host)
		} else {
			s.await(t, name, host, nil)
		}
	}
	s.await(t, "team-later", host, nil)
	eventually(t, func() error {
		if got := len(s.ledger(t, host)); got != 11 {
			return fmt.Errorf("got %d namespaces in the ledger, want 11", got)
		}
		return nil
	})
	if got := s.aws.Count(fakeaws.Call{}); got != 2 {
		t.Errorf("got %d calls of AWS, want one for each leader", got)
	}
}
