package csrsigning_test

import (
	"errors"
	"fmt"
	"testing"

	certsv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/leader/csrsigning"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// testThief holds a leader's token while nobody leads.
func testThief(t *testing.T, w *world) {
	thief := kubernetes.NewForConfigOrDie(w.leaderConfig(t))
	t.Run("policies", func(t *testing.T) { testTypeCheck(t, w) })
	t.Run("signs", func(t *testing.T) { thiefSigns(t, w, thief) })
	t.Run("objects", func(t *testing.T) { thiefObjects(t, w, thief) })
}

func testTypeCheck(t *testing.T, w *world) {
	for _, name := range []string{"chandler-scraper-requests", "chandler-scraper-approvals", "chandler-scraper-ca", "chandler-scraper-ca-bundle"} {
		eventually(t, func() error {
			policy, err := w.admin.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if policy.Status.TypeChecking == nil || policy.Status.ObservedGeneration != policy.Generation {
				return fmt.Errorf("%s: not yet checked", name)
			}
			for _, warning := range policy.Status.TypeChecking.ExpressionWarnings {
				t.Errorf("%s: %s: %s", name, warning.FieldRef, warning.Warning)
			}
			return nil
		})
	}
}

// thiefSigns tries every write of a status but the two that the task makes.
func thiefSigns(t *testing.T, w *world, thief kubernetes.Interface) {
	agent := w.agent(t, node)
	certificate := certificateOf(t, w)
	approved := func(changes ...func(*fixtures.Draft)) *certsv1.CertificateSigningRequest {
		return w.approve(t, w.admin, create(t, agent, draft(t, node, changes...)))
	}
	for name, tt := range map[string]struct {
		request *certsv1.CertificateSigningRequest
		change  func(*certsv1.CertificateSigningRequest)
		allowed bool
	}{
		"sign":          {approved(), signed(certificate), true},
		"fail":          {approved(), failed, true},
		"sign and fail": {approved(), func(r *certsv1.CertificateSigningRequest) { failed(r); signed(certificate)(r) }, false},
		"undecided":     {create(t, agent, draft(t, node)), signed(certificate), false},
		"an administrator's": {
			w.approve(t, w.admin, create(t, w.admin, draft(t, node))), signed(certificate), false,
		},
		"fail an administrator's": {
			w.approve(t, w.admin, create(t, w.admin, draft(t, node))), failed, true,
		},
		"another signer": {w.approve(t, w.admin, create(t, w.admin, draft(t, node, func(d *fixtures.Draft) { d.Object.Spec.SignerName = "example.com/other" }))), signed(certificate), false},
		"another name": {
			w.approve(t, w.admin, create(t, w.admin, draft(t, node, func(d *fixtures.Draft) { d.Template.Subject.CommonName = "evil" }))), signed(certificate), false,
		},
		"a label": {approved(), func(r *certsv1.CertificateSigningRequest) { signed(certificate)(r); r.Labels["evil"] = "yes" }, false},
		"nothing": {approved(), func(*certsv1.CertificateSigningRequest) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			tt.change(tt.request)
			_, err := thief.CertificatesV1().CertificateSigningRequests().UpdateStatus(t.Context(), tt.request, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
			if tt.allowed {
				expect.OK(t, err)
			} else if !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
				t.Errorf("got %v, want it refused", err)
			}
		})
	}
}

func signed(certificate []byte) func(*certsv1.CertificateSigningRequest) {
	return func(r *certsv1.CertificateSigningRequest) { r.Status.Certificate = certificate }
}

func failed(r *certsv1.CertificateSigningRequest) {
	r.Status.Conditions = append(r.Status.Conditions, certsv1.CertificateSigningRequestCondition{
		Type: certsv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: "Test", Message: "x",
	})
}

// certificateOf returns any that was issued.
func certificateOf(t *testing.T, w *world) []byte {
	t.Helper()
	all, err := w.admin.CertificatesV1().CertificateSigningRequests().List(t.Context(), metav1.ListOptions{})
	expect.OK(t, err)
	for i := range all.Items {
		if c := all.Items[i].Status.Certificate; len(c) > 0 {
			return c
		}
	}
	t.Fatal("no certificate has been issued")
	return nil
}

