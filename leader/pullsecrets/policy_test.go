package pullsecrets_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"
)

// secretValue is what a thief of the leader's token must not learn.
const secretValue = "hunter2-of-another-team"

// TestThief holds the leader's token, as deploy/base equips it, and tries what the
// task never does.
func TestThief(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane")
	}
	w := newWorld(t)
	w.apply(t, "optional/pullsecrets-serviceaccounts.yaml")
	s := &scene{world: w}
	s.addNamespace(t, "team-a", nil)
	s.setSecret(t, "team-a", host, corev1.SecretTypeDockerConfigJson, map[string]string{
		corev1.DockerConfigJsonKey: `{"auths":{"docker.io":{"auth":"` + secretValue + `"}}}`,
	})
	s.setSecret(t, "team-a", "password", corev1.SecretTypeOpaque, map[string]string{"password": secretValue})
	s.setSecret(t, keysIn, prefix+"-"+host, corev1.SecretTypeOpaque, map[string]string{"aws_access_key_id": "AKIA"})
	client := kubernetes.NewForConfigOrDie(w.leader(t))
	t.Run("reads", func(t *testing.T) { thiefReads(t, s, client) })
	t.Run("shapes", func(t *testing.T) { thiefShapes(t, s, client) })
	t.Run("foreign Secrets", func(t *testing.T) { thiefForeign(t, s, client) })
	t.Run("ConfigMaps", func(t *testing.T) { thiefConfigMaps(t, s, client) })
	t.Run("another task's CA", func(t *testing.T) { thiefScraperCA(t, s, client) })
	t.Run("Events", func(t *testing.T) { thiefEvents(t, s, client) })
	t.Run("ServiceAccounts", func(t *testing.T) { thiefAccounts(t, s, client) })
	t.Run("foreign Secrets, patch allowed", func(t *testing.T) { thiefPatches(t, s, client) })
}

func thiefReads(t *testing.T, s *scene, client kubernetes.Interface) {
	namespace := s.real("team-a")
	for name, read := range map[string]func() error{
		"get": func() error {
			_, err := client.CoreV1().Secrets(namespace).Get(t.Context(), "password", metav1.GetOptions{})
			return err
		},
		"list": func() error {
			_, err := client.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{})
			return err
		},
		"list of all namespaces": func() error {
			_, err := client.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{})
			return err
		},
		"watch": func() error {
			_, err := client.CoreV1().Secrets(namespace).Watch(t.Context(), metav1.ListOptions{})
			return err
		},
		"list in its own namespace": func() error {
			_, err := client.CoreV1().Secrets(home).List(t.Context(), metav1.ListOptions{})
			return err
		},
		"deletecollection": func() error {
			return client.CoreV1().Secrets(namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{})
		},
		"token of a ServiceAccount": func() error {
			_, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), "default", nil, metav1.CreateOptions{})
			return err
		},
	} {
		if err := read(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want it forbidden", name, err)
		}
	}
	for _, kind := range []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType, types.ApplyPatchType} {
		_, err := client.CoreV1().Secrets(namespace).Patch(t.Context(), "password", kind, []byte(`{}`), metav1.PatchOptions{FieldManager: "x"})
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want it forbidden", kind, err)
		}
	}
	if _, err := client.CoreV1().Secrets(keysIn).List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("list in the host namespace: %v", err)
	}
}

