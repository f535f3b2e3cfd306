package pullsecrets_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fakeaws"
	testterm "github.com/chandler-k8s/chandler/test/term"
)

func strangeLabels(t *testing.T, s *scene) {
	const misplaced = "123456789012.dkr.ecr.cn-north-1.amazonaws.com"
	s.setKeys(t, host, s.keys)
	s.addNamespace(t, "team-good", map[string]string{host: "true"})
	s.addNamespace(t, "team-value", map[string]string{host: "True"})
	s.addNamespace(t, "team-host", map[string]string{misplaced: "true"})
	s.addNamespace(t, "team-upper", map[string]string{"123456789012.dkr.ecr.EU-west-1.amazonaws.com": "true"})
	s.addNamespace(t, "team-mixed", map[string]string{misplaced: "true", host: "true", "unrelated": "true"})
	mark := s.mark(t)
	r := s.run(t)
	s.await(t, "team-good", host, s.newest)
	s.await(t, "team-mixed", host, s.newest)
	s.event(t, "team-value", "PullSecretLabelIgnored", `must be "true"`)
	s.event(t, "team-host", "PullSecretLabelIgnored", "it would be 123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn")
	s.event(t, "team-upper", "PullSecretLabelIgnored", "use lower case")
	r.wantMetric(t, 2, "chandler_pullsecrets_secrets", "state=current")
	if got := s.requests(t, mark)["create secrets"]; got != 4 {
		t.Errorf("got %d creates, want 2 and two dry runs", got)
	}
	if got := strings.Count(r.Log.String(), "pull secret needs attention"); got != 4 {
		t.Errorf("got %d warnings, want one for each of 4 labels", got)
	}
}

// fiveRegistries labels a namespace for each of five registries with keys of
// their own, and returns their hosts and keys.
func fiveRegistries(t *testing.T, s *scene) (hosts []string, keys []fakeaws.Keys) {
	t.Helper()
	for i := range 5 {
		hosts = append(hosts, fmt.Sprintf("%d%s", i+1, host[1:]))
		keys = append(keys, s.aws.NewKeys(fmt.Sprintf("puller-%d", i)))
		s.setKeys(t, hosts[i], keys[i])
		s.addNamespace(t, fmt.Sprintf("team-%d", i), map[string]string{hosts[i]: "true"})
	}
	return hosts, keys
}

func wrongKeys(t *testing.T, s *scene) {
	hosts, keys := fiveRegistries(t, s)
	wrong := keys[2]
	wrong.SecretAccessKey = strings.Repeat("wrong", 8)
	s.setKeys(t, hosts[2], wrong)
	for i := range 30 {
		s.addNamespace(t, fmt.Sprintf("team-wrong-%d", i), map[string]string{hosts[2]: "true"})
	}
	r := s.run(t)
	for _, i := range []int{0, 1, 3, 4} {
		s.await(t, fmt.Sprintf("team-%d", i), hosts[i], nil)
	}
	s.event(t, keysIn, "RegistryTokenFailed", hosts[2]+": ECR GetAuthorizationToken: InvalidSignatureException")
	r.wantMetric(t, 1, "chandler_pullsecrets_failing_registries")
	r.wantMetric(t, 4, "chandler_pullsecrets_secrets", "state=current")
	r.wantMetric(t, 31, "chandler_pullsecrets_secrets", "state=waiting")
	r.wantMetric(t, 0, "chandler_pullsecrets_expiry_timestamp_seconds", "registry="+hosts[2])
	if strings.Contains(r.Log.String(), wrong.SecretAccessKey) {
		t.Error("the log shows the wrong key")
	}
	if got := s.aws.Count(fakeaws.Call{Caller: wrong.AccessKeyID}); got > 10 {
		t.Errorf("got %d calls with wrong keys, want few", got)
	}
	s.setKeys(t, hosts[2], keys[2])
	s.await(t, "team-wrong-29", hosts[2], nil)
	r.wantMetric(t, 0, "chandler_pullsecrets_failing_registries")
	r.wantMetric(t, 35, "chandler_pullsecrets_secrets", "state=current")
}

