package csrapproval_test

import (
	"errors"
	"fmt"
	"strings"
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
	"github.com/chandler-k8s/chandler/leader/scrapercsr"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
	"github.com/chandler-k8s/chandler/test/term"
)

const (
	patience   = time.Minute
	leaderNode = "node-leader"
	node       = "node-a.example"
)

// world is a control plane with exactly the manifests of deploy/base, and agents.
type world struct {
	*cluster.Cluster
	admin kubernetes.Interface
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return start(t, cluster.Options{})
}

func start(t testing.TB, options cluster.Options) *world {
	t.Helper()
	w := &world{Cluster: cluster.ForTest(t, options)}
	w.admin = kubernetes.NewForConfigOrDie(w.Admin())
	expect.OK(t, fixtures.Deploy(t.Context(), w.Cluster))
	agent := w.agent(t, node)
	eventually(t, func() error { // until the policies are in force
		request := honest(t, node)
		request.Spec.SignerName = "example.com/any"
		_, err := agent.CertificatesV1().CertificateSigningRequests().Create(t.Context(), request, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if !apierrors.IsForbidden(err) {
			return fmt.Errorf("a stray request: got %w, want it refused", err)
		}
		return nil
	})
	return w
}

// pod makes sure that a node and its agent's pod exist, and returns the rights of
// the pod.
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

// thief holds a leader's token, as an elected replica has.
func (w *world) thief(t testing.TB) kubernetes.Interface {
	t.Helper()
	// The policy of the leader's token denies everybody while there is no Lease.
	_, err := w.admin.CoordinationV1().Leases(fixtures.Namespace).Create(t.Context(),
		&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "chandler"}}, metav1.CreateOptions{})
	expect.OK(t, err)
	var config *rest.Config
	eventually(t, func() (err error) {
		config, err = w.AsServiceAccount(t.Context(), fixtures.Namespace, "chandler-leader")
		return err
	})
	expect.OK(t, w.admin.CoordinationV1().Leases(fixtures.Namespace).Delete(t.Context(), "chandler", metav1.DeleteOptions{}))
	config.QPS = -1
	return kubernetes.NewForConfigOrDie(config)
}

// lead runs a leader with the rights of an agent's pod.
func (w *world) lead(t testing.TB) *term.Term {
	t.Helper()
	return term.Lead(t, leader.Options{
		Config: w.pod(t, leaderNode), Namespace: fixtures.Namespace, Identity: fixtures.PodName(leaderNode), NodeName: leaderNode,
	}, func(metrics prometheus.Registerer) func(leader.Term) ([]leader.Task, error) {
		counters, err := csrapproval.NewMetrics(metrics)
		expect.OK(t, err)
		return func(about leader.Term) ([]leader.Task, error) {
			task, err := csrapproval.New(about, csrapproval.Options{Rules: rules(), Metrics: counters})
			return []leader.Task{task}, err
		}
	})
}

func rules() scrapercsr.Rules {
	return scrapercsr.Rules{
		CommonName: fixtures.ScraperCommonName, SignerName: fixtures.ScraperSigner,
		LongestLife: fixtures.ScraperSeconds * time.Second,
	}
}

func honest(t testing.TB, node string) *certsv1.CertificateSigningRequest {
	t.Helper()
	request, _, err := fixtures.ScraperRequest(node)
	expect.OK(t, err)
	return request
}

// create makes a request and returns it as stored.
func create(t testing.TB, client kubernetes.Interface, request *certsv1.CertificateSigningRequest) *certsv1.CertificateSigningRequest {
	t.Helper()
	stored, err := client.CertificatesV1().CertificateSigningRequests().Create(t.Context(), request, metav1.CreateOptions{})
	expect.OK(t, err)
	return stored
}

// condition waits for a condition of a request.
func (w *world) condition(t testing.TB, name string, kind certsv1.RequestConditionType) certsv1.CertificateSigningRequestCondition {
	t.Helper()
	var found certsv1.CertificateSigningRequestCondition
	eventually(t, func() error {
		request, err := w.admin.CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range request.Status.Conditions {
			if c.Type == kind {
				found = c
				return nil
			}
		}
		return fmt.Errorf("request %s is not %s: %v", name, kind, request.Status.Conditions)
	})
	return found
}

// awaitDecisions waits until the leader has nothing more to decide.
func (w *world) awaitDecisions(t testing.TB) {
	t.Helper()
	eventually(t, func() error {
		all, err := w.admin.CertificatesV1().CertificateSigningRequests().List(t.Context(), metav1.ListOptions{FieldSelector: "spec.signerName=" + fixtures.ScraperSigner})
		if err != nil {
			return err
		}
		for i := range all.Items {
			if r := &all.Items[i]; strings.HasSuffix(r.Spec.Username, ":chandler-agent") && len(r.Status.Conditions) == 0 {
				return fmt.Errorf("request %s is not decided", r.Name)
			}
		}
		return nil
	})
}

// certificate waits for that of a request.
func (w *world) certificate(t testing.TB, name string) []byte {
	t.Helper()
	var found []byte
	eventually(t, func() error {
		request, err := w.admin.CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
		if err == nil && len(request.Status.Certificate) == 0 {
			err = errors.New("no certificate yet")
		}
		if err == nil {
			found = request.Status.Certificate
		}
		return err
	})
	return found
}

func eventually(t testing.TB, check func() error) {
	t.Helper()
	expect.Within(t, patience, check)
}