func thiefShapes(t *testing.T, s *scene, client kubernetes.Interface) {
	yes := true
	tests := map[string]func(*corev1.Secret){
		"another name":               func(s *corev1.Secret) { s.Name = "password" },
		"a name that begins so":      func(s *corev1.Secret) { s.Name = host + ".evil.example" },
		"a name that ends so":        func(s *corev1.Secret) { s.Name = "x" + host },
		"keys of the host namespace": func(s *corev1.Secret) { s.Name = prefix + "-" + host },
		"mixed forms":                func(s *corev1.Secret) { s.Name = "123456789012.dkr-ecr.eu-west-1.amazonaws.com" },
		"type Opaque":                func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque },
		"type of a token": func(s *corev1.Secret) {
			s.Type = corev1.SecretTypeServiceAccountToken
			s.Annotations = map[string]string{corev1.ServiceAccountNameKey: "default"}
			s.StringData = nil
		},
		"no label":       func(s *corev1.Secret) { s.Labels = nil },
		"another task":   func(s *corev1.Secret) { s.Labels["chandler.dev/task"] = "csrsigning" },
		"a second label": func(s *corev1.Secret) { s.Labels["replicate"] = "yes" },
		"annotations": func(s *corev1.Secret) {
			s.Annotations = map[string]string{"replicator.v1.mittwald.de/replicate-from": "a/b"}
		},
		"finalizers": func(s *corev1.Secret) { s.Finalizers = []string{"example.com/stay"} },
		"owner": func(s *corev1.Secret) {
			s.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "u"}}
		},
		"immutable": func(s *corev1.Secret) { s.Immutable = &yes },
		"more data": func(s *corev1.Secret) { s.StringData["tls.key"] = "x" },
		"enormous": func(s *corev1.Secret) {
			s.StringData[corev1.DockerConfigJsonKey] = `{"auths":{"` + strings.Repeat("x", 1<<16) + `":{}}}`
		},
	}
	secrets := client.CoreV1().Secrets(s.real("team-a"))
	for name, change := range tests {
		secret := pullSecret("999999999999" + host[12:])
		change(secret)
		for _, options := range []metav1.CreateOptions{{}, {DryRun: []string{metav1.DryRunAll}}} {
			if _, err := secrets.Create(t.Context(), secret, options); !apierrors.IsInvalid(err) {
				t.Errorf("%s: got %v, want it refused", name, err)
			}
		}
	}
	for _, registry := range []string{
		"999999999999.dkr.ecr.us-gov-west-1.amazonaws.com", "999999999999.dkr.ecr-fips.us-east-1.amazonaws.com",
		"999999999999.dkr-ecr.eu-west-1.on.aws", "999999999999.dkr-ecr-fips.us-east-1.on.aws",
		"999999999999.dkr.ecr.cn-north-1.amazonaws.com.cn", "999999999999.dkr-ecr.cn-northwest-1.on.amazonwebservices.com.cn",
		"999999999999.dkr.ecr.us-iso-east-1.c2s.ic.gov", "999999999999.dkr.ecr.us-isob-east-1.sc2s.sgov.gov",
		"999999999999.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", "999999999999.dkr.ecr.us-isof-south-1.csp.hci.ic.gov",
		"999999999999.dkr.ecr.eusc-de-east-1.amazonaws.eu", "public.ecr.aws",
	} {
		if _, err := secrets.Create(t.Context(), pullSecret(registry), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
			t.Errorf("pull secret for %s: %v", registry, err)
		}
	}
}

// thiefForeign tries every write on Secrets of others, watching the answers.
func thiefForeign(t *testing.T, s *scene, client kubernetes.Interface) {
	for _, name := range []string{host, "password"} {
		for _, kind := range []corev1.SecretType{corev1.SecretTypeDockerConfigJson, corev1.SecretTypeOpaque, ""} {
			stolen := pullSecret(name)
			stolen.Type = kind
			body, err := json.Marshal(stolen)
			if err != nil {
				t.Fatal(err)
			}
			for _, query := range []string{"", "?dryRun=All", "?fieldManager=chandler"} {
				answer, err := client.CoreV1().RESTClient().Put().RequestURI(s.path("team-a", name) + query).Body(body).DoRaw(t.Context())
				wantRefusal(t, "PUT of "+name+" as "+string(kind)+query, answer, err)
			}
		}
		orphan := metav1.DeletePropagationOrphan
		for what, options := range map[string]metav1.DeleteOptions{
			"plain": {}, "dry run": {DryRun: []string{metav1.DryRunAll}}, "orphan": {PropagationPolicy: &orphan},
			"wrong UID": {Preconditions: metav1.NewUIDPreconditions("x")},
		} {
			answer, err := client.CoreV1().RESTClient().Delete().AbsPath(s.path("team-a", name)).Body(&options).DoRaw(t.Context())
			wantRefusal(t, "DELETE of "+name+", "+what, answer, err)
		}
	}
	// The answer to a delete that has to wait carries the object.
	pending, err := s.secrets("team-a").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "pending", Finalizers: []string{"example.com/stay"}},
		StringData: map[string]string{"password": secretValue},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		answer, err := client.CoreV1().RESTClient().Delete().AbsPath(s.path("team-a", pending.Name)).DoRaw(t.Context())
		wantRefusal(t, "DELETE of a Secret with a finalizer", answer, err)
		if err := s.secrets("team-a").Delete(t.Context(), pending.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{host, "password"} {
		if found, err := s.secret(t, "team-a", name); err != nil || len(found.ManagedFields) != 1 {
			t.Errorf("Secret %s was touched: %v", name, err)
		}
	}
}

