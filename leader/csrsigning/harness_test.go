package csrsigning_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	certsv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/csrapproval"
	"github.com/chandler-k8s/chandler/leader/csrsigning"
	"github.com/chandler-k8s/chandler/leader/scrapercsr"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
	"github.com/chandler-k8s/chandler/test/term"
)

const (
	patience = time.Minute
	node     = "node-a.example"
	home     = fixtures.Namespace
)

// world is a control plane with the manifests of deploy/ for our own signer.
type world struct {
	*cluster.Cluster
	admin kubernetes.Interface
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{Cluster: cluster.ForTest(t, cluster.Options{})}
	w.admin = kubernetes.NewForConfigOrDie(w.Admin())
	expect.OK(t, fixtures.Deploy(t.Context(), w.Cluster))
	expect.OK(t, w.ApplyFiles(t.Context(), filepath.Join(fixtures.Root(), "deploy", "optional", "csrsigning.yaml")))
	own := rules()
	own.Namespace = home
	policies, err := scrapercsr.Policies(own)
	expect.OK(t, err)
	expect.OK(t, w.Apply(t.Context(), policies))
	agent := w.agent(t, node)
	eventually(t, func() error { // until the policies are in force
		stray := draft(t, node)
		stray.Spec.SignerName = fixtures.ScraperSigner
		_, err := agent.CertificatesV1().CertificateSigningRequests().Create(t.Context(), stray, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if !apierrors.IsForbidden(err) {
			return fmt.Errorf("a request to the standard signer: got %w, want it refused", err)
		}
		_, err = agent.CertificatesV1().CertificateSigningRequests().Create(t.Context(), draft(t, node), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	})
	return w
}

func rules() scrapercsr.Rules {
	return scrapercsr.Rules{
		CommonName: fixtures.ScraperCommonName, SignerName: scrapercsr.OwnSigner, LongestLife: fixtures.ScraperSeconds * time.Second,
	}
}

func (w *world) pod(t testing.TB, name string) *rest.Config {
	t.Helper()
	expect.OK(t, fixtures.Node(t.Context(), w.Cluster, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	config, err := fixtures.AgentPod(t.Context(), w.Cluster, name)
	expect.OK(t, err)
	config.QPS = -1
	return config
}

func (w *world) agent(t testing.TB, name string) kubernetes.Interface {
	t.Helper()
	return kubernetes.NewForConfigOrDie(w.pod(t, name))
}

// leaderConfig has a leader's token, as an elected replica has.
func (w *world) leaderConfig(t testing.TB) *rest.Config {
	t.Helper()
	// The policy of the leader's token denies everybody while there is no Lease.
	leases := w.admin.CoordinationV1().Leases(home)
	_, err := leases.Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "chandler"}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	var config *rest.Config
	eventually(t, func() (err error) {
		config, err = w.AsServiceAccount(t.Context(), home, "chandler-leader")
		return err
	})
	config.QPS = -1
	return config
}

// lead runs a leader with both tasks of scraper certificates.
func (w *world) lead(t testing.TB, name string, change ...func(*csrsigning.Options)) *term.Term {
	t.Helper()
	return term.Lead(t, leader.Options{
		Config: w.pod(t, name), Namespace: home, Identity: fixtures.PodName(name), NodeName: name, LeaseDuration: 4 * time.Second,
	}, func(metrics prometheus.Registerer) func(leader.Term) ([]leader.Task, error) {
		approvals, err := csrapproval.NewMetrics(metrics)
		expect.OK(t, err)
		counters, err := csrsigning.NewMetrics(metrics)
		expect.OK(t, err)
		opts := csrsigning.Options{Rules: rules(), Metrics: counters}
		for _, c := range change {
			c(&opts)
		}
		return func(about leader.Term) ([]leader.Task, error) {
			approve, err := csrapproval.New(about, csrapproval.Options{Rules: rules(), Metrics: approvals})
			if err != nil {
				return nil, err
			}
			sign, err := csrsigning.New(about, opts)
			return []leader.Task{approve, sign}, err
		}
	})
}

// metric returns the sum of a metric's series.
func metric(t testing.TB, r *term.Term, name string) float64 {
	t.Helper()
	sum, _ := expect.Metric(t, r.Registry, name)
	return sum
}

func draft(t testing.TB, node string, changes ...func(*fixtures.Draft)) *certsv1.CertificateSigningRequest {
	t.Helper()
	request, _, err := fixtures.ScraperRequest(node, changes...)
	expect.OK(t, err)
	if request.Spec.SignerName == fixtures.ScraperSigner {
		request.Spec.SignerName = scrapercsr.OwnSigner
	}
	return request
}

func create(t testing.TB, client kubernetes.Interface, request *certsv1.CertificateSigningRequest) *certsv1.CertificateSigningRequest {
	t.Helper()
	stored, err := client.CertificatesV1().CertificateSigningRequests().Create(t.Context(), request, metav1.CreateOptions{})
	expect.OK(t, err)
	return stored
}

func (w *world) approve(t testing.TB, client kubernetes.Interface, request *certsv1.CertificateSigningRequest) *certsv1.CertificateSigningRequest {
	t.Helper()
	request = request.DeepCopy()
	request.Status.Conditions = []certsv1.CertificateSigningRequestCondition{{
		Type: certsv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "KubectlApprove", Message: "by hand",
	}}
	approved, err := client.CertificatesV1().CertificateSigningRequests().UpdateApproval(t.Context(), request.Name, request, metav1.UpdateOptions{})
	expect.OK(t, err)
	return approved
}

// certificate waits for that of a request.
func (w *world) certificate(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	var found *x509.Certificate
	eventually(t, func() error {
		request, err := w.admin.CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		block, rest := pem.Decode(request.Status.Certificate)
		if block == nil || len(rest) > 0 {
			return fmt.Errorf("request %s has no certificate: %v", name, request.Status.Conditions)
		}
		found, err = x509.ParseCertificate(block.Bytes)
		return err
	})
	return found
}

func (w *world) failure(t testing.TB, name string) string {
	t.Helper()
	reason := ""
	eventually(t, func() error {
		request, err := w.admin.CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range request.Status.Conditions {
			if c.Type == certsv1.CertificateFailed {
				reason = c.Reason
				return nil
			}
		}
		return fmt.Errorf("request %s has not failed: %v", name, request.Status.Conditions)
	})
	return reason
}

// bundle is what targets have been given, nil if nothing.
func (w *world) bundle(t testing.TB) []byte {
	t.Helper()
	found, err := w.admin.CoreV1().ConfigMaps(home).Get(t.Context(), csrsigning.ObjectName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	expect.OK(t, err)
	return []byte(found.Data["ca.crt"])
}

// trusted reports whether a target with this bundle lets a certificate in.
func trusted(bundle []byte, certificate *x509.Certificate) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return errors.New("the bundle is empty")
	}
	_, err := certificate.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}

func eventually(t testing.TB, check func() error) {
	t.Helper()
	expect.Within(t, patience, check)
}
