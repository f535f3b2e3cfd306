package serving_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	certsv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/certificate/csr"

	"github.com/chandler-k8s/chandler/serving"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// patience bounds every wait, for the sake of slow machines.
const patience = time.Minute

// TestAgainstTheCluster verifies clients by the cluster's own CA, and tokens by its
// reviews, under the rights that deploy/ ships.
func TestAgainstTheCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane")
	}
	c := cluster.ForTest(t, cluster.Options{})
	expect.OK(t, fixtures.Deploy(t.Context(), c))
	expect.OK(t, fixtures.Apply(t.Context(), c, "eks"))
	config, err := fixtures.AgentPod(t.Context(), c, fixtures.EKSNode)
	expect.OK(t, err)
	agent, err := kubernetes.NewForConfig(config)
	expect.OK(t, err)
	admin, err := kubernetes.NewForConfig(c.Admin())
	expect.OK(t, err)

	t.Run("tokens", func(t *testing.T) { testTokens(t, c, admin, agent) })
	t.Run("certificates, API server up and down", func(t *testing.T) { testClusterCA(t, c, admin, agent) })
}

func testClusterCA(t *testing.T, c *cluster.Cluster, admin, agent kubernetes.Interface) {
	scraper := client(t, showing(clusterCertificate(t, admin)))
	stored := &keeper{}
	s := start(t, serving.Options{Clients: serving.Clients{Cluster: agent, Kept: stored}})
	s.await(t, scraper, http.StatusOK)
	mark, err := c.Mark()
	expect.OK(t, err)
	for range 50 {
		if status, body, _ := s.scrape(t, scraper, ""); status != http.StatusOK {
			t.Fatalf("got %d %q", status, body)
		}
	}
	requests, err := c.Requests(mark)
	expect.OK(t, err)
	if got := requests.Where(cluster.User(cluster.ServiceAccountUser(fixtures.Namespace, fixtures.ServiceAccount))).Total(); got != 0 {
		t.Errorf("50 scrapes: got %d requests to the API server, want none", got)
	}

	c.StopAPIServer()
	s.await(t, scraper, http.StatusOK)
	restarted := start(t, serving.Options{Clients: serving.Clients{Cluster: agent, Kept: stored}})
	if status, body, _ := restarted.scrape(t, scraper, ""); status != http.StatusOK {
		t.Errorf("started without the API server: got %d %q, want the kept CA to serve", status, body)
	}
	fresh := start(t, serving.Options{Clients: serving.Clients{Cluster: agent, Kept: &keeper{}}})
	if status, _, _ := fresh.scrape(t, scraper, ""); status != http.StatusUnauthorized {
		t.Errorf("no CA is known: got %d, want 401", status)
	}
	expect.OK(t, c.StartAPIServer(t.Context()))
	fresh.await(t, scraper, http.StatusOK)
}

