package scrapercert_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	certsv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/node"
	"github.com/chandler-k8s/chandler/node/identity"
	"github.com/chandler-k8s/chandler/node/scrapercert"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

const (
	commonName = "system:serviceaccount:openshift-monitoring:prometheus-k8s"
	ownSigner  = "chandler.dev/scraper-client"
	// patience bounds every wait, for the sake of slow machines.
	patience = time.Minute
)

// listKinds is what the fake dynamic client has to know of OpenShift's Machines.
var listKinds = map[schema.GroupVersionResource]string{
	{Group: "machine.openshift.io", Version: "v1beta1", Resource: "machines"}: "MachineList",
}

// world is one control plane with what deploy/ ships.
type world struct {
	*cluster.Cluster
	admin kubernetes.Interface
}

func newWorld(t *testing.T) *world {
	t.Helper()
	c := cluster.ForTest(t, cluster.Options{})
	expect.OK(t, fixtures.Deploy(t.Context(), c))
	admin, err := kubernetes.NewForConfig(c.Admin())
	expect.OK(t, err)
	return &world{c, admin}
}

// scene is one node and what it takes to run the node half on it, again and again.
type scene struct {
	*world
	t       *testing.T
	node    string
	token   *rest.Config
	hostDir string
	options scrapercert.Options
	logs    expect.Log
	reg     *prometheus.Registry // of the last start
}

func (w *world) newScene(t *testing.T, node string) *scene {
	t.Helper()
	expect.OK(t, fixtures.Node(t.Context(), w.Cluster, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}))
	token, err := fixtures.AgentPod(t.Context(), w.Cluster, node)
	expect.OK(t, err)
	client, err := kubernetes.NewForConfig(token)
	expect.OK(t, err)
	return &scene{
		world: w, t: t, node: node, token: token, hostDir: filepath.Join(t.TempDir(), "host"),
		options: scrapercert.Options{
			Client: client, NodeName: node, CommonName: commonName, OwnSigner: ownSigner,
			SignerName: certsv1.KubeAPIServerClientSignerName, Duration: time.Hour, Patience: time.Second,
			Trust: scrapercert.Trust{ClusterCA: token.CAData}, Mode: 0o440, UID: os.Getuid(), GID: os.Getgid(),
		},
	}
}

// start runs the node half; stop ends it.
func (s *scene) start() (n *node.Node, stop func()) {
	s.t.Helper()
	dir, err := hostfiles.Open(s.hostDir)
	expect.OK(s.t, err)
	log := slog.New(slog.NewTextHandler(&s.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.reg = prometheus.NewRegistry()
	o := s.options
	o.Log, o.Metrics = log, s.reg
	// Who the node is comes from a fake, so that every request seen is for a certificate.
	resolver := identity.New(identity.Options{
		Core: fake.NewClientset(), Dynamic: dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), listKinds), ClusterID: "test", Log: log, Metrics: prometheus.NewRegistry(),
	})
	n = node.New(node.Options{Dir: dir, Identity: resolver, Scraper: scrapercert.New(o), Log: log, Metrics: s.reg})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("node: %v", err)
		}
		expect.OK(s.t, dir.Close())
	})
	s.t.Cleanup(func() {
		stop()
		if s.t.Failed() {
			s.t.Logf("log:\n%s", s.logs.String())
		}
	})
	return n, stop
}

// requests lists what the node has asked for.
func (s *scene) requests() []certsv1.CertificateSigningRequest {
	s.t.Helper()
	list, err := s.admin.CertificatesV1().CertificateSigningRequests().
		List(context.Background(), metav1.ListOptions{LabelSelector: scrapercert.LabelNode + "=" + s.node})
	expect.OK(s.t, err)
	return list.Items
}

// judge decides about every undecided request of the node until the test ends.
func (s *scene) judge(verdict certsv1.RequestConditionType) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			s.judgeOnce(ctx, verdict)
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}()
	s.t.Cleanup(func() { cancel(); <-ended })
}

func (s *scene) judgeOnce(ctx context.Context, verdict certsv1.RequestConditionType) {
	client := s.admin.CertificatesV1().CertificateSigningRequests()
	list, err := client.List(ctx, metav1.ListOptions{LabelSelector: scrapercert.LabelNode + "=" + s.node})
	if err != nil {
		return // the API server may be down on purpose
	}
	for i := range list.Items {
		c := &list.Items[i]
		if len(c.Status.Conditions) > 0 {
			continue
		}
		c.Status.Conditions = []certsv1.CertificateSigningRequestCondition{{
			Type: verdict, Status: corev1.ConditionTrue, Reason: "TestVerdict", Message: "by the test",
		}}
		if verdict == certsv1.CertificateFailed {
			_, err = client.UpdateStatus(ctx, c, metav1.UpdateOptions{})
		} else {
			_, err = client.UpdateApproval(ctx, c.Name, c, metav1.UpdateOptions{})
		}
		if err != nil && ctx.Err() == nil {
			s.t.Logf("judge %s: %v", c.Name, err)
		}
	}
}

func (s *scene) read(name string) []byte {
	data, err := os.ReadFile(filepath.Join(s.hostDir, "scraper", name))
	if err != nil {
		return nil
	}
	return data
}

// leaf is the published certificate, nil while there is none.
func (s *scene) leaf() *x509.Certificate {
	s.t.Helper()
	block, _ := pem.Decode(s.read(scrapercert.FileCert))
	if block == nil {
		return nil
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	expect.OK(s.t, err)
	return leaf
}

// await waits for a certificate other than those given, and returns it.
func (s *scene) await(others ...*x509.Certificate) *x509.Certificate {
	s.t.Helper()
	var leaf *x509.Certificate
	eventually(s.t, func() (bool, string) {
		if leaf = s.leaf(); leaf == nil {
			return false, "no certificate"
		}
		for _, o := range others {
			if o.Equal(leaf) {
				return false, "the certificate is still the one before"
			}
		}
		return true, ""
	})
	return leaf
}

func (s *scene) awaitLog(parts ...string) {
	s.t.Helper()
	eventually(s.t, func() (bool, string) {
		for line := range strings.Lines(s.logs.String()) {
			found := true
			for _, p := range parts {
				found = found && strings.Contains(line, p)
			}
			if found {
				return true, ""
			}
		}
		return false, fmt.Sprintf("no line of the log with %q", parts)
	})
}

// metric is a metric's value, with a label name=value if that is given.
func metric(t *testing.T, reg *prometheus.Registry, name string, label ...string) float64 {
	t.Helper()
	value, found := expect.Metric(t, reg, name, label...)
	if !found {
		t.Fatalf("no metric %s%v", name, label)
	}
	return value
}

// count is how often a result was counted.
func (s *scene) count(result string) float64 {
	s.t.Helper()
	return metric(s.t, s.reg, "chandler_scraper_results_total", "result="+result)
}

// awaitPass waits until the set was found or made right by the last start.
func (s *scene) awaitPass() {
	s.t.Helper()
	eventually(s.t, func() (bool, string) {
		return metric(s.t, s.reg, "chandler_set_last_success_timestamp_seconds", "set=scraper") > 0, "no pass of the set yet"
	})
}

func (s *scene) wantMetric(name string, want float64) {
	s.t.Helper()
	if got := metric(s.t, s.reg, name); got != want {
		s.t.Errorf("%s: got %v, want %v", name, got, want)
	}
}

func eventually(t testing.TB, done func() (bool, string)) {
	t.Helper()
	expect.Done(t, patience, done)
}
