package csrsigning_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/csrsigning"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
	"github.com/chandler-k8s/chandler/test/term"
)

func TestSigning(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane")
	}
	w := newWorld(t)
	t.Run("foreign objects", func(t *testing.T) { testForeign(t, w) })
	t.Run("honest", func(t *testing.T) { testHonest(t, w) })
	t.Run("approved by hand", func(t *testing.T) { testApprovedByHand(t, w) })
	t.Run("next leader", func(t *testing.T) { testNextLeader(t, w) })
	t.Run("two leaders at once", func(t *testing.T) { testTwoLeaders(t, w) })
	t.Run("revocation", func(t *testing.T) { testRevocation(t, w) })
	t.Run("tampering", func(t *testing.T) { testTampering(t, w) })
	t.Run("rotation", func(t *testing.T) { testRotation(t, w) })
	t.Run("policy missing", func(t *testing.T) { testPolicyMissing(t, w) })
	t.Run("thief of the leader's token", func(t *testing.T) { testThief(t, w) })
}

func (w *world) clear(t testing.TB) {
	t.Helper()
	for _, err := range []error{
		w.admin.CoreV1().Secrets(home).Delete(t.Context(), csrsigning.ObjectName, metav1.DeleteOptions{}),
		w.admin.CoreV1().ConfigMaps(home).Delete(t.Context(), csrsigning.ObjectName, metav1.DeleteOptions{}),
	} {
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
	}
}

// testForeign: what somebody else made under our names is left alone, told, and
// holds everything up until it is gone.
func testForeign(t *testing.T, w *world) {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: csrsigning.ObjectName}, Type: corev1.SecretTypeTLS,
		StringData: map[string]string{"tls.crt": "theirs", "tls.key": "theirs"},
	}
	_, err := w.admin.CoreV1().Secrets(home).Create(t.Context(), secret, metav1.CreateOptions{})
	expect.OK(t, err)
	bundle := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: csrsigning.ObjectName}, Data: map[string]string{"ca.crt": "theirs"}}
	_, err = w.admin.CoreV1().ConfigMaps(home).Create(t.Context(), bundle, metav1.CreateOptions{})
	expect.OK(t, err)
	r := w.lead(t, "node-leader")
	request := create(t, w.agent(t, node), draft(t, node))
	w.awaitForeign(t, r, "Secret")
	expect.OK(t, w.admin.CoreV1().Secrets(home).Delete(t.Context(), csrsigning.ObjectName, metav1.DeleteOptions{}))
	w.awaitForeign(t, r, "ConfigMap")
	found, err := w.admin.CoreV1().ConfigMaps(home).Get(t.Context(), csrsigning.ObjectName, metav1.GetOptions{})
	if err != nil || found.Data["ca.crt"] != "theirs" {
		t.Errorf("got %v, %v, want the ConfigMap as it was", found.Data, err)
	}
	expect.OK(t, w.admin.CoreV1().ConfigMaps(home).Delete(t.Context(), csrsigning.ObjectName, metav1.DeleteOptions{}))
	certificate := w.certificate(t, request.Name)
	expect.OK(t, trusted(w.bundle(t), certificate))
	if got := metric(t, r, "chandler_csrsigning_ca_foreign"); got != 0 {
		t.Errorf("metric: got %v, want 0 once they are gone", got)
	}
	r.Stop()
}

