package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/node/scrapercert"
	"github.com/chandler-k8s/chandler/test/expect"
)

const scraperName = "system:serviceaccount:monitoring:prometheus"

// scraperSet is what an earlier run has published.
func scraperSet(t *testing.T, commonName string, notAfter time.Time) []hostfiles.File {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: commonName}, DNSNames: []string{"worker-3"},
		NotBefore: notAfter.Add(-time.Hour), NotAfter: notAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	var files []hostfiles.File
	for name, data := range map[string][]byte{
		"tls.crt": certificate, "tls.key": keyPEM, "tls.pem": append(append([]byte(nil), certificate...), keyPEM...), "ca.crt": certificate,
	} {
		files = append(files, hostfiles.File{Name: name, Mode: 0o440, UID: -1, GID: -1, Data: data})
	}
	return files
}

// newTestScraper has what an earlier run published, and asks nobody.
func newTestScraper(t *testing.T) *scrapercert.Renewer {
	return scrapercert.New(scrapercert.Options{
		Client: fake.NewClientset(), NodeName: "worker-3", CommonName: scraperName,
		Trust: scrapercert.Trust{ClusterCAFile: filepath.Join(t.TempDir(), "absent")}, Mode: 0o440, UID: -1, GID: -1,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
}

// TestScraperSetExpires while the agent runs and gets no other certificate.
func TestScraperSetExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, path := newTestNode(t, known)
		n.Scraper = newTestScraper(t)
		_, err := n.Dir.Publish("scraper", scraperSet(t, scraperName, time.Now().Add(time.Hour)))
		expect.OK(t, err)
		n.inspect()
		time.Sleep(time.Second) // generations are named after the time
		n.mustPass(t)
		n.wantReady(t, "with a certificate")
		time.Sleep(time.Hour + time.Second)
		n.mustPass(t)
		n.wantReady(t, "just expired")
		time.Sleep(grace)
		n.mustPass(t)
		n.wantReady(t, "expired for long", "set scraper", "expired")
		if _, err := os.Stat(filepath.Join(path, "scraper", "tls.key")); err != nil {
			t.Errorf("the expired certificate: %v, want it to stay", err)
		}
	})
}

// TestScraperSetOfAnEarlierRun: what stays, what goes, and what readiness says of it.
func TestScraperSetOfAnEarlierRun(t *testing.T) {
	soon, past := time.Now().Add(time.Hour), time.Now().Add(-time.Minute)
	for name, tt := range map[string]struct {
		commonName  string
		notAfter    time.Time
		stays, good bool
	}{
		"good":                         {scraperName, soon, true, true},
		"expired":                      {scraperName, past, true, false},
		"of another name":              {"somebody", soon, true, false},
		"of another name, and expired": {"somebody", past, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			n, path := newTestNode(t, known)
			n.Scraper = newTestScraper(t)
			if _, err := n.Dir.Publish("scraper", scraperSet(t, tt.commonName, tt.notAfter)); err != nil {
				t.Fatal(err)
			}
			n.inspect()
			if err := n.pass(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(path, "scraper", "tls.key")); (err == nil) != tt.stays {
				t.Errorf("the set after a pass: got %v, want it there: %t", err, tt.stays)
			}
			err := n.Ready()
			if (err == nil) != tt.good || err != nil && !strings.Contains(err.Error(), "set scraper") {
				t.Errorf("readiness: got %v, want ready: %t", err, tt.good)
			}
			if _, err := os.Stat(filepath.Join(path, "cluster", "CLUSTERID")); err != nil {
				t.Errorf("another set: %v", err)
			}
		})
	}
}
