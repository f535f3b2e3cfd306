package scrape

import (
	"bytes"
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"

	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/pki"
)

// rotations is how often a set is replaced under its readers.
const rotations = 1000

// TestReadersDuringRotations reads as fast as it can while a set is replaced: the
// one file with both always matches, and two opens one after the other nearly so.
func TestReadersDuringRotations(t *testing.T) {
	ca, err := pki.NewAuthority("clients")
	expect.OK(t, err)
	var pairs []*pki.Pair
	for range 16 {
		pair, err := ca.Client("scraper")
		expect.OK(t, err)
		pairs = append(pairs, pair)
	}
	path := t.TempDir()
	dir, err := hostfiles.Open(path)
	expect.OK(t, err)
	defer dir.Close()
	publish := func(i int) {
		pair := pairs[i%len(pairs)]
		_, err := dir.Publish("scraper", []hostfiles.File{
			{Name: "tls.crt", Mode: 0o444, UID: -1, GID: -1, Data: pair.CertPEM},
			{Name: "tls.key", Mode: 0o440, UID: -1, GID: -1, Data: pair.KeyPEM},
			{Name: "tls.pem", Mode: 0o440, UID: -1, GID: -1, Data: append(bytes.Clone(pair.CertPEM), pair.KeyPEM...)},
			{Name: "ca.crt", Mode: 0o444, UID: -1, GID: -1, Data: ca.CertPEM},
		})
		expect.OK(t, err)
	}
	publish(0)
	stop, read, ended := make(chan struct{}), make(chan struct{}), make(chan readings, 1)
	go func() { ended <- readPairs(t, filepath.Join(path, "scraper"), read, stop) }()
	for i := range rotations {
		<-read // at least once between two rotations, on disks of any speed
		publish(i + 1)
	}
	close(stop)
	r := <-ended
	t.Logf("%d rotations, %d readings: %d of tls.crt and tls.key by two opens did not match (%.4f %%), of tls.pem none",
		rotations, r.all, r.mismatched, 100*float64(r.mismatched)/float64(r.all))
}

type readings struct{ all, mismatched int }

// readPairs reads until stop is closed, and offers to tell of each reading that has
// begun. A tls.pem that does not match fails the test; so does a file that is missing.
func readPairs(t *testing.T, set string, begun chan<- struct{}, stop <-chan struct{}) (r readings) {
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(set, name))
		if err != nil {
			t.Errorf("read: %v", err)
		}
		return data
	}
	for {
		select {
		case <-stop:
			return r
		case begun <- struct{}{}:
		default:
		}
		r.all++
		certificate, key := read("tls.crt"), read("tls.key")
		if _, err := tls.X509KeyPair(certificate, key); err != nil {
			r.mismatched++
		}
		both := read("tls.pem")
		if _, err := tls.X509KeyPair(both, both); err != nil {
			t.Errorf("tls.pem: %v", err)
			return r
		}
	}
}
