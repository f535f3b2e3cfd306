package agent_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/agent"
	"github.com/chandler-k8s/chandler/config"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
	"github.com/chandler-k8s/chandler/test/pki"
)

const (
	accessKey = "AKIAIOSFODNN7EXAMPLE"
	secretKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

// patience bounds every wait. It is long for the sake of slow machines; nothing
// here takes more than moments.
const patience = time.Minute

func TestMain(m *testing.M) {
	// Nothing here may look for a metadata service on the machine it runs on.
	if err := os.Setenv("AWS_EC2_METADATA_DISABLED", "true"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// bench is one agent on one node and its surroundings.
type bench struct {
	t                           *testing.T
	hostDir, source, configFile string
	kubeconfig                  string
	leader, scraper             string // the sections of those names
	clientCA, client            *pki.Pair
	logs                        expect.Log
}

func newBench(t *testing.T, token *rest.Config) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{
		t: t, hostDir: filepath.Join(dir, "host"), source: filepath.Join(dir, "secret"),
		leader: "leader: {enabled: false}", scraper: "scraper: {enabled: false}",
		configFile: filepath.Join(dir, "etc", "config.yaml"), kubeconfig: filepath.Join(dir, "kubeconfig"),
	}
	var err error
	b.clientCA, err = pki.NewAuthority("clients")
	expect.OK(t, err)
	b.client, err = b.clientCA.Client(config.Default().Scraper.CommonName)
	expect.OK(t, err)
	expect.OK(t, b.clientCA.Write(dir, "clients"))
	expect.OK(t, os.Mkdir(b.source, 0o755))
	expect.OK(t, os.Mkdir(filepath.Dir(b.configFile), 0o755))
	expect.OK(t, cluster.WriteKubeconfig(b.kubeconfig, token))
	b.configure("")
	return b
}

// configure writes the configuration: where things are, and what a test adds.
func (b *bench) configure(more string) {
	b.t.Helper()
	text := fmt.Sprintf(`apiVersion: chandler.dev/v1alpha1
kind: Config
hostDir: %q
awsCredentials:
- {name: default, source: %q, files: {mode: "0440", uid: %d, gid: %d}}
%s
%s
serving: {address: "127.0.0.1:0", healthAddress: "127.0.0.1:0", clientCAFile: %q}
%s`, b.hostDir, b.source, os.Getuid(), os.Getgid(), b.scraper, b.leader, filepath.Join(b.hostDir, "..", "clients.crt"), more)
	b.replace(b.configFile, text)
}

// replace puts a whole file in place, as a mounted ConfigMap changes.
func (b *bench) replace(path, text string) {
	b.t.Helper()
	expect.OK(b.t, os.WriteFile(path+".new", []byte(text), 0o600))
	expect.OK(b.t, os.Rename(path+".new", path))
}

func (b *bench) setKeys(access, secret string) {
	b.t.Helper()
	b.replace(filepath.Join(b.source, "aws_access_key_id"), access)
	b.replace(filepath.Join(b.source, "aws_secret_access_key"), secret)
}

// start runs an agent; stop ends it and returns its error.
func (b *bench) start(node string) (stop func() error) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- agent.Run(ctx, agent.Options{
			ConfigFile: b.configFile, Kubeconfig: b.kubeconfig, NodeName: node, Version: "test",
			PodName: fixtures.PodName(node), Namespace: fixtures.Namespace,
			Log: slog.New(slog.NewTextHandler(&b.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
	}()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	b.t.Cleanup(func() {
		if err := stop(); err != nil {
			b.t.Errorf("agent: %v", err)
		}
		if b.t.Failed() {
			b.t.Logf("agent's log:\n%s", b.logs.String())
		}
	})
	return stop
}

func (b *bench) file(name string) string {
	data, err := os.ReadFile(filepath.Join(b.hostDir, name))
	if err != nil {
		return ""
	}
	return string(data)
}

// await waits until a file has the wanted content; "" waits for its absence.
func (b *bench) await(name, want string) {
	b.t.Helper()
	eventually(b.t, func() (bool, string) {
		got := b.file(name)
		return got == want, fmt.Sprintf("%s: got %q, want %q", name, got, want)
	})
}

// awaitLog waits for a line of the log that holds all of the parts.
func (b *bench) awaitLog(parts ...string) {
	b.t.Helper()
	eventually(b.t, func() (bool, string) {
		return b.logged(parts...), fmt.Sprintf("no line of the log with %q", parts)
	})
}

func (b *bench) logged(parts ...string) bool {
	for line := range strings.Lines(b.logs.String()) {
		found := true
		for _, p := range parts {
			found = found && strings.Contains(line, p)
		}
		if found {
			return true
		}
	}
	return false
}

// address is where the agent said that it serves.
func (b *bench) address(what string) string {
	b.t.Helper()
	b.awaitLog("msg=serving", "what="+what)
	address := ""
	for line := range strings.Lines(b.logs.String()) {
		if _, rest, ok := strings.Cut(line, "what="+what+" address="); ok {
			address = strings.TrimSpace(rest)
		}
	}
	return map[string]string{"metrics": "https://", "health": "http://"}[what] + address
}

// metrics scrapes as Prometheus would.
func (b *bench) metrics() (string, error) { return b.metricsAs(b.client.TLS()) }

func (b *bench) metricsAs(scraper tls.Certificate) (string, error) {
	url := b.address("metrics") + "/metrics"
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, // the agent's certificate is its own
		Certificates:       []tls.Certificate{scraper},
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

func (b *bench) mustMetrics() string {
	b.t.Helper()
	body, err := b.metrics()
	expect.OK(b.t, err)
	return body
}

// awaitStatus waits until the health server answers with a status. Files appear a
// moment before readiness tells of them, and a new agent serves elsewhere.
func (b *bench) awaitStatus(path string, want int) {
	b.t.Helper()
	eventually(b.t, func() (bool, string) {
		resp, err := http.Get(b.address("health") + path)
		if err != nil {
			return false, err.Error()
		}
		expect.OK(b.t, resp.Body.Close())
		return resp.StatusCode == want, fmt.Sprintf("%s: got status %d, want %d", path, resp.StatusCode, want)
	})
}

func eventually(t testing.TB, done func() (bool, string)) {
	t.Helper()
	expect.Done(t, patience, done)
}

// controlPlane starts a control plane with deploy/ and the fixtures' nodes.
func controlPlane(t *testing.T) *cluster.Cluster {
	t.Helper()
	c := cluster.ForTest(t, cluster.Options{})
	expect.OK(t, fixtures.Deploy(t.Context(), c))
	expect.OK(t, fixtures.Apply(t.Context(), c, "eks", "kubeadm", "openshift"))
	return c
}

func agentPod(t *testing.T, c *cluster.Cluster, node string) *rest.Config {
	t.Helper()
	cfg, err := fixtures.AgentPod(t.Context(), c, node)
	expect.OK(t, err)
	return cfg
}
