package scrapercert_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certsv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/leader/scrapercsr"
	"github.com/chandler-k8s/chandler/node"
	"github.com/chandler-k8s/chandler/node/scrapercert"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// TestAgainstAPIServer runs the node half with the token of an agent's pod, under
// the rights of deploy/base, against a control plane that signs.
func TestAgainstAPIServer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane")
	}
	w := newWorld(t)
	for i, test := range []struct {
		name string
		run  func(*testing.T, *scene)
	}{
		{"issued", issued},
		{"restart without a new request", restart},
		{"rotation", rotation},
		{"orphan", orphan},
		{"another's request with our label", impostor},
		{"denied", denied},
		{"failed", failed},
		{"approved and never issued", neverIssued},
		{"never approved", neverApproved},
		{"request deleted", deleted},
		{"no rights", noRights},
		{"CA bundle", caBundle},
		{"a node with a long name", longName},
		{"API server down", apiServerDown},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, w.newScene(t, nodeName(i, test.name))) })
	}
}

func nodeName(i int, test string) string {
	if test == "a node with a long name" {
		return "ip-10-0-1-17." + strings.Repeat("x", 50) + ".compute.internal"
	}
	return "node-" + string(rune('a'+i))
}

func issued(t *testing.T, s *scene) {
	s.judge(certsv1.CertificateApproved)
	n, stop := s.start()
	leaf := s.await()
	if got, want := leaf.Subject.String(), "CN="+commonName; got != want {
		t.Errorf("subject: got %q, want %q", got, want)
	}
	if diff := cmp.Diff([]string{s.node}, leaf.DNSNames); diff != "" {
		t.Errorf("SANs (-want +got):\n%s", diff)
	}
	eventually(t, func() (bool, string) { err := n.Ready(); return err == nil, "not ready: " + errorText(err) })
	files, err := hostfiles.ReadSet(s.hostDir, "scraper")
	expect.OK(t, err)
	expect.OK(t, node.Check("scraper", files))
	got := map[string]string{}
	for _, f := range files {
		got[f.Name] = f.Mode.String()
	}
	want := map[string]string{"ca.crt": "-r--r--r--", "tls.crt": "-r--r--r--", "tls.key": "-r--r-----", "tls.pem": "-r--r-----"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files and their modes (-want +got):\n%s", diff)
	}
	// The pair opens the API server, and ca.crt verifies it: both are of the cluster's CA.
	client := s.withPair(t)
	who, err := client.Discovery().ServerVersion()
	if err != nil || who.Major != "1" {
		t.Errorf("the API server's answer to the pair: got %v, %v", who, err)
	}
	s.wantMetric("chandler_scraper_certificate_not_after_timestamp_seconds", float64(leaf.NotAfter.Unix()))
	s.wantMetric("chandler_scraper_rotations_total", 1)
	stop()
	made := s.requests()[0]
	if got, want := *made.Spec.ExpirationSeconds, int32(3600); got != want {
		t.Errorf("expirationSeconds: got %d, want %d", got, want)
	}
	if diff := cmp.Diff([]certsv1.KeyUsage{"digital signature", "client auth"}, made.Spec.Usages); diff != "" {
		t.Errorf("usages (-want +got):\n%s", diff)
	}
	key := s.read(scrapercert.FileKey)
	for _, line := range bytes.Split(bytes.TrimSpace(key), []byte("\n"))[1:] {
		if bytes.Contains([]byte(s.logs.String()), line) {
			t.Error("a line of the key is in the log at debug level")
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// withPair is a client of the API server that is nothing but the published files.
func (s *scene) withPair(t *testing.T) kubernetes.Interface {
	t.Helper()
	at := func(name string) string { return filepath.Join(s.hostDir, "scraper", name) }
	client, err := kubernetes.NewForConfig(&rest.Config{Host: s.token.Host, TLSClientConfig: rest.TLSClientConfig{
		CertFile: at(scrapercert.FileCert), KeyFile: at(scrapercert.FileKey), CAFile: at(scrapercert.FileCA),
	}})
	expect.OK(t, err)
	return client
}

func restart(t *testing.T, s *scene) {
	s.judge(certsv1.CertificateApproved)
	_, stop := s.start()
	first := s.await()
	stop()
	before, err := os.Readlink(filepath.Join(s.hostDir, "scraper", "..data"))
	expect.OK(t, err)
	n, stop := s.start()
	eventually(t, func() (bool, string) { err := n.Ready(); return err == nil, "not ready: " + errorText(err) })
	s.awaitPass()
	stop()
	after, err := os.Readlink(filepath.Join(s.hostDir, "scraper", "..data"))
	expect.OK(t, err)
	if !s.leaf().Equal(first) || before != after || len(s.requests()) != 1 {
		t.Errorf("after a restart: generation %s, then %s, %d requests; want nothing changed", before, after, len(s.requests()))
	}
	s.wantMetric("chandler_scraper_rotations_total", 0)
}

func rotation(t *testing.T, s *scene) {
	s.options.RenewAfter = time.Second
	s.judge(certsv1.CertificateApproved)
	s.start()
	seen := []*x509.Certificate{s.await()}
	for range 3 {
		seen = append(seen, s.await(seen...))
		pair := s.read(scrapercert.FilePair)
		if _, err := tls.X509KeyPair(pair, pair); err != nil {
			t.Errorf("tls.pem: %v", err)
		}
	}
	if got := s.count("issued"); got < 4 {
		t.Errorf("certificates counted: got %v, want 4 at least", got)
	}
}

// orphan: the process ends while its request is undecided, and the key with it.
func orphan(t *testing.T, s *scene) {
	_, stop := s.start()
	eventually(t, func() (bool, string) { return len(s.requests()) == 1, "no request" })
	stop()
	_, stop = s.start()
	s.awaitLog("waits for an earlier request", s.requests()[0].Name)
	stop()
	s.start()
	s.awaitLog("not approved")
	if got := len(s.requests()); got != 1 {
		t.Errorf("requests after two restarts: got %d, want 1", got)
	}
	s.judge(certsv1.CertificateApproved)
	s.await()
	if got := len(s.requests()); got != 2 {
		t.Errorf("requests once the orphan was decided: got %d, want 2", got)
	}
}

// impostor: anybody may set a label.
func impostor(t *testing.T, s *scene) {
	other := s.newScene(t, "neighbour")
	_, stop := other.start()
	eventually(t, func() (bool, string) { return len(other.requests()) == 1, "no request" })
	stop()
	c := other.requests()[0]
	c.Labels[scrapercert.LabelNode] = s.node
	_, err := s.admin.CertificatesV1().CertificateSigningRequests().Update(t.Context(), &c, metav1.UpdateOptions{})
	expect.OK(t, err)
	s.start()
	eventually(t, func() (bool, string) { return len(s.requests()) == 2, "it waits for a request of another node" })
	s.judge(certsv1.CertificateApproved)
	s.await()
}

func denied(t *testing.T, s *scene) {
	s.judge(certsv1.CertificateDenied)
	n, _ := s.start()
	s.awaitLog("level=ERROR", "scraper certificate denied", "result=denied", "TestVerdict", "by the test")
	eventually(t, func() (bool, string) {
		err := n.Ready() // it names the set "cluster" before the first pass
		return err != nil && strings.Contains(err.Error(), "denied"), "readiness does not say why: " + errorText(err)
	})
	if got := s.count("denied"); got != 1 {
		t.Errorf("counted: got %v, want 1: a denied request is not repeated at once", got)
	}
	if !errors.Is(s.problem(n), scrapercert.ErrDenied) {
		t.Errorf("problem: got %v, want ErrDenied", s.problem(n))
	}
}

func (s *scene) problem(n *node.Node) error { return n.Scraper.Problem() }

// ask makes the node ask another signer, and the policies of agents' requests those
// of a configuration with it.
func (s *scene) ask(signer string) {
	s.t.Helper()
	apply := func(signer string) {
		policies, err := scrapercsr.Policies(scrapercsr.Rules{
			Namespace: fixtures.Namespace, CommonName: commonName, SignerName: signer, LongestLife: 720 * time.Hour,
		})
		ctx := context.WithoutCancel(s.t.Context())
		expect.OK(s.t, errors.Join(err, s.Apply(ctx, policies)))
		eventually(s.t, func() (bool, string) { // the API server learns of policies in a moment
			request, _, err := fixtures.ScraperRequest(s.node, func(d *fixtures.Draft) { d.Object.Spec.SignerName = signer })
			expect.OK(s.t, err)
			_, err = s.options.Client.CertificatesV1().CertificateSigningRequests().Create(ctx, request,
				metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err == nil, fmt.Sprint(err)
		})
	}
	before := s.options.SignerName
	s.options.SignerName = signer
	apply(signer)
	s.t.Cleanup(func() { apply(before) })
}

func failed(t *testing.T, s *scene) {
	s.ask(ownSigner) // whom no controller here precedes
	s.judge(certsv1.CertificateFailed)
	n, _ := s.start()
	s.awaitLog("level=ERROR", "refused by its signer", "result=failed", "TestVerdict")
	if !errors.Is(s.problem(n), scrapercert.ErrFailed) {
		t.Errorf("problem: got %v, want ErrFailed", s.problem(n))
	}
}

// neverIssued: approved, for a signer that nobody serves here.
func neverIssued(t *testing.T, s *scene) {
	s.ask(ownSigner)
	s.options.OwnSigner = "example.com/signer" // to see it named
	s.judge(certsv1.CertificateApproved)
	n, _ := s.start()
	s.awaitLog("approved and not signed", "result=not_issued", "scraper.signerName: example.com/signer")
	if !errors.Is(s.problem(n), scrapercert.ErrNotIssued) {
		t.Errorf("problem: got %v, want ErrNotIssued", s.problem(n))
	}
	eventually(t, func() (bool, string) { return s.count("not_issued") > 1, "it is reported only once" })
	if got := len(s.requests()); got != 1 {
		t.Errorf("requests: got %d, want 1: another would fare no better", got)
	}
}

func neverApproved(t *testing.T, s *scene) {
	n, _ := s.start()
	s.awaitLog("not approved", "result=not_approved", "leader.enabled")
	if !errors.Is(s.problem(n), scrapercert.ErrNotApproved) {
		t.Errorf("problem: got %v, want ErrNotApproved", s.problem(n))
	}
	s.judge(certsv1.CertificateApproved) // and it is still waited for
	s.await()
	if got := len(s.requests()); got != 1 {
		t.Errorf("requests: got %d, want 1", got)
	}
	eventually(t, func() (bool, string) { err := n.Ready(); return err == nil, "not ready: " + errorText(err) })
}

func deleted(t *testing.T, s *scene) {
	s.start()
	eventually(t, func() (bool, string) { return len(s.requests()) == 1, "no request" })
	first := s.requests()[0].Name
	expect.OK(t, s.admin.CertificatesV1().CertificateSigningRequests().Delete(t.Context(), first, metav1.DeleteOptions{}))
	s.awaitLog("request deleted", "result=vanished", first)
	eventually(t, func() (bool, string) { return len(s.requests()) == 1, "no second request" })
	s.judge(certsv1.CertificateApproved)
	s.await()
}

func noRights(t *testing.T, s *scene) {
	plain, err := s.AsServiceAccount(t.Context(), "default", "default")
	expect.OK(t, err)
	s.options.Client, err = kubernetes.NewForConfig(plain)
	expect.OK(t, err)
	n, _ := s.start()
	s.awaitLog("level=ERROR", "may not be requested", "result=refused", "deploy/base/scrapercert.yaml", "forbidden")
	if !errors.Is(s.problem(n), scrapercert.ErrRefused) {
		t.Errorf("problem: got %v, want ErrRefused", s.problem(n))
	}
}

// caBundle: a bad file holds back the certificate only while there never was a good
// one.
func caBundle(t *testing.T, s *scene) {
	further := filepath.Join(t.TempDir(), "further.pem")
	s.options.Trust.CAFile = further
	s.options.RenewAfter = time.Second
	s.judge(certsv1.CertificateApproved)
	n, _ := s.start()
	s.awaitLog("set not published", "set=scraper", further)
	if err := n.Ready(); err == nil || !strings.Contains(err.Error(), "scraper") {
		t.Errorf("readiness: got %v, want the set named", err)
	}
	other := selfSigned(t, "further")
	expect.OK(t, os.WriteFile(further, append([]byte("# a comment\n"), other...), 0o600))
	s.await()
	eventually(t, func() (bool, string) {
		return bytes.Equal(s.read(scrapercert.FileCA), append(bytes.Clone(s.token.CAData), other...)), "ca.crt is not both bundles"
	})
	good := s.read(scrapercert.FileCA)
	key := append(bytes.Clone(other), s.read(scrapercert.FileKey)...) // a mistake that must not be published
	expect.OK(t, os.WriteFile(further, key, 0o600))
	s.awaitLog("CA bundle not read", "PRIVATE KEY")
	s.await(s.leaf()) // rotation goes on
	if got := s.read(scrapercert.FileCA); !bytes.Equal(got, good) {
		t.Errorf("ca.crt beside a bad file: got %q, want the last good one", got)
	}
	s.wantMetric("chandler_scraper_ca_bundle_successful", 0)
}

// longName: a node whose name is no label value has its requests found without.
func longName(t *testing.T, s *scene) {
	list := func() (found []certsv1.CertificateSigningRequest) {
		all, err := s.admin.CertificatesV1().CertificateSigningRequests().List(t.Context(), metav1.ListOptions{})
		expect.OK(t, err)
		for _, c := range all.Items {
			if claim := c.Spec.Extra["authentication.kubernetes.io/node-name"]; len(claim) == 1 && claim[0] == s.node {
				found = append(found, c)
			}
		}
		return found
	}
	_, stop := s.start()
	eventually(t, func() (bool, string) { return len(list()) == 1, "no request" })
	if labels := list()[0].Labels; len(labels) > 0 {
		t.Errorf("labels: got %v, want none", labels)
	}
	stop()
	s.start()
	s.awaitLog("waits for an earlier request", list()[0].Name)
}

func apiServerDown(t *testing.T, s *scene) {
	s.options.RenewAfter = time.Second
	s.judge(certsv1.CertificateApproved)
	_, stop := s.start()
	s.await()
	s.StopAPIServer()
	s.awaitLog("result=unreachable")
	last := s.leaf()
	stop()
	_, _ = s.start() // also an agent that starts without it has its certificate
	s.awaitPass()
	if !s.leaf().Equal(last) {
		t.Error("the certificate changed while the API server was down")
	}
	expect.OK(t, s.StartAPIServer(context.Background()))
	s.await(last)
}