func testTokens(t *testing.T, c *cluster.Cluster, admin, agent kubernetes.Interface) {
	for _, name := range []string{"listed", "reader", "nobody"} {
		_, err := admin.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		expect.OK(t, err)
	}
	expect.OK(t, c.Apply(t.Context(), []byte(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: metrics-reader}
rules: [{nonResourceURLs: [/metrics], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: metrics-reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: metrics-reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: default}]
`)))
	s := start(t, serving.Options{Clients: serving.Clients{
		Users: []string{cluster.ServiceAccountUser("default", "listed")}, Delegation: agent,
	}})
	bare := client(t, showing(tls.Certificate{}))
	token := func(name string) string {
		config, err := c.AsServiceAccount(t.Context(), "default", name)
		expect.OK(t, err)
		return config.BearerToken
	}
	if status, _, _ := s.scrape(t, bare, token("reader")); status != http.StatusServiceUnavailable {
		t.Errorf("without deploy/optional/delegation.yaml: got %d, want 503", status)
	}
	expect.OK(t, c.ApplyFiles(t.Context(), filepath.Join(fixtures.Root(), "deploy", "optional", "delegation.yaml")))
	reader := token("reader")
	eventually(t, func() (bool, string) { // the authorizer learns of the rights in a moment
		status, body, _ := s.scrape(t, bare, reader)
		return status == http.StatusOK, body
	})
	for name, want := range map[string]int{"listed": http.StatusOK, "nobody": http.StatusForbidden} {
		if status, body, _ := s.scrape(t, bare, token(name)); status != want {
			t.Errorf("token of %s: got %d %q, want %d", name, status, body, want)
		}
	}
	for range 2 { // the second answer is remembered
		if status, body, _ := s.scrape(t, bare, "garbage"); status != http.StatusUnauthorized {
			t.Errorf("a token of nobody: got %d %q, want 401", status, body)
		}
	}
	mark, err := c.Mark()
	expect.OK(t, err)
	for range 20 {
		s.scrape(t, bare, reader)
	}
	requests, err := c.Requests(mark)
	expect.OK(t, err)
	if got := requests.Where(cluster.User(cluster.ServiceAccountUser(fixtures.Namespace, fixtures.ServiceAccount))).Total(); got != 0 {
		t.Errorf("20 scrapes by a token that is known: got %d reviews, want none", got)
	}
	if strings.Contains(s.logs.String(), reader) {
		t.Error("a token is in the log at debug level")
	}
	testTokenFlood(t, s, token)
}

// testTokenFlood shows unknown tokens without a pause from one address, and a new
// valid one from another.
func testTokenFlood(t *testing.T, s *server, token func(name string) string) {
	fresh := token("reader")
	answered := floodWithTokens(t, s)
	total := func() (sum float64) {
		for _, n := range refusals(t, s.reg) {
			sum += n
		}
		return sum
	}
	before := total()
	eventually(t, func() (bool, string) { return total() > before+500, "the flood has not begun" })
	if status, body, _ := s.scrape(t, client(t, showing(tls.Certificate{})), fresh); status != http.StatusOK {
		t.Errorf("a new valid token, while another address shows unknown ones: got %d %q, want 200", status, body)
	}
	if _, found := answered.Load("429, Retry-After 1"); !found {
		t.Error("the flood was not asked to slow down: got no 429 with Retry-After")
	}
	if got := strings.Count(s.logs.String(), "came from "+flooder); got < 1 || got > 10 {
		t.Errorf("got %d warnings of hundreds of refused tokens, want one a minute", got)
	}
}

// floodWithTokens shows unknown tokens until the test ends, more at once than the
// API server answers in the time of a review. It collects which answers came.
func floodWithTokens(t *testing.T, s *server) (answered *sync.Map) {
	answered = &sync.Map{}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext:     (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(flooder)}}).DialContext,
	}
	ctx, stop := context.WithCancel(t.Context())
	var stopped sync.WaitGroup
	for range 100 {
		stopped.Go(func() {
			for ctx.Err() == nil {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.metrics+"/metrics", http.NoBody)
				if err != nil {
					return
				}
				req.Header.Set("Authorization", "Bearer "+rand.Text())
				if resp, err := transport.RoundTrip(req); err == nil { // else it was displaced by another of them
					answered.Store(fmt.Sprintf("%d, Retry-After %s", resp.StatusCode, resp.Header.Get("Retry-After")), true)
					resp.Body.Close()
				}
			}
		})
	}
	t.Cleanup(func() { stop(); stopped.Wait(); transport.CloseIdleConnections() })
	return answered
}

// clusterCertificate has the control plane sign a certificate of the scraper.
func clusterCertificate(t *testing.T, admin kubernetes.Interface) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	expect.OK(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: scraper}}, key)
	expect.OK(t, err)
	name, uid, err := csr.RequestCertificateWithContext(t.Context(), admin, pem.EncodeToMemory(&pem.Block{Type: certutil.CertificateRequestBlockType, Bytes: der}), "scraper",
		certsv1.KubeAPIServerClientSignerName, nil, []certsv1.KeyUsage{certsv1.UsageDigitalSignature, certsv1.UsageClientAuth}, key)
	expect.OK(t, err)
	request, err := admin.CertificatesV1().CertificateSigningRequests().Get(t.Context(), name, metav1.GetOptions{})
	expect.OK(t, err)
	request.Status.Conditions = []certsv1.CertificateSigningRequestCondition{{Type: certsv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test"}}
	_, err = admin.CertificatesV1().CertificateSigningRequests().UpdateApproval(t.Context(), name, request, metav1.UpdateOptions{})
	expect.OK(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	issued, err := csr.WaitForCertificate(ctx, admin, name, uid)
	expect.OK(t, err)
	block, _ := pem.Decode(issued)
	return tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
}

// await scrapes until the answer has a status.
func (s *server) await(t *testing.T, c *http.Client, want int) {
	t.Helper()
	eventually(t, func() (bool, string) {
		status, body, _ := s.scrape(t, c, "")
		return status == want, body
	})
}

func eventually(t testing.TB, done func() (bool, string)) {
	t.Helper()
	expect.Done(t, patience, done)
}

// keeper keeps a bundle in memory.
type keeper struct {
	mu     sync.Mutex
	bundle []byte
}

// Load implements serving.Keeper.
func (k *keeper) Load() ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.bundle == nil {
		return nil, fs.ErrNotExist
	}
	return k.bundle, nil
}

// Store implements serving.Keeper.
func (k *keeper) Store(bundle []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.bundle = bundle
	return nil
}
