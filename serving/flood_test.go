package serving_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chandler-k8s/chandler/serving"
	"github.com/chandler-k8s/chandler/test/expect"
)

// flooder is an address of this machine that no scraper of the tests has.
const flooder = "127.0.0.2"

// idle opens a connection from the flooder, without a certificate where it is one of
// TLS, and sends no request.
func idle(t testing.TB, address string, secure bool) (net.Conn, error) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(flooder)}}
	if !secure {
		return dialer.DialContext(t.Context(), "tcp", address)
	}
	return (&tls.Dialer{NetDialer: dialer, Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", address)
}

// TestFloodOfConnections opens more idle connections than may be open, and goes on
// with that while others ask.
func TestFloodOfConnections(t *testing.T) {
	const flood, maxOpen = 400, 256
	ca := newAuthority(t)
	bundle := filepath.Join(t.TempDir(), "ca.crt")
	replace(t, bundle, ca.CertPEM)
	s := start(t, serving.Options{Clients: serving.Clients{CAFile: bundle}})
	pair := showing(issue(t, ca, nil))
	kept := client(t, pair)
	if status, body, _ := s.scrape(t, kept, ""); status != http.StatusOK {
		t.Fatalf("before the flood: got %d %q", status, body)
	}
	for server, address := range map[string]string{"metrics": s.metrics, "health": s.health} {
		before := served(t)
		for range flood {
			conn, err := idle(t, address, server == "metrics")
			if err == nil { // else it was displaced during the handshake
				t.Cleanup(func() { conn.Close() })
			}
		}
		if got := served(t) - before; got > maxOpen {
			t.Errorf("%s: got %d connections open, want at most %d", server, got, maxOpen)
		}
	}
	goOn(t, s)
	if status, body, reused := s.scrape(t, kept, ""); status != http.StatusOK || !reused {
		t.Errorf("a scraper from before the flood: got %d %q, reused %t, want its connection kept", status, body, reused)
	}
	for range 5 {
		if status, body, _ := s.scrape(t, client(t, pair), ""); status != http.StatusOK {
			t.Errorf("a new scraper: got %d %q", status, body)
		}
		resp, err := http.Get("http://" + s.health + "/healthz")
		expect.OK(t, err)
		expect.OK(t, resp.Body.Close())
		if resp.StatusCode != http.StatusOK || !resp.Close {
			t.Errorf("health: got %d, closed %t, want 200 and the connection closed", resp.StatusCode, resp.Close)
		}
	}
	if got, _ := expect.Metric(t, s.reg, "chandler_serving_displaced_connections_total", "server=metrics"); got < flood-maxOpen {
		t.Errorf("got %v displaced connections in the metrics, want %d at least", got, flood-maxOpen)
	}
}

// goOn keeps connecting to both addresses until the test ends, and leaves the last
// connections open.
func goOn(t *testing.T, s *server) {
	var stopped sync.WaitGroup
	stop := make(chan struct{})
	for server, address := range map[string]string{"metrics": s.metrics, "health": s.health} {
		stopped.Go(func() {
			var open [64]net.Conn
			for n := 0; ; n = (n + 1) % len(open) {
				if open[n] != nil {
					open[n].Close()
				}
				select {
				case <-stop:
					return
				default:
					open[n], _ = idle(t, address, server == "metrics")
				}
			}
		})
	}
	t.Cleanup(func() { close(stop); stopped.Wait() })
}

// served counts the connections that net/http serves in this process.
func served(t *testing.T) int {
	t.Helper()
	var stacks bytes.Buffer
	expect.OK(t, pprof.Lookup("goroutine").WriteTo(&stacks, 2))
	return strings.Count(stacks.String(), "\nnet/http.(*conn).serve(")
}

// held is a collector that gathers more than a socket buffers, once it is released.
type held struct{ asked, release chan struct{} }

// Describe implements prometheus.Collector.
func (held) Describe(descs chan<- *prometheus.Desc) { descs <- filling }

var filling = prometheus.NewDesc("filling", "Fills the buffers of sockets.", []string{"n"}, nil)

// Collect implements prometheus.Collector.
func (h held) Collect(metrics chan<- prometheus.Metric) {
	close(h.asked)
	<-h.release
	for n := range 100_000 {
		metrics <- prometheus.MustNewConstMetric(filling, prometheus.GaugeValue, 1, fmt.Sprint(n))
	}
}

func TestScraperGoesAway(t *testing.T) {
	ca := newAuthority(t)
	bundle := filepath.Join(t.TempDir(), "ca.crt")
	replace(t, bundle, ca.CertPEM)
	s := start(t, serving.Options{Clients: serving.Clients{CAFile: bundle}})
	h := held{make(chan struct{}), make(chan struct{})}
	s.reg.MustRegister(h)
	conn, err := tls.Dial("tcp", s.metrics, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{issue(t, ca, nil)}})
	expect.OK(t, err)
	_, err = io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n")
	expect.OK(t, err)
	<-h.asked
	expect.OK(t, errors.Join(conn.NetConn().(*net.TCPConn).SetLinger(0), conn.NetConn().Close()))
	close(h.release)
	eventually(t, func() (bool, string) {
		logged := s.logs.String()
		return strings.Contains(logged, "sending metric family"), logged
	})
	if logged := s.logs.String(); strings.Contains(logged, "level=ERROR") || strings.Contains(logged, "level=WARN") {
		t.Errorf("a scraper that goes away: got the log\n%s", logged)
	}
}

// broken is a collector that fails.
type broken struct{}

// Describe implements prometheus.Collector.
func (broken) Describe(descs chan<- *prometheus.Desc) { descs <- filling }

// Collect implements prometheus.Collector.
func (broken) Collect(metrics chan<- prometheus.Metric) {
	metrics <- prometheus.NewInvalidMetric(filling, errors.New("out of order"))
}

func TestMetricsNotGathered(t *testing.T) {
	ca := newAuthority(t)
	bundle := filepath.Join(t.TempDir(), "ca.crt")
	replace(t, bundle, ca.CertPEM)
	s := start(t, serving.Options{Clients: serving.Clients{CAFile: bundle}})
	s.reg.MustRegister(broken{})
	if status, body, _ := s.scrape(t, client(t, showing(issue(t, ca, nil))), ""); status != http.StatusInternalServerError {
		t.Errorf("got %d %.100q, want 500", status, body)
	}
	if logged := s.logs.String(); !strings.Contains(logged, `level=ERROR msg="metrics not gathered"`) || !strings.Contains(logged, "out of order") {
		t.Errorf("got the log\n%s\nwant an error that says what failed", logged)
	}
}
