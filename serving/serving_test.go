package serving_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chandler-k8s/chandler/serving"
	"github.com/chandler-k8s/chandler/test/expect"
)

func TestHealth(t *testing.T) {
	s := start(t, serving.Options{})
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"/healthz": {http.StatusOK, "ok\n"},
		"/readyz":  {http.StatusServiceUnavailable, "no files yet\n"},
		"/metrics": {http.StatusNotFound, "404 page not found\n"}, // an address of its own
		"/":        {http.StatusNotFound, "404 page not found\n"},
	} {
		resp, err := http.Get("http://" + s.health + path)
		expect.OK(t, err)
		body, err := io.ReadAll(resp.Body)
		expect.OK(t, errors.Join(err, resp.Body.Close()))
		if resp.StatusCode != want.status || string(body) != want.body {
			t.Errorf("%s: got %d %q, want %d %q", path, resp.StatusCode, body, want.status, want.body)
		}
	}
}

func TestNoMetricsWithoutAddress(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	listening := make(addresses, 2)
	s := serving.New(serving.Options{
		HealthAddress: "127.0.0.1:0", Gatherer: prometheus.NewRegistry(), Metrics: prometheus.NewRegistry(),
		Log: slog.New(slog.NewTextHandler(listening, nil)),
	})
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	if line := <-listening; !strings.Contains(line, "what=health") {
		t.Errorf("got %q, want health alone", line)
	}
	cancel()
	expect.OK(t, <-ended)
	if len(listening) > 0 {
		t.Errorf("it serves something else: %q", <-listening)
	}
}

func TestAddressTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	expect.OK(t, err)
	defer taken.Close()
	s := serving.New(serving.Options{
		Address: taken.Addr().String(), HealthAddress: "127.0.0.1:0", Gatherer: prometheus.NewRegistry(),
		Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	})
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "serve metrics") {
		t.Errorf("got %v, want an error that names what is not served", err)
	}
}

// addresses collects where a server says that it listens.
type addresses chan string

// Write implements io.Writer for one line of a log.
func (a addresses) Write(line []byte) (int, error) {
	if strings.Contains(string(line), "msg=serving ") {
		a <- strings.TrimSpace(string(line))
	}
	return len(line), nil
}