// testPolicyMissing: no CA is made while nothing bounds what replaces it.
func testPolicyMissing(t *testing.T, w *world) {
	w.clear(t)
	bindings := w.admin.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	binding, err := bindings.Get(t.Context(), "chandler-scraper-ca", metav1.GetOptions{})
	expect.OK(t, err)
	expect.OK(t, bindings.Delete(t.Context(), binding.Name, metav1.DeleteOptions{}))
	stray := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: csrsigning.ObjectName}}
	thief := kubernetes.NewForConfigOrDie(w.leaderConfig(t)).CoreV1().Secrets(home)
	eventually(t, func() error { // until it is out of force
		_, err := thief.Create(t.Context(), stray, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	})
	r := w.lead(t, "node-leader")
	request := create(t, w.agent(t, node), draft(t, node))
	eventually(t, func() error {
		if !strings.Contains(r.Log.String(), "admission policy chandler-scraper-ca is not in force: apply deploy/base/csrsigning.yaml") {
			return errors.New("the missing policy is not named")
		}
		return nil
	})
	if got := w.bundle(t); got != nil {
		t.Errorf("got a bundle, want none:\n%s", got)
	}
	binding.ResourceVersion, binding.UID = "", ""
	_, err = bindings.Create(t.Context(), binding, metav1.CreateOptions{})
	expect.OK(t, err)
	w.certificate(t, request.Name)
	r.Stop()
	w.clear(t)
}

func (w *world) awaitForeign(t *testing.T, r *term.Term, kind string) {
	t.Helper()
	eventually(t, func() error {
		events, err := w.admin.EventsV1().Events(home).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range events.Items {
			if e := &events.Items[i]; e.Reason == "ScraperCAForeign" && e.Regarding.Kind == kind && strings.Contains(e.Note, "delete it") {
				return nil
			}
		}
		return errors.New("no Event on the " + kind)
	})
	if got := metric(t, r, "chandler_csrsigning_ca_foreign"); got != 1 {
		t.Errorf("metric: got %v, want 1", got)
	}
}

func testHonest(t *testing.T, w *world) {
	w.clear(t)
	r := w.lead(t, "node-leader")
	agent := w.agent(t, node)
	request, key, err := fixtures.ScraperRequest(node, func(d *fixtures.Draft) { d.Object.Spec.SignerName = fixtures.ScraperOwnSigner })
	expect.OK(t, err)
	certificate := w.certificate(t, create(t, agent, request).Name)
	expect.OK(t, trusted(w.bundle(t), certificate))
	if got := certificate.Subject.String(); got != "CN="+fixtures.ScraperCommonName {
		t.Errorf("got subject %s", got)
	}
	if got := certificate.DNSNames; len(got) != 1 || got[0] != node {
		t.Errorf("got names %q, want the node's", got)
	}
	if !certificate.PublicKey.(*ecdsa.PublicKey).Equal(key.Public()) {
		t.Error("the certificate is for another key")
	}
	if life := certificate.NotAfter.Sub(certificate.NotBefore); life < 720*time.Hour || life > 721*time.Hour {
		t.Errorf("got a life of %s, want what was asked for", life)
	}
	if certificate.IsCA || certificate.KeyUsage != x509.KeyUsageDigitalSignature || len(certificate.ExtKeyUsage) != 1 {
		t.Errorf("got usages %v and %v, CA %v", certificate.KeyUsage, certificate.ExtKeyUsage, certificate.IsCA)
	}
	secret, err := w.admin.CoreV1().Secrets(home).Get(t.Context(), csrsigning.ObjectName, metav1.GetOptions{})
	expect.OK(t, err)
	if line := strings.Split(string(secret.Data["tls.key"]), "\n")[1]; strings.Contains(r.Log.String(), line) {
		t.Error("the log shows the CA's key")
	}
	if got := metric(t, r, "chandler_csrsigning_ca_expiry_timestamp_seconds"); got < float64(time.Now().Add(300*24*time.Hour).Unix()) {
		t.Errorf("metric of the CA's expiry: got %v", got)
	}
	eventually(t, func() error {
		if !strings.Contains(fmt.Sprint(gathered(t, r)), "chandler_task_missing_permissions") {
			return errors.New("not asked yet")
		}
		return nil
	})
	if got := metric(t, r, "chandler_task_missing_permissions"); got != 0 {
		t.Errorf("permissions missing: got %v, want 0", got)
	}
	r.Stop()
}

func gathered(t *testing.T, r *term.Term) []string {
	t.Helper()
	families, err := r.Registry.Gather()
	expect.OK(t, err)
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	return names
}