func throttled(t *testing.T, s *scene) {
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	hosts, keys := fiveRegistries(t, s)
	remove := s.aws.Inject(fakeaws.Fault{Calls: fakeaws.Call{Caller: keys[0].AccessKeyID}, Kind: fakeaws.Throttled})
	r := s.run(t)
	for i := 1; i < 5; i++ {
		s.await(t, fmt.Sprintf("team-%d", i), hosts[i], nil)
	}
	s.event(t, keysIn, "RegistryTokenFailed", "ThrottlingException: Rate exceeded")
	eventually(t, func() error {
		if got, _ := expect.Metric(t, r.Registry, "chandler_pullsecrets_token_requests_total", "result=throttled"); got < 1 {
			return errors.New("no throttled request is counted")
		}
		return nil
	})
	remove()
	s.await(t, "team-0", hosts[0], nil)
}

func expiredKeys(t *testing.T, s *scene) {
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	hosts, keys := fiveRegistries(t, s)
	s.aws.ExpireKeys(keys[4].AccessKeyID)
	r := s.run(t)
	for i := range 4 {
		s.await(t, fmt.Sprintf("team-%d", i), hosts[i], nil)
	}
	s.event(t, keysIn, "RegistryTokenFailed", hosts[4]+": ECR GetAuthorizationToken: ExpiredTokenException")
	eventually(t, func() error {
		if got, _ := expect.Metric(t, r.Registry, "chandler_pullsecrets_token_requests_total", "result=denied"); got < 1 {
			return errors.New("no denied request is counted")
		}
		return nil
	})
}

func longOutage(t *testing.T, s *scene) {
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	s.setKeys(t, host, s.keys)
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	s.aws.SetTokenLife(4 * time.Second)
	r := s.run(t)
	var last string
	s.await(t, "team-a", host, func(password string) error { last = password; return nil })
	remove := s.aws.Inject(fakeaws.Fault{Kind: fakeaws.Unreachable})
	r.wantMetric(t, 1, "chandler_pullsecrets_secrets", "state=expired")
	expiry, _ := expect.Metric(t, r.Registry, "chandler_pullsecrets_expiry_timestamp_seconds", "registry="+host)
	if when := time.Unix(int64(expiry), 0); !when.Before(time.Now()) || time.Since(when) > time.Minute {
		t.Errorf("got expiry %s, want a time just past", when)
	}
	// A registry whose token has expired serves nobody new.
	s.addNamespace(t, "team-b", map[string]string{host: "true"})
	r.wantMetric(t, 2, "chandler_pullsecrets_secrets", "state=expired")
	kept := s.await(t, "team-a", host, nil)
	if password, _ := passwordFor(kept, host); password != last {
		if len(s.aws.Issued()) == 1 {
			t.Error("the Secret does not hold the last good password")
		}
	}
	if _, err := s.secret(t, "team-b", host); !apierrors.IsNotFound(err) {
		t.Errorf("got %v, want no Secret with an expired token", err)
	}
	// The next leader knows since when, though it never had a token.
	r.Stop()
	next := s.run(t)
	next.wantMetric(t, 2, "chandler_pullsecrets_secrets", "state=expired")
	eventually(t, func() error {
		if got, _ := expect.Metric(t, next.Registry, "chandler_pullsecrets_expiry_timestamp_seconds", "registry="+host); got != expiry {
			return fmt.Errorf("got expiry %v of the next leader, want %v", got, expiry)
		}
		return nil
	})
	remove()
	s.aws.SetTokenLife(time.Hour)
	s.await(t, "team-a", host, s.newest)
	s.await(t, "team-b", host, s.newest)
	next.wantMetric(t, 2, "chandler_pullsecrets_secrets", "state=current")
}

func hungCall(t *testing.T, s *scene) {
	hosts, keys := fiveRegistries(t, s)
	s.aws.Inject(fakeaws.Fault{Calls: fakeaws.Call{Caller: keys[1].AccessKeyID}, Kind: fakeaws.Silent})
	r := s.run(t)
	for _, i := range []int{0, 2, 3, 4} {
		s.await(t, fmt.Sprintf("team-%d", i), hosts[i], nil)
	}
	r.wantMetric(t, 1, "chandler_pullsecrets_secrets", "state=waiting")
}

func missingKey(t *testing.T, s *scene) {
	s.setSecret(t, keysIn, prefix+"-"+host, corev1.SecretTypeOpaque, map[string]string{"aws_region": "eu-west-1", "aws_access_key_id": s.keys.AccessKeyID})
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	r := s.run(t)
	s.event(t, keysIn, "RegistryTokenFailed", "aws_secret_access_key is missing")
	if got := s.aws.Count(fakeaws.Call{}); got != 0 {
		t.Errorf("got %d calls, want none: the process's own identity must not stand in", got)
	}
	// One for each event at most: the namespace, the Secret, the ledger.
	if got := strings.Count(r.Log.String(), testterm.FailedSync); got > 3 {
		t.Errorf("got %d failed Syncs, want no retries: only a new Secret can help", got)
	}
	s.setKeys(t, host, s.keys)
	s.await(t, "team-a", host, s.newest)
}

