package prometheus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Server is one that runs.
type Server struct {
	address string
	process *exec.Cmd
	ended   chan error
	log     *os.File
}

// Start runs Prometheus with a configuration, in a directory of its own, and waits
// until it is ready.
func Start(ctx context.Context, programs Binaries, dir, config string) (*Server, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{address: listener.Addr().String(), ended: make(chan error, 1)}
	if err := listener.Close(); err != nil {
		return nil, err
	}
	configFile := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(configFile, []byte(config), 0o600); err != nil {
		return nil, err
	}
	if s.log, err = os.Create(filepath.Join(dir, "prometheus.log")); err != nil {
		return nil, err
	}
	// Not CommandContext: it gets SIGTERM, and time to end.
	s.process = exec.Command(programs.Prometheus, "--config.file="+configFile, "--storage.tsdb.path="+filepath.Join(dir, "data"), //nolint:noctx // see above
		"--web.listen-address="+s.address, "--storage.tsdb.retention.time=1h", "--log.level=debug")
	s.process.Stdout, s.process.Stderr = s.log, s.log
	if err := s.process.Start(); err != nil {
		return nil, errors.Join(err, s.log.Close())
	}
	go func() { s.ended <- s.process.Wait() }()
	if err := s.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// Stop ends the process and waits for it.
func (s *Server) Stop() error {
	_ = s.process.Process.Signal(syscall.SIGTERM) // it may have ended already, which Wait tells
	return errors.Join(<-s.ended, s.log.Close())
}

func (s *Server) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := s.get(ctx, "/-/ready", nil)
		if err == nil {
			return resp.Body.Close()
		}
		select {
		case <-tick.C:
		case ended := <-s.ended:
			s.ended <- ended
			return fmt.Errorf("prometheus ended: %w; see %s", errors.Join(ended, err), s.log.Name())
		case <-ctx.Done():
			return fmt.Errorf("prometheus is not ready: %w", err)
		}
	}
}

func (s *Server) get(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+path+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s: %s", path, resp.Status), resp.Body.Close())
	}
	return resp, nil
}

// Target is what Prometheus says of one.
type Target struct {
	ScrapeURL string `json:"scrapeUrl"`
	Health    string `json:"health"` // "up", "down" or "unknown"
	LastError string `json:"lastError"`
}

// Targets returns what it scrapes.
func (s *Server) Targets(ctx context.Context) ([]Target, error) {
	var data struct {
		ActiveTargets []Target `json:"activeTargets"`
	}
	err := s.api(ctx, "/api/v1/targets", nil, &data)
	return data.ActiveTargets, err
}

// Sample is a series' value at one moment.
type Sample struct {
	Metric map[string]string `json:"metric"`
	Value  float64           `json:"-"`
}

// Query evaluates an expression that gives a vector, now.
func (s *Server) Query(ctx context.Context, expression string) ([]Sample, error) {
	var data struct {
		Result []struct {
			Metric map[string]string `json:"metric"`
			Value  [2]any            `json:"value"`
		} `json:"result"`
	}
	if err := s.api(ctx, "/api/v1/query", url.Values{"query": {expression}}, &data); err != nil {
		return nil, err
	}
	var samples []Sample
	for _, r := range data.Result {
		text, _ := r.Value[1].(string)
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("query %s: %w", expression, err)
		}
		samples = append(samples, Sample{r.Metric, value})
	}
	return samples, nil
}

// api decodes the data of one answer.
func (s *Server) api(ctx context.Context, path string, query url.Values, data any) error {
	resp, err := s.get(ctx, path, query)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer := struct {
		Data any `json:"data"`
	}{data}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
