package serving_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"testing"
	"time"

	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/pki"
)

const scraper = "system:serviceaccount:openshift-monitoring:prometheus-k8s"

func newAuthority(t testing.TB) *pki.Pair {
	t.Helper()
	ca, err := pki.NewAuthority("test CA")
	expect.OK(t, err)
	return ca
}

// issue makes a client certificate of the scraper that lasts an hour, as altered.
func issue(t testing.TB, ca *pki.Pair, alter func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: scraper}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	if alter != nil {
		alter(template)
	}
	pair, err := ca.Issue(template)
	expect.OK(t, err)
	return pair.TLS()
}

func replace(t testing.TB, path string, data []byte) {
	t.Helper()
	expect.OK(t, os.WriteFile(path+".new", data, 0o600))
	expect.OK(t, os.Rename(path+".new", path))
}