func rotatedKeys(t *testing.T, s *scene) {
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	r := s.run(t)
	s.event(t, keysIn, "RegistryTokenFailed", "there is no Secret ci-cd/eatr-aws-credentials-"+host)
	s.setKeys(t, host, s.keys) // appears later
	first := s.await(t, "team-a", host, s.newest)
	fresh := s.aws.NewKeys("fresh")
	s.aws.RemoveKeys(s.keys.AccessKeyID)
	s.setKeys(t, host, fresh)
	eventually(t, func() error {
		if got := s.aws.Count(fakeaws.Call{Caller: fresh.AccessKeyID}); got != 1 {
			return fmt.Errorf("got %d calls with the new keys, want 1", got)
		}
		return nil
	})
	second := s.await(t, "team-a", host, s.newest)
	if second.UID != first.UID {
		t.Error("the Secret was replaced, want it updated")
	}
	r.wantMetric(t, 1, "chandler_pullsecrets_secrets", "state=current")
	// A broken Secret afterwards takes nothing away from those who have a token.
	s.setSecret(t, keysIn, prefix+"-"+host, corev1.SecretTypeOpaque, nil)
	s.event(t, keysIn, "RegistryTokenFailed", "aws_access_key_id is missing, aws_secret_access_key is missing")
	s.addNamespace(t, "team-b", map[string]string{host: "true"})
	s.await(t, "team-b", host, s.newest)
}

// foreigners are Secrets of the right name that somebody else made, by namespace.
var foreigners = map[string]corev1.Secret{
	"team-opaque": {Type: corev1.SecretTypeOpaque, StringData: map[string]string{"password": "hunter2"}},
	"team-same": {Type: corev1.SecretTypeDockerConfigJson, StringData: map[string]string{
		corev1.DockerConfigJsonKey: `{"auths":{"` + host + `":{"auth":"QVdTOng="}}}`,
	}},
	"team-labelled": {
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"chandler.dev/task": "pullsecrets"}},
		Type:       corev1.SecretTypeOpaque, StringData: map[string]string{"password": "hunter2"},
	},
}