// testApprovedByHand: somebody with the right to approve cannot make us sign more.
func testApprovedByHand(t *testing.T, w *world) {
	agent := w.agent(t, node)
	waiting := map[string]string{}
	for _, forgery := range fixtures.Forgeries() {
		if !forgery.Admitted {
			continue
		}
		waiting[w.approve(t, w.admin, create(t, agent, draft(t, node, forgery.Change))).Name] = forgery.Reason
	}
	foreign := w.approve(t, w.admin, create(t, w.admin, draft(t, node)))
	waiting[foreign.Name] = "NotAnAgent"
	honest := w.approve(t, w.admin, create(t, w.agent(t, "node-hand"), draft(t, "node-hand")))
	r := w.lead(t, "node-leader")
	for name, want := range waiting {
		if got := w.failure(t, name); got != want {
			t.Errorf("got reason %s, want %s", got, want)
		}
	}
	expect.OK(t, trusted(w.bundle(t), w.certificate(t, honest.Name)))
	r.Stop()
}

// testNextLeader: the CA outlives the leader, and two at once have one.
func testNextLeader(t *testing.T, w *world) {
	before := w.bundle(t)
	r := w.lead(t, "node-other")
	certificate := w.certificate(t, create(t, w.agent(t, node), draft(t, node)).Name)
	expect.OK(t, trusted(before, certificate))
	r.Stop()
}

// testTwoLeaders: tasks that overlap make one CA between them, and both sign with it.
func testTwoLeaders(t *testing.T, w *world) {
	const leaders = 4
	w.clear(t)
	var tasks []*csrsigning.Task
	for range leaders {
		tasks = append(tasks, w.task(t))
	}
	var racing sync.WaitGroup
	for _, task := range tasks {
		racing.Go(func() {
			for range 5 {
				if _, err := task.Sync(t.Context(), "/ca"); err != nil {
					t.Errorf("keep the CA: %v", err)
				}
			}
		})
	}
	racing.Wait()
	for i, task := range tasks {
		name := fmt.Sprintf("node-of-leader-%d", i)
		request := w.approve(t, w.admin, create(t, w.agent(t, name), draft(t, name)))
		eventually(t, func() error {
			for _, key := range []string{"/ca", request.Name} {
				if _, err := task.Sync(t.Context(), key); err != nil {
					return err
				}
			}
			found, err := w.admin.CertificatesV1().CertificateSigningRequests().Get(t.Context(), request.Name, metav1.GetOptions{})
			if err == nil && len(found.Status.Certificate) == 0 {
				err = errors.New("not signed")
			}
			return err
		})
		expect.OK(t, trusted(w.bundle(t), w.certificate(t, request.Name)))
	}
	if got := strings.Count(string(w.bundle(t)), "BEGIN CERTIFICATE"); got != 1 {
		t.Errorf("got %d CAs in the bundle, want 1", got)
	}
}

// task is one with a leader's token and without a runner.
func (w *world) task(t *testing.T) *csrsigning.Task {
	t.Helper()
	registry := prometheus.NewRegistry()
	metrics, err := csrsigning.NewMetrics(registry)
	expect.OK(t, err)
	client := kubernetes.NewForConfigOrDie(w.leaderConfig(t))
	task, err := csrsigning.New(leader.Term{
		Client: client, Events: events.NewFakeRecorder(100), Metrics: registry, Log: slog.New(slog.DiscardHandler), Namespace: home,
	}, csrsigning.Options{Rules: rules(), Metrics: metrics})
	expect.OK(t, err)
	in := leader.NewInformers(client, nil)
	expect.OK(t, task.Watch(in, func(string) {}))
	ctx, cancel := context.WithCancel(context.Background())
	in.Start(ctx)
	t.Cleanup(func() { cancel(); in.Shutdown() })
	if missing := in.Wait(ctx); len(missing) > 0 {
		t.Fatalf("informers not synced: %v", missing)
	}
	return task
}

