// Package scrape proves that scrapes go on: a real Prometheus scrapes agents by the
// files of a scraper set while certificates rotate and the API server is away.
package scrape

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chandler-k8s/chandler/agent"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
	"github.com/chandler-k8s/chandler/test/pki"
	"github.com/chandler-k8s/chandler/test/prometheus"
)

const (
	// rotation is how often each node gets another certificate.
	rotation = 4 * time.Second
	// before, outage and after are what the scrapes go through: two minutes.
	before, outage, after = 45 * time.Second, 30 * time.Second, 45 * time.Second
	// enough is how many certificates there are before the outage and after it.
	enough = 5
	// patience bounds every other wait, for the sake of slow machines, and of
	// kube-controller-manager, which may sign nothing for a minute after an outage.
	patience = 3 * time.Minute
)

const agentConfig = `apiVersion: chandler.dev/v1alpha1
kind: Config
hostDir: %q
scraper: {duration: 10m, renewAfter: %s, caFile: %q, files: {mode: "0440", uid: %d, gid: %d}}
leader: {podLogs: {enabled: false}, pullSecrets: {enabled: false}}
serving: {address: %q, healthAddress: "127.0.0.1:0", tlsCertFile: %q, tlsPrivateKeyFile: %q}
`

const prometheusConfig = `
global: {scrape_interval: 3s, scrape_timeout: 3s}
scrape_configs:
- job_name: chandler
  scheme: https
  tls_config:
    ca_file: %[1]s/ca.crt
    cert_file: %[1]s/tls.crt
    key_file: %[1]s/tls.key
  static_configs:
  - targets: [%[2]s]
`

// TestPrometheusScrapesWithoutAPause is the proof that certificates rotate under a
// real Prometheus, and that scrapes need no API server.
func TestPrometheusScrapesWithoutAPause(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two minutes")
	}
	programs, err := prometheus.Find(t.Context(), os.Stderr)
	expect.OK(t, err)
	f := newFleet(t)
	set := filepath.Join(f.agents[0].hostDir, "scraper")
	var targets []string
	for _, a := range f.agents {
		targets = append(targets, a.address)
		eventually(t, "no certificate on "+a.node, func() bool {
			_, err := os.Stat(filepath.Join(a.hostDir, "scraper", "tls.crt"))
			return err == nil
		})
	}
	// The agents know the clients' CA a moment after their start.
	for _, a := range f.agents {
		eventually(t, "no scrape of "+a.node, func() bool { return scrape(set, a.address) == nil })
	}
	server, err := prometheus.Start(t.Context(), programs, t.TempDir(), fmt.Sprintf(prometheusConfig, set, strings.Join(targets, ", ")))
	expect.OK(t, err)
	t.Cleanup(func() { expect.OK(t, server.Stop()) })
	eventually(t, "not every target was scraped", func() bool {
		up, err := server.Query(t.Context(), "up == 1")
		return err == nil && len(up) == len(targets)
	})

	begin := time.Now()
	w := &watch{fleet: f, server: server, set: set, seen: map[string]bool{}}
	w.during(t, before, func() bool { return len(w.seen) >= enough })
	first := len(w.seen)
	f.cluster.StopAPIServer()
	w.during(t, outage, func() bool { return true })
	expect.OK(t, f.cluster.StartAPIServer(t.Context()))
	w.during(t, after, func() bool { return len(w.seen) >= first+enough })

	t.Logf("%d certificates, %d of them before the API server was stopped; %d scrapes with a handshake each", len(w.seen), first, w.scrapes)
	window := time.Since(begin).Round(time.Second).String()
	for _, target := range targets {
		series := fmt.Sprintf(`up{instance=%q}`, target)
		worst, err := server.Query(t.Context(), "min_over_time("+series+"["+window+"])")
		expect.OK(t, err)
		count, err := server.Query(t.Context(), "count_over_time("+series+"["+window+"])")
		expect.OK(t, err)
		if len(worst) != 1 || worst[0].Value != 1 {
			t.Errorf("%s: got lowest up %+v, want 1", target, worst)
		}
		if len(count) != 1 || count[0].Value < 30 {
			t.Errorf("%s: got %+v scrapes in %s, want 40 or nearly so", target, count, window)
		} else {
			t.Logf("%s: %.0f scrapes by Prometheus in %s", target, count[0].Value, window)
		}
	}
}