func foreignSecrets(t *testing.T, s *scene) {
	s.setKeys(t, host, s.keys)
	s.addNamespace(t, "team-good", map[string]string{host: "true"})
	for name, foreign := range foreigners {
		s.addNamespace(t, name, map[string]string{host: "true"})
		foreign.Name = host
		if _, err := s.secrets(name).Create(t.Context(), &foreign, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	r := s.run(t)
	r.wantMetric(t, 3, "chandler_pullsecrets_secrets", "state=foreign")
	r.wantMetric(t, 1, "chandler_pullsecrets_secrets", "state=current")
	for name, foreign := range foreigners {
		s.event(t, name, "PullSecretForeign", "left alone")
		found, err := s.secret(t, name, host)
		if err != nil {
			t.Fatal(err)
		}
		if found.Type != foreign.Type || found.Generation > 1 || len(found.ManagedFields) != 1 {
			t.Errorf("namespace %s: the foreign Secret was touched", name)
		}
	}
	if strings.Contains(r.Log.String(), testterm.FailedSync) {
		t.Errorf("a foreign Secret is an error:\n%s", r.Log.String())
	}
	// Unlabelling must not delete what is not ours either.
	s.label(t, "team-same", host, "")
	r.wantMetric(t, 2, "chandler_pullsecrets_secrets", "state=foreign")
	eventually(t, func() error {
		for _, namespace := range s.ledger(t, host) {
			if namespace == "team-same" {
				return errors.New("the namespace is still in the ledger")
			}
		}
		return nil
	})
	if _, err := s.secret(t, "team-same", host); err != nil {
		t.Errorf("the foreign Secret of an unlabelled namespace: %v", err)
	}
	if err := s.secrets("team-opaque").Delete(t.Context(), host, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.mergeNamespace(t, "team-opaque", "annotations", "chandler.dev/resync", "1")
	s.await(t, "team-opaque", host, s.newest)
	r.wantMetric(t, 1, "chandler_pullsecrets_secrets", "state=foreign")
}

func tampered(t *testing.T, s *scene) {
	s.setKeys(t, host, s.keys)
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	s.addNamespace(t, "team-frozen", map[string]string{host: "true"})
	s.run(t)
	ours := s.await(t, "team-a", host, s.newest)
	frozen := s.await(t, "team-frozen", host, s.newest)
	ours.Annotations = map[string]string{"replicator.example.com/replicate-from": "kube-system/secret"}
	ours.Labels["extra"] = "label"
	ours.Data["extra"] = []byte("data")
	ours.Data[corev1.DockerConfigJsonKey] = []byte(`{"auths":{}}`)
	immutable := true
	frozen.Immutable = &immutable
	for _, changed := range []*corev1.Secret{ours, frozen} {
		if _, err := s.secrets(changed.Namespace).Update(t.Context(), changed, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		s.mergeNamespace(t, changed.Namespace, "annotations", "chandler.dev/resync", "1")
	}
	mended := s.await(t, "team-a", host, s.newest)
	if mended.UID != ours.UID || len(mended.Annotations) != 0 || len(mended.Labels) != 1 || len(mended.Data) != 1 {
		t.Errorf("got annotations %v, labels %v and %d data, want it as we write it, in place", mended.Annotations, mended.Labels, len(mended.Data))
	}
	s.event(t, "team-frozen", "PullSecretForeign", "immutable")
}

func policyRemoved(t *testing.T, s *scene) {
	const policy = "chandler-pull-secrets"
	bindings := s.admin.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	if err := bindings.Delete(t.Context(), policy, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	leaders := s.leader(t)
	s.awaitNoPolicy(t, leaders)
	s.setKeys(t, host, s.keys)
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	s.setSecret(t, "team-a", host, corev1.SecretTypeOpaque, map[string]string{"password": "hunter2"})
	s.addNamespace(t, "team-b", map[string]string{host: "true"})
	r := s.runAs(t, leaders)
	eventually(t, func() error {
		if !strings.Contains(r.Log.String(), "admission policy chandler-pull-secrets is not in force: apply deploy/base/pullsecrets.yaml") {
			return errors.New("the missing policy is not named")
		}
		return nil
	})
	if _, err := s.secret(t, "team-b", host); !apierrors.IsNotFound(err) {
		t.Errorf("got %v, want nothing written without the policy", err)
	}
	s.apply(t, "base/pullsecrets.yaml")
	s.await(t, "team-b", host, s.newest)
	r.wantMetric(t, 1, "chandler_pullsecrets_secrets", "state=foreign")
}

func permissionsTaken(t *testing.T, s *scene) {
	s.setKeys(t, host, s.keys)
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	r := s.run(t)
	s.await(t, "team-a", host, s.newest)
	roles := s.admin.RbacV1().ClusterRoles()
	role, err := roles.Get(t.Context(), "chandler-leader-pullsecrets", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	role.Rules = []rbacv1.PolicyRule{role.Rules[1]} // namespaces alone
	if _, err := roles.Update(t.Context(), role, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.apply(t, "base/pullsecrets.yaml") })
	s.addNamespace(t, "team-b", map[string]string{host: "true"})
	eventually(t, func() error {
		if !strings.Contains(r.Log.String(), "write pull secret "+s.real("team-b")+"/"+host) {
			return errors.New("the failure is not logged")
		}
		return nil
	})
	r.wantMetric(t, 0, "chandler_pullsecrets_secrets", "state=foreign")
	s.apply(t, "base/pullsecrets.yaml")
	s.await(t, "team-b", host, s.newest)
}

func apiServerRestarted(t *testing.T, s *scene) {
	s.setKeys(t, host, s.keys)
	s.addNamespace(t, "team-a", map[string]string{host: "true"})
	s.aws.SetTokenLife(10 * time.Second)
	r := s.run(t)
	s.await(t, "team-a", host, nil)
	s.StopAPIServer()
	// The renewal falls into the outage.
	eventually(t, func() error {
		if got := len(s.aws.Issued()); got < 2 {
			return fmt.Errorf("got %d tokens, want a second one", got)
		}
		return nil
	})
	s.aws.SetTokenLife(time.Hour)
	if err := s.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.addNamespace(t, "team-b", map[string]string{host: "true"})
	s.await(t, "team-b", host, s.newest)
	s.await(t, "team-a", host, s.newest)
	r.wantMetric(t, 2, "chandler_pullsecrets_secrets", "state=current")
}