func (s *scene) path(namespace, name string) string {
	return "/api/v1/namespaces/" + s.real(namespace) + "/secrets/" + name
}

func wantRefusal(t *testing.T, what string, answer []byte, err error) {
	t.Helper()
	if !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) && !apierrors.IsConflict(err) {
		if status, ok := errors.AsType[*apierrors.StatusError](err); !ok || (status.ErrStatus.Code != 403 && status.ErrStatus.Code != 422) {
			t.Errorf("%s: got %v, want it refused", what, err)
		}
	}
	encoded := "aHVudGVyMi1vZi1hbm90aGVyLXRlYW0" // secretValue at the start of base64
	if text := string(answer) + errorText(err); strings.Contains(text, secretValue) || strings.Contains(text, encoded) {
		t.Errorf("%s: the answer shows the Secret", what)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// thiefPatches shows that the policy alone, with patch allowed by mistake, keeps
// Secrets from being read, and why patch is not allowed all the same.
func thiefPatches(t *testing.T, s *scene, client kubernetes.Interface) {
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "mistake"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"patch"}}},
	}
	if _, err := s.admin.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "mistake"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "mistake"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: home, Name: account}},
	}
	if _, err := s.admin.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	patch := func(kind types.PatchType, body, query string) ([]byte, error) {
		return client.CoreV1().RESTClient().Patch(kind).RequestURI(s.path("team-a", "password") + query).Body([]byte(body)).DoRaw(t.Context())
	}
	const guess = `[{"op":"test","path":"/data/password","value":"`
	eventually(t, func() error {
		if _, err := patch(types.JSONPatchType, guess+`d3Jvbmc="}]`, ""); !apierrors.IsInvalid(err) {
			return errors.New("patch is not allowed yet")
		}
		return nil
	})
	for _, query := range []string{"?fieldManager=x", "?fieldManager=x&dryRun=All"} {
		for _, test := range []struct {
			kind types.PatchType
			body string
		}{
			{types.MergePatchType, `{}`},
			{types.StrategicMergePatchType, `{}`},
			{types.JSONPatchType, `[]`},
			{types.JSONPatchType, `[{"op":"copy","from":"/data","path":"/stringData"}]`},
			{types.ApplyPatchType, `{"apiVersion":"v1","kind":"Secret"}`},
			{types.MergePatchType, `{"metadata":{"labels":{"chandler.dev/task":"pullsecrets"}}}`},
		} {
			answer, err := patch(test.kind, test.body, query)
			wantRefusal(t, string(test.kind)+" "+test.body+query, answer, err)
		}
	}
	// A right guess is told from a wrong one by the code: 403 instead of 422.
	_, err := patch(types.JSONPatchType, guess+`aHVudGVyMi1vZi1hbm90aGVyLXRlYW0="}]`, "")
	if !apierrors.IsForbidden(err) {
		t.Errorf("a right guess: got %v, want 403; if that has changed, patch may be allowed", err)
	}
}

