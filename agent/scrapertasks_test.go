package agent_test

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/agent"
	"github.com/chandler-k8s/chandler/config"
	"github.com/chandler-k8s/chandler/leader/csrsigning"
	"github.com/chandler-k8s/chandler/leader/scrapercsr"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// TestLeaderSigns runs an agent as leader, with our own signer and under the
// policies that are printed for it.
func TestLeaderSigns(t *testing.T) {
	c := controlPlane(t)
	cfg := config.Default()
	cfg.Scraper.SignerName = config.SignerChandler
	policies, err := agent.AdmissionPolicies(cfg)
	expect.OK(t, err)
	expect.OK(t, c.Apply(t.Context(), policies))
	expect.OK(t, c.ApplyFiles(t.Context(), filepath.Join(fixtures.Root(), "deploy", "optional", "csrsigning.yaml")))
	own := kubernetes.NewForConfigOrDie(agentPod(t, c, fixtures.OpenShiftNode)).CertificatesV1().CertificateSigningRequests()
	request, _, err := fixtures.ScraperRequest(fixtures.OpenShiftNode, func(d *fixtures.Draft) { d.Object.Spec.SignerName = config.SignerChandler })
	expect.OK(t, err)
	name := ""
	eventually(t, func() (bool, string) { // until the policies are in force
		stored, err := own.Create(t.Context(), request, metav1.CreateOptions{})
		if err != nil {
			return false, err.Error()
		}
		name = stored.Name
		return true, ""
	})
	b := newBench(t, agentPod(t, c, fixtures.EKSNode))
	b.leader = "leader: {podLogs: {enabled: false}, pullSecrets: {enabled: false}}"
	b.scraper = fmt.Sprintf(`scraper: {signerName: %s, files: {mode: "0440", uid: %d, gid: %d}}`, config.SignerChandler, os.Getuid(), os.Getgid())
	b.configure("")
	b.start(fixtures.EKSNode)
	eventually(t, func() (bool, string) {
		found, err := own.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		return len(found.Status.Certificate) > 0, "no certificate yet"
	})
	if b.logged("permission missing") {
		t.Error("the leader lacks permissions for its tasks")
	}
	testScrapesItself(t, b, c)
}

// testScrapesItself: a certificate of our own signer opens our own /metrics once the
// CA of that signer is in serving.clientCAFile, and not before.
func testScrapesItself(t *testing.T, b *bench, c *cluster.Cluster) {
	b.awaitStatus("/readyz", 200)
	set := filepath.Join(b.hostDir, "scraper")
	scraper, err := tls.LoadX509KeyPair(filepath.Join(set, "tls.crt"), filepath.Join(set, "tls.key"))
	expect.OK(t, err)
	if body, err := b.metricsAs(scraper); err == nil {
		t.Errorf("got %d bytes of metrics, want the certificate of an unknown CA refused", len(body))
	}
	admin, err := kubernetes.NewForConfig(c.Admin())
	expect.OK(t, err)
	bundle, err := admin.CoreV1().ConfigMaps(fixtures.Namespace).Get(t.Context(), csrsigning.ObjectName, metav1.GetOptions{})
	expect.OK(t, err)
	b.replace(filepath.Join(b.hostDir, "..", "clients.crt"), bundle.Data["ca.crt"])
	body, err := b.metricsAs(scraper)
	expect.OK(t, err)
	if !strings.Contains(body, "chandler_leader 1") {
		t.Errorf("got other metrics than the leader's:\n%s", body)
	}
}

// TestSignerNames: package scrapercsr may not import config, and names it itself.
func TestSignerNames(t *testing.T) {
	if scrapercsr.OwnSigner != config.SignerChandler {
		t.Errorf("got %q and %q, want the same", scrapercsr.OwnSigner, config.SignerChandler)
	}
	if config.Default().Scraper.SignerName != fixtures.ScraperSigner || config.Default().Scraper.CommonName != fixtures.ScraperCommonName {
		t.Error("the fixtures' scraper is not the default configuration's")
	}
}
