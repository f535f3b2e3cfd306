package pullsecrets_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

func thiefConfigMaps(t *testing.T, s *scene, client kubernetes.Interface) {
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "chandler"}, Data: map[string]string{"config.yaml": "x"}}
	if _, err := s.admin.CoreV1().ConfigMaps(home).Create(t.Context(), config, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	maps := client.CoreV1().ConfigMaps(home)
	attempts := map[string]func() error{
		"create another": func() error {
			_, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
			return err
		},
		"create under another's name": func() error {
			labels := map[string]string{"chandler.dev/task": "pullsecrets"}
			_, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x", Labels: labels}}, metav1.CreateOptions{})
			return err
		},
		"delete the configuration": func() error { return maps.Delete(t.Context(), "chandler", metav1.DeleteOptions{}) },
		"patch the configuration": func() error {
			_, err := maps.Patch(t.Context(), "chandler", types.MergePatchType, []byte(`{"data":{"config.yaml":"evil"}}`), metav1.PatchOptions{})
			return err
		},
		"claim the configuration": func() error {
			_, err := maps.Patch(t.Context(), "chandler", types.MergePatchType,
				[]byte(`{"metadata":{"labels":{"chandler.dev/task":"pullsecrets"}}}`), metav1.PatchOptions{})
			return err
		},
		"claim it for another task": func() error {
			_, err := maps.Patch(t.Context(), "chandler", types.MergePatchType,
				[]byte(`{"metadata":{"labels":{"chandler.dev/task":"csrsigning"}}}`), metav1.PatchOptions{})
			return err
		},
		"create one of another task": func() error {
			labels := map[string]string{"chandler.dev/task": "csrsigning"}
			_, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x", Labels: labels}}, metav1.CreateOptions{})
			return err
		},
		"create one beside the scraper's CA": func() error {
			labels := map[string]string{"chandler.dev/task": "csrsigning"}
			_, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "chandler-scraper-ca-2", Labels: labels}}, metav1.CreateOptions{})
			return err
		},
		"generate a name": func() error {
			_, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "chandler-scraper-ca"}}, metav1.CreateOptions{})
			return err
		},
		"a ledger of no registry": func() error {
			_, err := maps.Create(t.Context(), ledgerMap("pullsecrets-x"), metav1.CreateOptions{})
			return err
		},
		"write in another namespace": func() error {
			_, err := client.CoreV1().ConfigMaps(keysIn).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "pullsecrets-x"}}, metav1.CreateOptions{})
			return err
		},
	}
	for name, attempt := range attempts {
		if err := attempt(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want it forbidden", name, err)
		}
	}
	for name, change := range map[string]func(*corev1.ConfigMap){
		"values":             func(c *corev1.ConfigMap) { c.Data["team-a"] = "x" },
		"binary data":        func(c *corev1.ConfigMap) { c.BinaryData = map[string][]byte{"x": []byte("x")} },
		"another label":      func(c *corev1.ConfigMap) { c.Labels["mount"] = "me" },
		"another annotation": func(c *corev1.ConfigMap) { c.Annotations["mount"] = "me" },
		"a finalizer":        func(c *corev1.ConfigMap) { c.Finalizers = []string{"example.com/stay"} },
	} {
		ledger := ledgerMap("pullsecrets-" + host)
		change(ledger)
		if _, err := maps.Create(t.Context(), ledger, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("a ledger with %s: got %v, want it refused", name, err)
		}
	}
	if _, err := maps.Create(t.Context(), ledgerMap("pullsecrets-"+host), metav1.CreateOptions{}); err != nil {
		t.Errorf("an honest ledger: %v", err)
	}
}

func ledgerMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{"chandler.dev/task": "pullsecrets"},
			Annotations: map[string]string{"chandler.dev/expires": "2026-11-21T20:15:04Z"},
		},
		Data: map[string]string{"team-a": "", "team-a.default": ""},
	}
}

// thiefScraperCA: the exception for another task's Secret and ConfigMap is for that
// namespace and name alone. What may be written there, the task's own policy says.
func thiefScraperCA(t *testing.T, s *scene, client kubernetes.Interface) {
	const name = "chandler-scraper-ca"
	secret := func(name string) *corev1.Secret {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"chandler.dev/task": "csrsigning"}},
			Type:       corev1.SecretTypeTLS, StringData: map[string]string{"tls.crt": "x", "tls.key": "x"},
		}
	}
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	for _, other := range []struct{ namespace, name string }{
		{s.real("team-a"), name}, {keysIn, name}, {home, name + "-2"}, {home, "x" + name},
	} {
		if _, err := client.CoreV1().Secrets(other.namespace).Create(t.Context(), secret(other.name), dry); !apierrors.IsInvalid(err) {
			t.Errorf("Secret %s/%s: got %v, want it refused", other.namespace, other.name, err)
		}
	}
	for policy, err := range map[string]error{
		"chandler-pull-secrets": func() error {
			_, err := client.CoreV1().Secrets(home).Create(t.Context(), secret(name), dry)
			return err
		}(),
		"chandler-pull-secrets-ledger": func() error {
			_, err := client.CoreV1().ConfigMaps(home).Create(t.Context(), &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"chandler.dev/task": "csrsigning"}},
				Data:       map[string]string{"ca.crt": "x"},
			}, dry)
			return err
		}(),
	} {
		if strings.Contains(errorText(err), "'"+policy+"'") {
			t.Errorf("policy %s judges another task's object: %v", policy, err)
		}
	}
}

// thiefEvents: the leader writes Events and can neither read nor change any, which
// a patch would do for.
func thiefEvents(t *testing.T, s *scene, client kubernetes.Interface) {
	namespace := s.real("team-a")
	event := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "theirs", Namespace: namespace}, EventTime: metav1.NowMicro(),
		ReportingController: "kubelet", ReportingInstance: "node", Action: "Pull", Reason: "Failed", Type: "Warning", Note: secretValue,
		Regarding: corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: "p"},
	}
	if _, err := s.admin.EventsV1().Events(namespace).Create(t.Context(), event, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	events := client.EventsV1().Events(namespace)
	for name, attempt := range map[string]func() error{
		"get":    func() error { _, err := events.Get(t.Context(), "theirs", metav1.GetOptions{}); return err },
		"list":   func() error { _, err := events.List(t.Context(), metav1.ListOptions{}); return err },
		"watch":  func() error { _, err := events.Watch(t.Context(), metav1.ListOptions{}); return err },
		"update": func() error { _, err := events.Update(t.Context(), event, metav1.UpdateOptions{}); return err },
		"delete": func() error { return events.Delete(t.Context(), "theirs", metav1.DeleteOptions{}) },
		"patch": func() error {
			_, err := events.Patch(t.Context(), "theirs", types.MergePatchType, []byte(`{"type":"Normal"}`), metav1.PatchOptions{})
			return err
		},
		"patch, as core/v1": func() error {
			_, err := client.CoreV1().Events(namespace).Patch(t.Context(), "theirs", types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})
			return err
		},
	} {
		if err := attempt(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want it forbidden", name, err)
		}
	}
}