func thiefAccounts(t *testing.T, s *scene, client kubernetes.Interface) {
	namespace := s.real("team-a")
	eventually(t, func() error {
		_, err := s.admin.CoreV1().ServiceAccounts(namespace).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	s.setPullSecrets(t, "team-a", "default", "theirs")
	eventually(t, func() error { // until the policy is in force
		_, err := client.CoreV1().ServiceAccounts(namespace).Patch(t.Context(), "default", types.MergePatchType,
			[]byte(`{"imagePullSecrets":null}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
		if !apierrors.IsForbidden(err) {
			return fmt.Errorf("got %w, want it forbidden", err)
		}
		return nil
	})
	for name, body := range map[string]string{
		"an AWS role":          `{"metadata":{"annotations":{"eks.amazonaws.com/role-arn":"arn:aws:iam::123456789012:role/admin"}}}`,
		"a label":              `{"metadata":{"labels":{"azure.workload.identity/use":"true"}}}`,
		"no automount":         `{"automountServiceAccountToken":false}`,
		"secrets":              `{"secrets":[{"name":"x"}]}`,
		"a finalizer":          `{"metadata":{"finalizers":["example.com/stay"]}}`,
		"others' entry gone":   `{"imagePullSecrets":null}`,
		"another entry":        `{"imagePullSecrets":[{"name":"theirs"},{"name":"mine"}]}`,
		"others' entry, moved": `{"imagePullSecrets":[{"name":"mine"},{"name":"theirs"}]}`,
	} {
		_, err := client.CoreV1().ServiceAccounts(namespace).Patch(t.Context(), "default", types.MergePatchType, []byte(body), metav1.PatchOptions{})
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want it forbidden", name, err)
		}
	}
	_, err := client.CoreV1().ServiceAccounts(home).Patch(t.Context(), account, types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("an account of another name: got %v, want it forbidden", err)
	}
	_, err = client.CoreV1().ServiceAccounts(namespace).Patch(t.Context(), "default", types.MergePatchType,
		[]byte(`{"imagePullSecrets":[{"name":"`+host+`"},{"name":"theirs"}]}`), metav1.PatchOptions{})
	if err != nil {
		t.Errorf("our own entry: %v", err)
	}
}

// The adopting policy differs from the strict one in nothing but whose Secrets may
// be updated.
func TestAdoptingPolicyIsTheStrictOneBesides(t *testing.T) {
	strict, adopting := readPolicy(t, "base/pullsecrets.yaml"), readPolicy(t, "optional/pullsecrets-adopt.yaml")
	if diff := cmp.Diff(strict.Spec.MatchConstraints, adopting.Spec.MatchConstraints); diff != "" {
		t.Errorf("matchConstraints -strict +adopting:\n%s", diff)
	}
	if diff := cmp.Diff(strict.Spec.MatchConditions, adopting.Spec.MatchConditions); diff != "" {
		t.Errorf("matchConditions -strict +adopting:\n%s", diff)
	}
	if diff := cmp.Diff(strict.Spec.Validations[1:], adopting.Spec.Validations[1:]); diff != "" {
		t.Errorf("validations -strict +adopting:\n%s", diff)
	}
	shared := len(strict.Spec.Variables)
	if diff := cmp.Diff(strict.Spec.Variables, adopting.Spec.Variables[:shared]); diff != "" {
		t.Errorf("variables -strict +adopting:\n%s", diff)
	}
}

func readPolicy(t *testing.T, file string) admissionv1.ValidatingAdmissionPolicy {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "deploy", file))
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range strings.Split(string(data), "\n---\n") {
		var policy admissionv1.ValidatingAdmissionPolicy
		if err := yaml.Unmarshal([]byte(document), &policy); err != nil {
			t.Fatal(err)
		}
		if policy.Kind == "ValidatingAdmissionPolicy" && policy.Name == "chandler-pull-secrets" {
			return policy
		}
	}
	t.Fatalf("%s holds no policy chandler-pull-secrets", file)
	return admissionv1.ValidatingAdmissionPolicy{}
}
