// Package serving answers over HTTP: metrics for Prometheus, health for kubelet.
//
// Metrics go over HTTPS to whoever shows a client certificate of a known CA with a
// name on a fixed list. Deciding that takes no request to the API server, so that
// scrapes go on while it is down. Health is plain HTTP and tells whether
// we are well, and what fails. The package knows nothing of what it serves; package agent
// hands it a gatherer, the two checks and the clients. It never answers with
// anything but these three paths, and keeps a bounded number of connections.
package serving

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
)

const (
	// headerTimeout and answerTimeout bound slow clients. Prometheus gives up
	// after 10 s by default.
	headerTimeout = 5 * time.Second
	answerTimeout = 30 * time.Second
	// idleTimeout outlives the usual scrape interval of a minute.
	idleTimeout = 2 * time.Minute
	// drain is how long open requests may take to end at shutdown.
	drain = 3 * time.Second
	// maxScrapes is how many may be answered at once; each costs memory.
	maxScrapes = 16
	// maxHeaderBytes has room for a token that lists hundreds of groups.
	maxHeaderBytes = 32 << 10
)

// The two servers, in log and metrics.
const (
	metricsServer = "metrics"
	healthServer  = "health"
)

// Options are what New needs.
type Options struct {
	// Address serves /metrics, e.g. ":9464". Empty serves no metrics. Port 0
	// takes a free one, which the log names.
	Address string
	// HealthAddress serves /healthz and /readyz, e.g. ":9465".
	HealthAddress string
	// Gatherer is what /metrics shows.
	Gatherer prometheus.Gatherer
	// Live and Ready answer /healthz and /readyz: nil is 200, an error is 503
	// with its text.
	Live, Ready func() error
	// TLS is how /metrics proves what it is, Clients who may read it.
	TLS     TLS
	Clients Clients
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// TLS names the serving certificate.
type TLS struct {
	// CertFile and KeyFile are paths of PEM files, which are read again at every
	// handshake. Empty means a certificate that we make and rotate ourselves.
	CertFile, KeyFile string
	// NodeName is in the certificate that we make.
	NodeName string
}

// Clients says whose client certificates and tokens are accepted.
type Clients struct {
	// CAFile is the path of a PEM bundle, which is read again at every request.
	// While it is not there or not valid, the last good content counts; without
	// one, nobody is accepted by it. Empty means none.
	CAFile string
	// Cluster accepts certificates of the cluster's CA for clients. It is where
	// that CA is read; nil accepts none.
	Cluster kubernetes.Interface
	// Kept keeps the cluster's CA for a start without the API server. Nil keeps
	// it nowhere.
	Kept Keeper
	// Users and Groups list the names that may read /metrics: common names and
	// organizations of certificates. Neither means nobody.
	Users, Groups []string
	// Delegation is where tokens are reviewed. Nil refuses every token.
	Delegation kubernetes.Interface
}

// Keeper keeps one PEM bundle over restarts.
type Keeper interface {
	// Load returns what was stored last, or an error that wraps fs.ErrNotExist.
	Load() ([]byte, error)
	Store(bundle []byte) error
}

// Server serves one agent.
type Server struct {
	Options
	metrics *metrics
}

// New assembles a Server. It does not listen yet.
func New(o Options) *Server { return &Server{o, newMetrics(o.Metrics)} }

// Run listens and serves until ctx ends, then lets open requests end, and returns
// nil. An address that cannot be listened on is an error. A certificate or CA that
// cannot be read is none: it is logged, counted and tried again, and nobody gets in
// by it.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	if s.Address != "" {
		group.Go(func() error { return s.serveMetrics(ctx) })
	}
	health := http.NewServeMux()
	health.Handle("GET /healthz", check(s.Live))
	health.Handle("GET /readyz", check(s.Ready))
	group.Go(func() error { return s.serve(ctx, healthServer, s.HealthAddress, health, nil) })
	return group.Wait()
}

// serveMetrics serves /metrics and keeps the cluster's CA up to date.
func (s *Server) serveMetrics(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(prometheus.GathererFunc(s.gather), promhttp.HandlerOpts{
		// What is left for it to log is a client that goes away before it has everything.
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug), MaxRequestsInFlight: maxScrapes,
	}))
	roots := newRoots(s.Clients, s.metrics, s.Log)
	gate := newGate(s.Clients, roots, s.metrics, s.Log, mux)
	group, ctx := errgroup.WithContext(ctx)
	if s.Clients.Cluster != nil {
		group.Go(func() error { roots.follow(ctx, s.Clients.Cluster); return nil })
	}
	group.Go(func() error {
		return s.serve(ctx, metricsServer, s.Address, gate, &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: newCertificates(s.TLS, s.metrics, s.Log),
			// Whoever has none is told so, which a failed handshake could not. The
			// handshake proves that the client has the key; gate does the rest.
			ClientAuth: tls.RequestClientCert,
			// A resumed session would show the certificate of its beginning.
			SessionTicketsDisabled: true,
		})
	})
	return group.Wait()
}

// gather logs what it could not gather, which the client is answered too.
func (s *Server) gather() ([]*dto.MetricFamily, error) {
	families, err := s.Gatherer.Gather()
	if err != nil {
		s.Log.Error("metrics not gathered", "err", err)
	}
	return families, err
}

// serve serves until ctx ends; plain HTTP without a TLS configuration.
func (s *Server) serve(ctx context.Context, name, address string, handler http.Handler, secure *tls.Config) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("serve %s: %w", name, err)
	}
	server := &http.Server{
		Handler: handler, TLSConfig: secure, ConnContext: withConnection, MaxHeaderBytes: maxHeaderBytes,
		// HTTP/2 gains nothing for a request a minute, and lets a client that has
		// not shown who it is cause more work and keep its connection for longer.
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	server.Protocols.SetHTTP1(true)
	server.SetKeepAlivesEnabled(secure != nil) // kubelet connects for every probe
	s.Log.Info("serving", "what", name, "address", listener.Addr().String())
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		stopped <- errors.Join(server.Shutdown(ending), server.Close())
	}()
	if err := listen(server, newBounded(listener, s.metrics.displaced.WithLabelValues(name))); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", name, err)
	}
	if err := <-stopped; err != nil {
		s.Log.Warn("open requests were cut off", "what", name, "err", err)
	}
	return nil
}

func listen(server *http.Server, listener net.Listener) error {
	if server.TLSConfig == nil {
		return server.Serve(listener)
	}
	return server.ServeTLS(listener, "", "")
}

func check(healthy func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := healthy(); err != nil {
			answer(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		answer(w, http.StatusOK, "ok")
	})
}

// answer sends one line of text.
func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	fmt.Fprintln(w, text) //nolint:errcheck // the client has gone
}
