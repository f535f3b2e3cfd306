package pullsecrets_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/leader/pullsecrets"
)

// eatrSecret is what eatr writes.
func eatrSecret(registry string) string {
	return `{ "auths": { "https://` + registry + `": { "auth": "` + strings.Repeat("QVdTOnBhc3N3b3JkL3dpdGgrMTYwMGJ5dGVz", 64) + `" } } }`
}

// awaitAdopting waits until the API server enforces the adopting policy.
func (s *scene) awaitAdopting(t *testing.T, namespace string) {
	t.Helper()
	secrets := kubernetes.NewForConfigOrDie(s.leader(t)).CoreV1().Secrets(s.real(namespace))
	eventually(t, func() error {
		_, err := secrets.Update(t.Context(), pullSecret(host), metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	})
}

// pullSecret is one that the policy lets pass.
func pullSecret(registry string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: registry, Labels: map[string]string{"chandler.dev/task": "pullsecrets"}},
		Type:       corev1.SecretTypeDockerConfigJson,
		StringData: map[string]string{corev1.DockerConfigJsonKey: `{"auths":{"` + registry + `":{"auth":"QVdTOng="}}}`},
	}
}

func adopt(t *testing.T, s *scene) {
	s.apply(t, "optional/pullsecrets-adopt.yaml")
	t.Cleanup(func() { s.apply(t, "base/pullsecrets.yaml") })
	s.setKeys(t, host, s.keys)
	const dual = "123456789012.dkr-ecr.eu-west-1.on.aws"
	secrets := map[string]struct {
		kind    corev1.SecretType
		content string
		taken   bool
	}{
		"team-eatr":    {corev1.SecretTypeDockerConfigJson, eatrSecret(host), true},
		"team-kubectl": {corev1.SecretTypeDockerConfigJson, `{"auths":{"` + host + `":{"username":"AWS","password":"a\nb","email":"a@b.c","auth":"QVdTOmE="}}}`, true},
		"team-pretty":  {corev1.SecretTypeDockerConfigJson, "{\n\t\"auths\": {\n\t\t\"https://" + host + "/v2/\": {\"auth\": \"QVdTOmE=\"},\n \"" + dual + "\": {}\n}\n}\n", true},
		"team-long":    {corev1.SecretTypeDockerConfigJson, `{"auths":{"` + host + `":{"auth":"` + strings.Repeat("QVdT", 3000) + `"}}}`, true},
		"team-two":     {corev1.SecretTypeDockerConfigJson, `{"auths":{"` + host + `":{"auth":"QVdTOmE="},"docker.io":{"auth":"QVdTOmE="}}}`, false},
		"team-other":   {corev1.SecretTypeDockerConfigJson, eatrSecret("9" + host[1:]), false},
		"team-abroad":  {corev1.SecretTypeDockerConfigJson, eatrSecret("123456789012.dkr.ecr.us-east-1.amazonaws.com"), false},
		"team-more":    {corev1.SecretTypeDockerConfigJson, `{"auths":{"` + host + `":{}},"credHelpers":{}}`, false},
		"team-suffix":  {corev1.SecretTypeDockerConfigJson, `{"auths":{"` + host + `.evil.example":{}}}`, false},
		"team-none":    {corev1.SecretTypeDockerConfigJson, `{"auths":{}}`, false},
		"team-umlaut":  {corev1.SecretTypeDockerConfigJson, `{"auths":{"` + host + `":{"email":"ä"}}}`, false},
		"team-opaque":  {corev1.SecretTypeOpaque, eatrSecret(host), false},
	}
	uids := map[string]string{}
	for name, secret := range secrets {
		s.addNamespace(t, name, map[string]string{host: "true"})
		s.setSecret(t, name, host, secret.kind, map[string]string{corev1.DockerConfigJsonKey: secret.content})
		found, err := s.secret(t, name, host)
		if err != nil {
			t.Fatal(err)
		}
		uids[name] = string(found.UID)
	}
	s.awaitAdopting(t, "team-eatr")
	r := s.run(t, func(o *pullsecrets.Options) { o.Adopt = true })
	for name, secret := range secrets {
		t.Run(name, func(t *testing.T) {
			if secret.taken {
				if found := s.await(t, name, host, s.newest); string(found.UID) != uids[name] {
					t.Error("the Secret was replaced, want it updated")
				}
				return
			}
			s.event(t, name, "PullSecretForeign", "left alone")
			found, err := s.secret(t, name, host)
			if err != nil || string(found.Data[corev1.DockerConfigJsonKey]) != secret.content {
				t.Errorf("the foreign Secret was touched: %v", err)
			}
		})
	}
	r.wantMetric(t, 4, "chandler_pullsecrets_secrets", "state=current")
	r.wantMetric(t, 8, "chandler_pullsecrets_secrets", "state=foreign")
	// The strict policy ends it.
	s.addNamespace(t, "team-again", nil)
	s.setSecret(t, "team-again", host, corev1.SecretTypeDockerConfigJson, map[string]string{corev1.DockerConfigJsonKey: eatrSecret(host)})
	s.apply(t, "base/pullsecrets.yaml")
	again := kubernetes.NewForConfigOrDie(s.leader(t)).CoreV1().Secrets(s.real("team-again"))
	eventually(t, func() error {
		_, err := again.Update(t.Context(), pullSecret(host), metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		if !apierrors.IsForbidden(err) {
			return fmt.Errorf("got %w, want it refused", err)
		}
		return nil
	})
}