// testRevocation: without the Secret there is a new CA at once, and none but it.
func testRevocation(t *testing.T, w *world) {
	r := w.lead(t, "node-leader")
	agent := w.agent(t, node)
	before := w.certificate(t, create(t, agent, draft(t, node)).Name)
	expect.OK(t, trusted(w.bundle(t), before))
	expect.OK(t, w.admin.CoreV1().Secrets(home).Delete(t.Context(), csrsigning.ObjectName, metav1.DeleteOptions{}))
	eventually(t, func() error {
		if trusted(w.bundle(t), before) == nil {
			return errors.New("the certificate before is still good")
		}
		return nil
	})
	expect.OK(t, trusted(w.bundle(t), w.certificate(t, create(t, agent, draft(t, node)).Name)))
	r.Stop()
}

// testTampering: what is added to the bundle, or removed, is put right.
func testTampering(t *testing.T, w *world) {
	r := w.lead(t, "node-leader")
	w.certificate(t, create(t, w.agent(t, node), draft(t, node)).Name)
	want := string(w.bundle(t))
	maps := w.admin.CoreV1().ConfigMaps(home)
	found, err := maps.Get(t.Context(), csrsigning.ObjectName, metav1.GetOptions{})
	expect.OK(t, err)
	found.Data["ca.crt"] += string(w.Admin().CAData)
	_, err = maps.Update(t.Context(), found, metav1.UpdateOptions{})
	expect.OK(t, err)
	restored := func() error {
		if got := string(w.bundle(t)); got != want {
			return fmt.Errorf("got a bundle of %d bytes, want %d", len(got), len(want))
		}
		return nil
	}
	eventually(t, restored)
	expect.OK(t, maps.Delete(t.Context(), csrsigning.ObjectName, metav1.DeleteOptions{}))
	eventually(t, restored)
	r.Stop()
}

// testRotation runs several rotations with short lives. At no time does a
// certificate come from a CA that targets did not know a moment before, and none
// that is valid loses its CA.
func testRotation(t *testing.T, w *world) {
	w.clear(t)
	r := w.lead(t, "node-leader", func(o *csrsigning.Options) {
		o.MaxLife, o.CALife, o.Overlap = 2*time.Second, 14*time.Second, 3*time.Second // no stall is as long
	})
	agent := w.agent(t, node)
	issuers := map[string]bool{}
	var seen [][]byte // bundles before the newest certificate was asked for
	eventually(t, func() error {
		if bundle := w.bundle(t); bundle != nil {
			seen = append(seen, bundle)
		}
		certificate := w.certificate(t, create(t, agent, draft(t, node)).Name)
		now := w.bundle(t)
		if time.Now().Before(certificate.NotAfter) {
			if err := trusted(now, certificate); err != nil {
				t.Errorf("a valid certificate is not trusted: %v", err)
			}
		}
		if len(issuers) > 0 && !issuers[certificate.Issuer.CommonName] && !strings.Contains(names(seen[len(seen)-1]), certificate.Issuer.CommonName) {
			t.Errorf("%s signs without having been in the bundle before", certificate.Issuer.CommonName)
		}
		issuers[certificate.Issuer.CommonName] = true
		if len(issuers) < 4 {
			return fmt.Errorf("%d CAs so far", len(issuers))
		}
		return nil
	})
	secret, err := w.admin.CoreV1().Secrets(home).Get(t.Context(), csrsigning.ObjectName, metav1.GetOptions{})
	expect.OK(t, err)
	if got := strings.Count(string(secret.Data["old.crt"]), "BEGIN"); got > 2 {
		t.Errorf("%d old CAs are kept", got)
	}
	if got := metric(t, r, "chandler_csrsigning_ca_rotations_total"); got < 4 {
		t.Errorf("rotations: got %v, want 4", got)
	}
	r.Stop()
	w.clear(t)
}

// names are the subjects of a bundle.
func names(bundle []byte) string {
	var out []string
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			out = append(out, c.Subject.CommonName)
		}
	}
	return strings.Join(out, " ")
}