// thiefObjects tries Secrets and ConfigMaps of other shapes and names.
func thiefObjects(t *testing.T, w *world, thief kubernetes.Interface) {
	yes := true
	secrets, maps := thief.CoreV1().Secrets(home), thief.CoreV1().ConfigMaps(home)
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	for name, change := range map[string]func(*metav1.ObjectMeta, *corev1.Secret){
		"honest":         func(*metav1.ObjectMeta, *corev1.Secret) {},
		"another name":   func(m *metav1.ObjectMeta, _ *corev1.Secret) { m.Name = "chandler-scraper-ca-2" },
		"no label":       func(m *metav1.ObjectMeta, _ *corev1.Secret) { m.Labels = nil },
		"another task":   func(m *metav1.ObjectMeta, _ *corev1.Secret) { m.Labels["chandler.dev/task"] = "pullsecrets" },
		"a second label": func(m *metav1.ObjectMeta, _ *corev1.Secret) { m.Labels["replicate"] = "yes" },
		"an annotation":  func(m *metav1.ObjectMeta, _ *corev1.Secret) { m.Annotations = map[string]string{"replicate": "yes"} },
		"a finalizer":    func(m *metav1.ObjectMeta, _ *corev1.Secret) { m.Finalizers = []string{"example.com/stay"} },
		"another type":   func(_ *metav1.ObjectMeta, s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque },
		"more data":      func(_ *metav1.ObjectMeta, s *corev1.Secret) { s.StringData["ca.crt"] = "x" },
		"immutable":      func(_ *metav1.ObjectMeta, s *corev1.Secret) { s.Immutable = &yes },
	} {
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: csrsigning.ObjectName, Labels: map[string]string{"chandler.dev/task": "csrsigning"}},
			Type:       corev1.SecretTypeTLS, StringData: map[string]string{"tls.crt": "x", "tls.key": "x"},
		}
		change(&secret.ObjectMeta, secret)
		if _, err := secrets.Create(t.Context(), secret, dry); (err == nil) != (name == "honest") {
			t.Errorf("Secret, %s: got %v", name, err)
		}
	}
	bundle := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: csrsigning.ObjectName, Labels: map[string]string{"chandler.dev/task": "csrsigning"}},
		Data:       map[string]string{"ca.crt": "-----BEGIN CERTIFICATE-----\nx"},
	}
	for name, change := range map[string]func(*corev1.ConfigMap){
		"honest":        func(*corev1.ConfigMap) {},
		"another name":  func(m *corev1.ConfigMap) { m.Name = "chandler" },
		"no label":      func(m *corev1.ConfigMap) { m.Labels = nil },
		"another key":   func(m *corev1.ConfigMap) { m.Data["config.yaml"] = "x" },
		"no PEM":        func(m *corev1.ConfigMap) { m.Data["ca.crt"] = "x" },
		"a private key": func(m *corev1.ConfigMap) { m.Data["ca.crt"] += "-----BEGIN PRIVATE KEY-----" },
		"an annotation": func(m *corev1.ConfigMap) { m.Annotations = map[string]string{"a": "b"} },
	} {
		changed := bundle.DeepCopy()
		change(changed)
		if _, err := maps.Create(t.Context(), changed, dry); (err == nil) != (name == "honest") {
			t.Errorf("ConfigMap, %s: got %v", name, err)
		}
	}
	thiefForeign(t, w, thief)
}

// thiefForeign tries to take over, or remove, what somebody else made.
func thiefForeign(t *testing.T, w *world, thief kubernetes.Interface) {
	meta := metav1.ObjectMeta{Name: csrsigning.ObjectName}
	_, err := w.admin.CoreV1().Secrets(home).Create(t.Context(), &corev1.Secret{ObjectMeta: meta, Type: corev1.SecretTypeTLS,
		StringData: map[string]string{"tls.crt": "x", "tls.key": "x"}}, metav1.CreateOptions{})
	expect.OK(t, err)
	_, err = w.admin.CoreV1().ConfigMaps(home).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: meta}, metav1.CreateOptions{})
	expect.OK(t, err)
	meta.Labels = map[string]string{"chandler.dev/task": "csrsigning"}
	_, updateSecret := thief.CoreV1().Secrets(home).Update(t.Context(), &corev1.Secret{ObjectMeta: meta, Type: corev1.SecretTypeTLS,
		StringData: map[string]string{"tls.crt": "x", "tls.key": "x"}}, metav1.UpdateOptions{})
	_, updateMap := thief.CoreV1().ConfigMaps(home).Update(t.Context(), &corev1.ConfigMap{ObjectMeta: meta,
		Data: map[string]string{"ca.crt": "-----BEGIN CERTIFICATE-----\nx"}}, metav1.UpdateOptions{})
	for name, err := range map[string]error{
		"update the Secret": updateSecret, "update the ConfigMap": updateMap,
		"delete the Secret":    thief.CoreV1().Secrets(home).Delete(t.Context(), csrsigning.ObjectName, metav1.DeleteOptions{}),
		"delete the ConfigMap": thief.CoreV1().ConfigMaps(home).Delete(t.Context(), csrsigning.ObjectName, metav1.DeleteOptions{}),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want it forbidden", name, err)
		}
	}
	if _, err := thief.CoreV1().Secrets(home).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("list Secrets: got %v, want it forbidden", errors.Unwrap(err))
	}
}