// watch is what scrapes while things happen: beside Prometheus, which opens new
// connections when it likes, a client that shows the newest certificate in a
// handshake each time.
type watch struct {
	fleet   *fleet
	server  *prometheus.Server
	set     string
	seen    map[string]bool // certificates of the set
	scrapes int
}

// during watches for a time at least, and until enough has happened. No scrape may
// fail, and no target may report an error.
func (w *watch) during(t *testing.T, least time.Duration, enough func() bool) {
	t.Helper()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); time.Since(begin) < least || !enough(); <-tick.C {
		if time.Since(begin) > least+patience {
			t.Fatalf("got %d certificates in all, want more", len(w.seen))
		}
		pair, err := os.ReadFile(filepath.Join(w.set, "tls.pem"))
		expect.OK(t, err)
		w.seen[string(pair)] = true
		for _, a := range w.fleet.agents {
			w.scrapes++
			if err := scrape(w.set, a.address); err != nil {
				t.Errorf("scrape of %s: %v", a.node, err)
			}
		}
		targets, err := w.server.Targets(t.Context())
		expect.OK(t, err)
		for _, target := range targets {
			if target.Health != "up" || target.LastError != "" {
				t.Errorf("%s: got %s, %q", target.ScrapeURL, target.Health, target.LastError)
			}
		}
	}
}

// fleet is three agents of one cluster, the leader among them.
type fleet struct {
	cluster *cluster.Cluster
	agents  []*runningAgent
}

type runningAgent struct {
	node, hostDir, address string
	logs                   expect.Log
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{cluster: cluster.ForTest(t, cluster.Options{})}
	expect.OK(t, fixtures.Deploy(t.Context(), f.cluster))
	expect.OK(t, fixtures.Apply(t.Context(), f.cluster, "eks", "kubeadm", "openshift"))
	servers, err := pki.NewAuthority("serving")
	expect.OK(t, err)
	for _, node := range []string{fixtures.EKSNode, fixtures.KubeadmNode, fixtures.OpenShiftNode} {
		f.agents = append(f.agents, f.start(t, node, servers))
	}
	return f
}

// start runs the agent of a node, whose serving certificate the CA has signed.
func (f *fleet) start(t *testing.T, node string, servers *pki.Pair) *runningAgent {
	t.Helper()
	dir := t.TempDir()
	a := &runningAgent{node: node, hostDir: filepath.Join(dir, "host"), address: freeAddress(t)}
	serving, err := servers.Server([]string{node}, net.IPv4(127, 0, 0, 1))
	expect.OK(t, errors.Join(err, serving.Write(dir, "tls"), servers.Write(dir, "servers")))
	configFile, kubeconfig := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "kubeconfig")
	token, err := fixtures.AgentPod(t.Context(), f.cluster, node)
	expect.OK(t, errors.Join(err, cluster.WriteKubeconfig(kubeconfig, token), os.WriteFile(configFile,
		fmt.Appendf(nil, agentConfig, a.hostDir, rotation, filepath.Join(dir, "servers.crt"), os.Getuid(), os.Getgid(),
			a.address, filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")), 0o600)))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- agent.Run(ctx, agent.Options{
			ConfigFile: configFile, Kubeconfig: kubeconfig, NodeName: node, PodName: fixtures.PodName(node), Namespace: fixtures.Namespace,
			Version: "test", Log: slog.New(slog.NewTextHandler(&a.logs, nil)),
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("agent of %s: %v", node, err)
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", node, a.logs.String())
		}
	})
	return a
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	expect.OK(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// loadPair opens the file once: between two opens the set may be replaced.
func loadPair(both string) (tls.Certificate, error) {
	data, err := os.ReadFile(both)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(data, data)
}

// scrape gets metrics once, by the files of a set.
func scrape(set, address string) error {
	pair, err := loadPair(filepath.Join(set, "tls.pem"))
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("https://" + address + "/metrics")
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return errors.Join(err, resp.Body.Close())
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	expect.Done(t, patience, func() (bool, string) { return done(), what })
}

// Write implements io.Writer.
