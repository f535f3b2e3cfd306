package serving_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/chandler-k8s/chandler/serving"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/pki"
)

// server is a running one, with the addresses that it took.
type server struct {
	metrics, health string
	reg             *prometheus.Registry
	logs            *expect.Log
}

// Write implements io.Writer.
// start runs a server that accepts the scraper, unless the options say otherwise.
// It keeps what was logged at debug level, too.
func start(t testing.TB, o serving.Options) *server {
	t.Helper()
	listening := make(addresses, 2)
	s := &server{reg: prometheus.NewRegistry(), logs: &expect.Log{}}
	o.Address, o.HealthAddress = "127.0.0.1:0", "127.0.0.1:0"
	o.Gatherer, o.Metrics = s.reg, s.reg
	o.Live, o.Ready = func() error { return nil }, func() error { return errors.New("no files yet") }
	o.Log = slog.New(slog.NewTextHandler(io.MultiWriter(listening, s.logs), &slog.HandlerOptions{Level: slog.LevelDebug}))
	if o.Clients.Users == nil {
		o.Clients.Users = []string{scraper}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serving.New(o).Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	for range 2 {
		line := <-listening
		_, address, _ := strings.Cut(line, "address=")
		if strings.Contains(line, "what=health") {
			s.health = address
		} else {
			s.metrics = address
		}
	}
	return s
}

// client shows the certificate that show returns at the time of a handshake.
func client(t testing.TB, show func() *tls.Certificate) *http.Client {
	t.Helper()
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{
		InsecureSkipVerify:   true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return show(), nil },
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func showing(pair tls.Certificate) func() *tls.Certificate {
	return func() *tls.Certificate { return &pair }
}

// scrape gets /metrics and tells whether the connection had served before.
func (s *server) scrape(t testing.TB, c *http.Client, token string) (status int, body string, reused bool) {
	t.Helper()
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodGet, "https://"+s.metrics+"/metrics", http.NoBody)
	expect.OK(t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	expect.OK(t, err)
	data, err := io.ReadAll(resp.Body)
	expect.OK(t, errors.Join(err, resp.Body.Close()))
	return resp.StatusCode, string(data), reused
}

func TestWhoMayScrape(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	bundle := filepath.Join(t.TempDir(), "ca.crt")
	replace(t, bundle, ours.CertPEM)
	s := start(t, serving.Options{Clients: serving.Clients{CAFile: bundle, Users: []string{scraper}, Groups: []string{"monitoring"}}})
	good := func(alter func(*x509.Certificate)) func() *tls.Certificate { return showing(issue(t, ours, alter)) }
	stolen := issue(t, ours, nil)
	stolen.PrivateKey = other.Key // the certificate is public, the key is not
	for name, test := range map[string]struct {
		show   func() *tls.Certificate
		token  string
		status int
		reason string
		answer string
	}{
		"the scraper": {good(nil), "", 200, "", ""},
		"a group": {good(func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: "somebody", Organization: []string{"monitoring"}}
		}), "", 200, "", ""},
		"no certificate":             {showing(tls.Certificate{}), "", 401, "no_certificate", "show a client certificate"},
		"a token, delegation is off": {showing(tls.Certificate{}), "t0ken", 401, "token", "serving.delegation"},
		"a token beside the scraper": {good(nil), "t0ken", 200, "", ""},
		"another name":               {good(func(c *x509.Certificate) { c.Subject.CommonName = "mallory" }), "", 403, "not_allowed", "mallory"},
		"no name":                    {good(func(c *x509.Certificate) { c.Subject = pkix.Name{} }), "", 401, "untrusted", "common name"},
		"the name as a group":        {good(func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "m", Organization: []string{scraper}} }), "", 403, "not_allowed", `"m"`},
		"another CA":                 {showing(issue(t, other, nil)), "", 401, "untrusted", "unknown authority"},
		"expired":                    {good(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), "", 401, "expired", "expired"},
		"not valid yet":              {good(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), "", 401, "expired", "is before"},
		"a server's certificate": {good(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "", 401,
			"untrusted", "incompatible key usage"},
	} {
		t.Run(name, func(t *testing.T) {
			before := refusals(t, s.reg)
			status, body, _ := s.scrape(t, client(t, test.show), test.token)
			if status != test.status || !strings.Contains(body, test.answer) {
				t.Errorf("got %d %q, want %d and %q", status, body, test.status, test.answer)
			}
			if test.reason != "" {
				before[test.reason]++
				if strings.Contains(body, "chandler_") {
					t.Error("the answer to somebody refused holds metrics")
				}
			}
			if diff := cmp.Diff(refusals(t, s.reg), before); diff != "" {
				t.Errorf("refusals -got +want:\n%s", diff)
			}
		})
	}
	t.Run("a certificate without its key", func(t *testing.T) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.metrics+"/metrics", http.NoBody)
		expect.OK(t, err)
		resp, err := client(t, showing(stolen)).Do(req)
		if err == nil {
			t.Errorf("got status %d, want the handshake refused", resp.StatusCode)
			expect.OK(t, resp.Body.Close())
		}
	})
}

func refusals(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	expect.OK(t, err)
	counts := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "chandler_serving_refusals_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return counts
}

