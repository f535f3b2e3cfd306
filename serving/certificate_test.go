package serving

import (
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestSelfMadeIsRotated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &selfMade{nodeName: "worker-3", metrics: newMetrics(prometheus.NewRegistry())}
		handshake := func() string {
			pair, err := s.get(nil)
			if err != nil {
				t.Fatal(err)
			}
			if left := time.Until(pair.Leaf.NotAfter); left < selfMadeLife/5 {
				t.Errorf("got a certificate with %s left, want %s at least", left, selfMadeLife/5)
			}
			return pair.Leaf.SerialNumber.String()
		}
		first := handshake()
		time.Sleep(selfMadeLife/5*4 - time.Minute)
		if handshake() != first {
			t.Error("it was made anew before four fifths of its life")
		}
		time.Sleep(2 * time.Minute)
		if handshake() == first {
			t.Error("it was not made anew after four fifths of its life")
		}
	})
}

// TestPoolIsNobodyElses: requests that come together share what was read, and
// change none of it.
func TestPoolIsNobodyElses(t *testing.T) {
	var one, bundle []byte
	for range 3 { // the slice that holds three has room for a fourth
		pair, err := makeCertificate("worker-3", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		one = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
		bundle = append(bundle, one...)
	}
	path := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(path, bundle, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRoots(Clients{CAFile: path}, newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	if err := r.accept(one); err != nil {
		t.Fatal(err)
	}
	var requests sync.WaitGroup
	for range 8 {
		requests.Go(func() { r.pool() })
	}
	requests.Wait()
}
