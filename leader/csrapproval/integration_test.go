package csrapproval_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	certsv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
	"github.com/chandler-k8s/chandler/test/term"
)

func TestApproval(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane")
	}
	w := newWorld(t)
	t.Run("policies", func(t *testing.T) { testTypeCheck(t, w) })
	t.Run("agents", func(t *testing.T) { testAgents(t, w) })
	var forged map[string]string
	t.Run("thief of the leader's token", func(t *testing.T) { forged = testThief(t, w) })
	t.Run("leader", func(t *testing.T) {
		r := w.lead(t)
		t.Run("found at its start", func(t *testing.T) {
			for name, want := range forged {
				if got := w.condition(t, name, certsv1.CertificateDenied).Reason; got != want {
					t.Errorf("got reason %s, want %s", got, want)
				}
			}
			w.awaitDecisions(t)
		})
		t.Run("honest", func(t *testing.T) { testHonest(t, w) })
		t.Run("forgeries", func(t *testing.T) { testForgeries(t, w) })
		t.Run("dead pods", func(t *testing.T) { testDeadPods(t, w) })
		t.Run("permissions", func(t *testing.T) { testPermissions(t, r) })
	})
	t.Run("policy missing", func(t *testing.T) { testPolicyMissing(t, w) })
}

// testHonest follows a request to the certificate, and counts what it costs.
func testHonest(t *testing.T, w *world) {
	agent := w.agent(t, node)
	draft, key, err := fixtures.ScraperRequest(node)
	expect.OK(t, err)
	mark, err := w.Mark()
	expect.OK(t, err)
	request := create(t, agent, draft)
	if got := w.condition(t, request.Name, certsv1.CertificateApproved); got.Reason != "ChandlerScraperApproved" || !strings.Contains(got.Message, node) {
		t.Errorf("got condition %v", got)
	}
	block, rest := pem.Decode(w.certificate(t, request.Name))
	certificate, err := x509.ParseCertificate(block.Bytes)
	expect.OK(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.Admin().CAData)
	if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil || len(rest) > 0 {
		t.Errorf("the certificate is not the control plane's: %v", err)
	}
	if got := certificate.Subject.String(); got != "CN="+fixtures.ScraperCommonName {
		t.Errorf("got subject %s", got)
	}
	if got := certificate.DNSNames; len(got) != 1 || got[0] != node {
		t.Errorf("got names %q, want the node's", got)
	}
	if !certificate.PublicKey.(*ecdsa.PublicKey).Equal(key.Public()) {
		t.Error("the certificate is for another key")
	}
	counted, err := w.Requests(mark)
	expect.OK(t, err)
	got := map[string]int{}
	for request, n := range counted.Where(cluster.User(cluster.ServiceAccountUser(fixtures.Namespace, "chandler-leader"))) {
		if request.Resource != "selfsubjectaccessreviews" {
			got[request.Verb+" "+request.Resource] += n
		}
	}
	if len(got) != 2 || got["get pods"] != 1 || got["update certificatesigningrequests/approval"] != 1 {
		t.Errorf("got requests %v, want one look at the pod and one approval", got)
	}
}

// testForgeries sends what policies cannot see.
func testForgeries(t *testing.T, w *world) {
	agent := w.agent(t, node)
	for _, forgery := range fixtures.Forgeries() {
		if !forgery.Admitted {
			continue
		}
		t.Run(forgery.Name, func(t *testing.T) {
			request, _, err := fixtures.ScraperRequest(node, forgery.Change)
			expect.OK(t, err)
			stored := create(t, agent, request)
			if got := w.condition(t, stored.Name, certsv1.CertificateDenied); got.Reason != forgery.Reason || got.Message == "" {
				t.Errorf("got reason %q (%s), want %s", got.Reason, got.Message, forgery.Reason)
			}
		})
	}
}

// testDeadPods: a token dies with its pod, so the requests come before.
func testDeadPods(t *testing.T, w *world) {
	pods := w.admin.CoreV1().Pods(fixtures.Namespace)
	for name, tt := range map[string]struct {
		end  func(*corev1.Pod) error
		want string
	}{
		"finished": {func(pod *corev1.Pod) error {
			pod.Status.Phase = corev1.PodFailed
			_, err := pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{})
			return err
		}, "PodFinished"},
		"terminating": {func(pod *corev1.Pod) error {
			seconds := int64(3600)
			return pods.Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &seconds})
		}, "PodTerminating"},
	} {
		t.Run(name, func(t *testing.T) {
			host := "node-" + name
			agent := w.agent(t, host)
			pod, err := pods.Get(t.Context(), fixtures.PodName(host), metav1.GetOptions{})
			expect.OK(t, err)
			expect.OK(t, tt.end(pod))
			stored := create(t, agent, honest(t, host))
			if got := w.condition(t, stored.Name, certsv1.CertificateDenied).Reason; got != tt.want {
				t.Errorf("got reason %s, want %s", got, tt.want)
			}
		})
	}
}