func TestNoOtherPath(t *testing.T) {
	ca := newAuthority(t)
	bundle := filepath.Join(t.TempDir(), "ca.crt")
	replace(t, bundle, ca.CertPEM)
	s := start(t, serving.Options{Clients: serving.Clients{CAFile: bundle}})
	c := client(t, showing(issue(t, ca, nil)))
	for _, path := range []string{"/", "/debug/pprof/", "/healthz"} {
		resp, err := c.Get("https://" + s.metrics + path)
		expect.OK(t, err)
		expect.OK(t, resp.Body.Close())
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: got %d, want 404", path, resp.StatusCode)
		}
	}
	if _, err := http.Get("http://" + s.metrics + "/metrics"); err != nil {
		t.Fatal(err) // Go's server answers plain HTTP with 400
	}
}

// TestConnectionEndsBeforeItsCertificate scrapes as Prometheus does: over one
// connection for as long as it lives, with the newest certificate at each handshake.
func TestConnectionEndsBeforeItsCertificate(t *testing.T) {
	ca := newAuthority(t)
	bundle := filepath.Join(t.TempDir(), "ca.crt")
	replace(t, bundle, ca.CertPEM)
	s := start(t, serving.Options{Clients: serving.Clients{CAFile: bundle}})
	for name, test := range map[string]struct {
		life, left time.Duration
		reused     bool
	}{
		"fresh":                        {time.Hour, 50 * time.Minute, true},
		"in its last fifth":            {10 * time.Hour, 100 * time.Minute, false},
		"in its last minutes":          {20 * time.Minute, 4*time.Minute + 50*time.Second, false},
		"older than its last fifth is": {10 * time.Hour, 3 * time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := client(t, showing(issue(t, ca, func(c *x509.Certificate) {
				c.NotAfter = time.Now().Add(test.left)
				c.NotBefore = c.NotAfter.Add(-test.life)
			})))
			for i := range 3 {
				status, body, reused := s.scrape(t, c, "")
				if status != http.StatusOK || i > 0 && reused != test.reused {
					t.Errorf("scrape %d: got %d, reused %t, want 200, reused %t (%.200s)", i, status, reused, test.reused, body)
				}
			}
		})
	}
}

// TestFilesAreFollowed replaces the CA and the serving certificate while running.
func TestFilesAreFollowed(t *testing.T) {
	before, after, servers := newAuthority(t), newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	bundle := filepath.Join(dir, "clients.crt")
	first, err := servers.Server([]string{"node-1"})
	expect.OK(t, err)
	second, err := servers.Server([]string{"node-1"})
	expect.OK(t, err)
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	s := start(t, serving.Options{
		TLS: serving.TLS{CertFile: certFile, KeyFile: keyFile}, Clients: serving.Clients{CAFile: bundle},
	})
	if conn, err := tls.Dial("tcp", s.metrics, &tls.Config{InsecureSkipVerify: true}); err == nil {
		t.Error("a server without its certificate got through a handshake")
		expect.OK(t, conn.Close())
	}
	expect.OK(t, first.Write(dir, "tls"))
	want := func(what string, wantServer *pki.Pair, pair tls.Certificate, wantStatus int) {
		t.Helper()
		conn, err := tls.Dial("tcp", s.metrics, &tls.Config{InsecureSkipVerify: true})
		expect.OK(t, err)
		if got := conn.ConnectionState().PeerCertificates[0]; !got.Equal(wantServer.Certificate) {
			t.Errorf("%s: got serving certificate %s, want %s", what, got.SerialNumber, wantServer.Certificate.SerialNumber)
		}
		expect.OK(t, conn.Close())
		if status, body, _ := s.scrape(t, client(t, showing(pair)), ""); status != wantStatus {
			t.Errorf("%s: got %d %.100q, want %d", what, status, body, wantStatus)
		}
	}
	old, fresh := issue(t, before, nil), issue(t, after, nil)
	want("no client CA yet", first, old, http.StatusUnauthorized)
	replace(t, bundle, before.CertPEM)
	want("the first CA", first, old, http.StatusOK)
	want("the first CA, a certificate of the next", first, fresh, http.StatusUnauthorized)
	replace(t, bundle, []byte("half a b"))
	want("half a bundle: the last good one counts", first, old, http.StatusOK)
	replace(t, bundle, after.CertPEM)
	want("the next CA", first, fresh, http.StatusOK)
	want("the next CA, a certificate of the first", first, old, http.StatusUnauthorized)
	replace(t, certFile, []byte("no certificate"))
	want("a broken serving certificate: the last good one counts", first, fresh, http.StatusOK)
	expect.OK(t, second.Write(dir, "tls"))
	want("the next serving certificate", second, fresh, http.StatusOK)
	if got := testutil.CollectAndCount(s.reg, "chandler_serving_client_cas"); got != 2 {
		t.Errorf("got %d sources of CAs in the metrics, want 2", got)
	}
}

func TestSelfMadeCertificate(t *testing.T) {
	s := start(t, serving.Options{TLS: serving.TLS{NodeName: "worker-3"}})
	leaf := func() *x509.Certificate {
		conn, err := tls.Dial("tcp", s.metrics, &tls.Config{InsecureSkipVerify: true})
		expect.OK(t, err)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0]
	}
	first := leaf()
	roots := x509.NewCertPool()
	roots.AddCert(first)
	for _, name := range []string{"worker-3", "localhost", "127.0.0.1"} {
		if _, err := first.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("for %s: %v", name, err)
		}
	}
	if first.IsCA || len(first.ExtKeyUsage) != 1 || first.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
		t.Errorf("got CA %t and usages %v, want a server's certificate", first.IsCA, first.ExtKeyUsage)
	}
	if !leaf().Equal(first) {
		t.Error("the second handshake showed another certificate")
	}
}
