package agent_test

import (
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/agent"
	"github.com/chandler-k8s/chandler/config"
	"github.com/chandler-k8s/chandler/leader/scrapercsr"
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
	b.configure("")
	b.replace(b.configFile, strings.Replace(b.file("../etc/config.yaml"), "scraper: {enabled: false}", "scraper: {signerName: "+config.SignerChandler+"}", 1))
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