// testPolicyMissing: nothing is approved while nothing bounds what can be.
func testPolicyMissing(t *testing.T, w *world) {
	bindings := w.admin.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	binding, err := bindings.Get(t.Context(), "chandler-scraper-approvals", metav1.GetOptions{})
	expect.OK(t, err)
	expect.OK(t, bindings.Delete(t.Context(), binding.Name, metav1.DeleteOptions{}))
	request := create(t, w.agent(t, node), honest(t, node))
	w.awaitApprovals(t, request, true)
	r := w.lead(t)
	eventually(t, func() error {
		if !strings.Contains(r.Log.String(), "admission policy chandler-scraper-approvals is not in force: apply deploy/base/csrapproval-policies.yaml") {
			return errors.New("the missing policy is not named")
		}
		return nil
	})
	found, err := w.admin.CertificatesV1().CertificateSigningRequests().Get(t.Context(), request.Name, metav1.GetOptions{})
	expect.OK(t, err)
	if len(found.Status.Conditions) > 0 {
		t.Errorf("got %v, want no decision", found.Status.Conditions)
	}
	binding.ResourceVersion, binding.UID = "", ""
	_, err = bindings.Create(t.Context(), binding, metav1.CreateOptions{})
	expect.OK(t, err)
	w.condition(t, request.Name, certsv1.CertificateApproved)
}

// awaitApprovals waits until a leader's token can, or cannot, approve a request with
// one condition too many.
func (w *world) awaitApprovals(t *testing.T, request *certsv1.CertificateSigningRequest, possible bool) {
	t.Helper()
	expect.OK(t, w.admin.CoordinationV1().Leases(fixtures.Namespace).Delete(t.Context(), "chandler", metav1.DeleteOptions{}))
	requests := w.thief(t).CertificatesV1().CertificateSigningRequests()
	tried := decided(request, certsv1.CertificateApproved)
	tried.Status.Conditions = append(tried.Status.Conditions, certsv1.CertificateSigningRequestCondition{Type: "Odd", Status: corev1.ConditionTrue, Reason: "Test"})
	eventually(t, func() error {
		_, err := requests.UpdateApproval(t.Context(), request.Name, tried, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		if possible == (err == nil) && (possible || apierrors.IsForbidden(err)) {
			return nil
		}
		return fmt.Errorf("an odd approval: got %w, want it to pass: %v", err, possible)
	})
}

func testPermissions(t *testing.T, r *term.Term) {
	eventually(t, func() error {
		missing, asked := expect.Metric(t, r.Registry, "chandler_task_missing_permissions")
		if asked {
			if missing != 0 {
				t.Errorf("permissions missing: got %v, want 0", missing)
			}
			return nil
		}
		return fmt.Errorf("not asked yet")
	})
}

// TestRequestsBeforeTheLeader: a leader finds what was made while nobody led, and
// an approval that is a minute old without a certificate.
func TestRequestsBeforeTheLeader(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane")
	}
	w := start(t, cluster.Options{NoControllerManager: true}) // so nobody signs, as on EKS
	agent := w.agent(t, node)
	gone := create(t, w.agent(t, "node-gone"), honest(t, "node-gone"))
	now := int64(0)
	expect.OK(t, w.admin.CoreV1().Pods(fixtures.Namespace).Delete(t.Context(), fixtures.PodName("node-gone"), metav1.DeleteOptions{GracePeriodSeconds: &now}))
	replaced := create(t, w.agent(t, "node-replaced"), honest(t, "node-replaced"))
	expect.OK(t, w.admin.CoreV1().Pods(fixtures.Namespace).Delete(t.Context(), fixtures.PodName("node-replaced"), metav1.DeleteOptions{GracePeriodSeconds: &now}))
	w.agent(t, "node-replaced")
	waiting := create(t, agent, honest(t, node))
	unissued := create(t, agent, honest(t, node))
	unissued.Status.Conditions = []certsv1.CertificateSigningRequestCondition{{
		Type: certsv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "ChandlerScraperApproved",
		LastUpdateTime: metav1.NewTime(time.Now().Add(-2 * time.Minute)),
	}}
	_, err := w.admin.CertificatesV1().CertificateSigningRequests().UpdateApproval(t.Context(), unissued.Name, unissued, metav1.UpdateOptions{})
	expect.OK(t, err)

	w.lead(t)
	w.condition(t, waiting.Name, certsv1.CertificateApproved)
	for name, want := range map[string]string{gone.Name: "PodGone", replaced.Name: "PodReplaced"} {
		if got := w.condition(t, name, certsv1.CertificateDenied).Reason; got != want {
			t.Errorf("got reason %s, want %s", got, want)
		}
	}
	eventually(t, func() error {
		events, err := w.admin.EventsV1().Events(fixtures.Namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range events.Items {
			if e := &events.Items[i]; e.Reason == "ScraperCertificateNotIssued" && e.Regarding.Name == fixtures.PodName(node) &&
				strings.Contains(e.Note, "scraper.signerName: chandler.dev/scraper-client") {
				return nil
			}
		}
		return fmt.Errorf("no Event with the remedy on the agent's pod")
	})
}
