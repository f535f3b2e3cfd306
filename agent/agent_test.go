package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/agent"
	"github.com/chandler-k8s/chandler/config"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

const (
	eksClusterID = "CLUSTERID=\"payments\"\n"
	eksConfig    = "[default]\nregion = eu-west-1\n"
)

func credentialsINI(access, secret string) string {
	return "[default]\naws_access_key_id = " + access + "\naws_secret_access_key = " + secret + "\n"
}

// TestAgent runs the node half against one real control plane, under the rights
// that deploy/ ships.
func TestAgent(t *testing.T) {
	c := controlPlane(t)
	eks := agentPod(t, c, fixtures.EKSNode)

	t.Run("files appear, follow the Secret, and go with it", func(t *testing.T) { testSecret(t, eks) })
	t.Run("several Secrets in one set", func(t *testing.T) { testProfiles(t, eks) })
	t.Run("bad credentials hold back nothing", func(t *testing.T) { testBadCredentials(t, eks) })
	t.Run("configuration is reloaded, a bad one is not", func(t *testing.T) { testReload(t, eks) })
	t.Run("health and metrics", func(t *testing.T) { testServing(t, eks) })
	t.Run("secrets are never logged", func(t *testing.T) { testSecrecy(t, eks) })
	t.Run("something in the way of one set", func(t *testing.T) { testInTheWay(t, eks) })
	t.Run("a configuration that does not start is given up", func(t *testing.T) { testFallback(t, eks) })
	t.Run("a region outside AWS, and one that is lost", func(t *testing.T) { testRegion(t, c, eks) })
	t.Run("a deleted host directory ends the agent", func(t *testing.T) { testDeleted(t, eks) })

	t.Run("scraper certificate", func(t *testing.T) { testScraper(t, c) })

	t.Run("API server down later, then an agent starts without it", func(t *testing.T) {
		b := newBench(t, eks)
		b.setKeys(accessKey, secretKey)
		stop := b.start(fixtures.EKSNode)
		b.await("cluster/CLUSTERID", eksClusterID)
		c.StopAPIServer()
		b.setKeys(accessKey, "rotated")
		b.await("aws/credentials.ini", credentialsINI(accessKey, "rotated"))
		expect.OK(t, stop())

		fresh := newBench(t, eks) // a node that has no files yet
		fresh.setKeys(accessKey, secretKey)
		fresh.start(fixtures.EKSNode)
		b.start(fixtures.EKSNode) // one that has
		b.setKeys(accessKey, "again")
		b.await("aws/credentials.ini", credentialsINI(accessKey, "again"))
		for name, want := range map[string]string{"cluster/CLUSTERID": eksClusterID, "aws/config.ini": eksConfig} {
			if got := b.file(name); got != want {
				t.Errorf("%s without the API server: got %q, want the last good %q", name, got, want)
			}
		}
		b.awaitStatus("/readyz", http.StatusOK)
		fresh.await("aws/credentials.ini", credentialsINI(accessKey, secretKey))
		fresh.awaitStatus("/readyz", http.StatusServiceUnavailable)
		fresh.awaitStatus("/healthz", http.StatusOK)

		expect.OK(t, c.StartAPIServer(t.Context()))
		fresh.await("cluster/CLUSTERID", eksClusterID)
		fresh.await("aws/config.ini", eksConfig)
		fresh.awaitStatus("/readyz", http.StatusOK)
	})
}

func testSecret(t *testing.T, token *rest.Config) {
	b := newBench(t, token)
	b.setKeys(accessKey+"\n", secretKey+"\r\n")
	b.start(fixtures.EKSNode)
	b.await("cluster/CLUSTERID", eksClusterID)
	b.await("aws/config.ini", eksConfig)
	b.await("aws/credentials.ini", credentialsINI(accessKey, secretKey))
	info, err := os.Stat(filepath.Join(b.hostDir, "aws/credentials.ini"))
	expect.OK(t, err)
	if got := info.Mode().Perm(); got != 0o440 {
		t.Errorf("mode of credentials.ini: got %o, want 440", got)
	}
	b.setKeys(accessKey, "rotated")
	b.await("aws/credentials.ini", credentialsINI(accessKey, "rotated"))
	expect.OK(t, errors.Join(os.Remove(filepath.Join(b.source, "aws_access_key_id")), os.Remove(filepath.Join(b.source, "aws_secret_access_key"))))
	b.await("aws/credentials.ini", "")
	if got := b.file("aws/config.ini"); got != eksConfig {
		t.Errorf("config.ini without credentials: got %q, want %q", got, eksConfig)
	}
}

func testProfiles(t *testing.T, token *rest.Config) {
	b := newBench(t, token)
	b.setKeys(accessKey, secretKey)
	billing := t.TempDir()
	expect.OK(t, os.WriteFile(filepath.Join(billing, "aws_access_key_id"), []byte("AKIABILLING"), 0o600))
	expect.OK(t, os.WriteFile(filepath.Join(billing, "aws_secret_access_key"), []byte(secretKey), 0o600))
	entry := fmt.Sprintf("awsCredentials:\n- {name: billing, source: %q, set: aws, profile: billing, files: {uid: %d, gid: %d}}\n",
		billing, os.Getuid(), os.Getgid())
	b.replace(b.configFile, strings.Replace(readFile(t, b.configFile), "awsCredentials:\n", entry, 1))
	b.start(fixtures.EKSNode)
	second := credentialsINI(accessKey, secretKey)
	first := strings.NewReplacer("default", "billing", accessKey, "AKIABILLING").Replace(second)
	b.await("aws/credentials.ini", first+"\n"+second)
	b.await("aws/config.ini", "[profile billing]\nregion = eu-west-1\n\n"+eksConfig)
	b.awaitStatus("/readyz", http.StatusOK)
}

func testBadCredentials(t *testing.T, token *rest.Config) {
	b := newBench(t, token)
	b.configure("")
	b.setKeys(accessKey, secretKey+"\ncredential_process = /bin/sh")
	b.start(fixtures.EKSNode)
	b.await("cluster/CLUSTERID", eksClusterID)
	b.awaitLog("set not published", "set=aws", "aws_secret_access_key has a character")
	b.setKeys(accessKey, secretKey)
	b.await("aws/credentials.ini", credentialsINI(accessKey, secretKey))
	b.setKeys(accessKey, "half a \x00 value")
	eventually(t, func() (bool, string) {
		return strings.Count(b.logs.String(), "set not published") == 2, "the second bad value is not in the log"
	})
	if got, want := b.file("aws/credentials.ini"), credentialsINI(accessKey, secretKey); got != want {
		t.Errorf("credentials.ini beside a bad Secret: got %q, want the last good %q", got, want)
	}
	// An I/O error is not the Secret's removal: here a directory stands for it.
	path := filepath.Join(b.source, "aws_access_key_id")
	expect.OK(t, os.Remove(path))
	expect.OK(t, os.Mkdir(path, 0o755))
	b.awaitLog("set not published", "is a directory")
	if got, want := b.file("aws/credentials.ini"), credentialsINI(accessKey, secretKey); got != want {
		t.Errorf("credentials.ini beside an unreadable Secret: got %q, want the last good %q", got, want)
	}
}

func testReload(t *testing.T, token *rest.Config) {
	b := newBench(t, token)
	b.setKeys(accessKey, secretKey)
	b.start(fixtures.EKSNode)
	b.await("cluster/CLUSTERID", eksClusterID)
	b.replace(b.configFile, "apiVersion: chandler.dev/v1alpha1\nkind: Config\nhostdir: /nowhere\n")
	b.awaitLog("configuration refused", "hostdir")
	if body := b.mustMetrics(); !strings.Contains(body, "chandler_config_last_reload_successful 0\n") {
		t.Errorf("the metric does not tell of the refused configuration:\n%s", body)
	}
	b.configure("identity: {clusterID: mine}")
	b.await("cluster/CLUSTERID", "CLUSTERID=\"mine\"\n")
	eventually(t, func() (bool, string) {
		body, err := b.metrics() // the address before may be gone already
		return strings.Contains(body, "chandler_config_last_reload_successful 1\n"), fmt.Sprint(err, body)
	})
	// A credential that the configuration drops is withdrawn from the node.
	b.replace(b.configFile, strings.ReplaceAll(readFile(t, b.configFile), "name: default", "name: billing"))
	b.await("aws-billing/credentials.ini", credentialsINI(accessKey, secretKey))
	b.await("aws/credentials.ini", "")
}

func testServing(t *testing.T, token *rest.Config) {
	b := newBench(t, token)
	b.setKeys(accessKey, secretKey)
	stop := b.start(fixtures.EKSNode)
	b.await("aws/credentials.ini", credentialsINI(accessKey, secretKey))
	health := b.address("health")
	wantStatus(t, health+"/healthz", http.StatusOK)
	b.awaitStatus("/readyz", http.StatusOK)
	wantStatus(t, health+"/metrics", http.StatusNotFound)
	body := b.mustMetrics()
	for _, want := range []string{
		`chandler_set_errors_total{set="aws"} 0`, `chandler_set_changes_total{set="cluster"} 1`,
		`chandler_identity_source{fact="clusterID",source="node-label"} 1`, `chandler_client_requests_total{code="200",method="get"}`,
		`chandler_identity_source_failures_total{source="imds"}`, "chandler_build_info{", "go_goroutines", "process_resident_memory_bytes",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	expect.OK(t, stop())
	if _, err := http.Get(health + "/healthz"); err == nil {
		t.Error("the agent has ended and still answers")
	}
}

func testSecrecy(t *testing.T, token *rest.Config) {
	for _, secret := range []string{secretKey, secretKey + "\nx = y", secretKey + "\x00"} {
		b := newBench(t, token)
		b.setKeys(accessKey, secret)
		stop := b.start(fixtures.EKSNode)
		b.awaitLog("set=aws")
		if body := b.mustMetrics(); strings.Contains(body, secretKey) {
			t.Error("a secret key is in the metrics")
		}
		expect.OK(t, stop())
		if got := b.logs.String(); strings.Contains(got, secretKey) || strings.Contains(got, token.BearerToken) {
			t.Error("a secret is in the log at debug level")
		}
	}
}

func testInTheWay(t *testing.T, token *rest.Config) {
	b := newBench(t, token)
	b.setKeys(accessKey, secretKey)
	expect.OK(t, os.MkdirAll(b.hostDir, 0o755))
	expect.OK(t, os.WriteFile(filepath.Join(b.hostDir, "cluster"), nil, 0o600)) // in the way of one set, also for root
	b.start(fixtures.EKSNode)
	b.await("aws/credentials.ini", credentialsINI(accessKey, secretKey))
	b.awaitLog("set not published", "set=cluster", filepath.Join(b.hostDir, "cluster"))
	b.awaitStatus("/readyz", http.StatusServiceUnavailable)
	expect.OK(t, os.Remove(filepath.Join(b.hostDir, "cluster")))
	b.setKeys(accessKey, "again") // a hint; the tick would come as well
	b.await("cluster/CLUSTERID", eksClusterID)
}

// testFallback changes to valid configurations that cannot start.
func testFallback(t *testing.T, token *rest.Config) {
	b := newBench(t, token)
	b.setKeys(accessKey, secretKey)
	b.start(fixtures.EKSNode)
	b.await("cluster/CLUSTERID", eksClusterID)
	file := filepath.Join(t.TempDir(), "file")
	expect.OK(t, os.WriteFile(file, nil, 0o600))
	good := readFile(t, b.configFile)
	b.replace(b.configFile, strings.Replace(good, b.hostDir, file, 1))
	b.awaitLog("configuration does not start", file)
	b.setKeys(accessKey, "rotated")
	b.await("aws/credentials.ini", credentialsINI(accessKey, "rotated"))
	eventually(t, func() (bool, string) {
		body, err := b.metrics()
		return strings.Contains(body, "chandler_config_last_reload_successful 0\n"), fmt.Sprint(err, body)
	})
	b.configure("identity: {clusterID: mine}")
	b.await("cluster/CLUSTERID", "CLUSTERID=\"mine\"\n")
}

func testRegion(t *testing.T, c *cluster.Cluster, token *rest.Config) {
	// On another cloud nothing is a region for an AWS SDK, but what the configuration says.
	expect.OK(t, fixtures.Node(t.Context(), c, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "huawei", Labels: map[string]string{corev1.LabelTopologyRegion: "cn-north-4"}},
		Spec:       corev1.NodeSpec{ProviderID: "6f5ac1d0-1111-2222-3333-444455556666"},
	}))
	b := newBench(t, agentPod(t, c, "huawei"))
	b.setKeys(accessKey, secretKey)
	b.start("huawei")
	b.awaitLog("set published with problems", "set=aws", "set identity.region", "provider-id", "cn-north-4")
	b.await("cluster/region", "")
	b.await("aws/config.ini", "[default]\n")
	b.await("aws/credentials.ini", credentialsINI(accessKey, secretKey))
	b.awaitStatus("/readyz", http.StatusServiceUnavailable)
	b.configure("identity: {region: eu-central-1}")
	b.await("cluster/region", "eu-central-1")
	b.await("aws/config.ini", "[default]\nregion = eu-central-1\n")
	b.awaitStatus("/readyz", http.StatusOK)
	// A region that the configuration takes back goes. The last good config.ini stays,
	// and the log says that nothing stands behind it any more.
	b.configure("")
	b.await("cluster/region", "")
	b.await("aws/config.ini", "[default]\nregion = eu-central-1\n")

	// What an earlier run published stays, also where its facts are lost.
	lost := newBench(t, &rest.Config{Host: "https://127.0.0.1:1"})
	publish(t, lost.hostDir, "aws", map[string]string{"config.ini": eksConfig})
	lost.setKeys(accessKey, secretKey)
	lost.start(fixtures.EKSNode)
	lost.await("aws/credentials.ini", credentialsINI(accessKey, secretKey))
	if got := lost.file("aws/config.ini"); got != eksConfig {
		t.Errorf("config.ini while the region is not known: got %q, want the last good %q", got, eksConfig)
	}
}

func testDeleted(t *testing.T, token *rest.Config) {
	b := newBench(t, token)
	ended := make(chan error, 1)
	go func() {
		ended <- agent.Run(t.Context(), agent.Options{
			ConfigFile: b.configFile, Kubeconfig: b.kubeconfig, NodeName: fixtures.EKSNode,
			Log: slog.New(slog.NewTextHandler(&b.logs, nil)),
		})
	}()
	b.await("cluster/CLUSTERID", eksClusterID)
	eventually(t, func() (bool, string) { // the agent may be writing to it
		err := os.RemoveAll(b.hostDir)
		return err == nil, fmt.Sprint(err)
	})
	b.setKeys(accessKey, secretKey) // a hint
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "has been deleted") {
		t.Errorf("got %v, want an error that says so: kubelet mounts the directory anew", err)
	}
}

func TestRunRefusesToStart(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	if err := agent.Run(t.Context(), agent.Options{Log: log}); err == nil || !strings.Contains(err.Error(), "NODE_NAME") {
		t.Errorf("without a node name: got %v, want an error that names the variable", err)
	}
	bad := filepath.Join(t.TempDir(), "config.yaml")
	expect.OK(t, os.WriteFile(bad, []byte("kind: Config\nleadr: {}\n"), 0o600))
	err := agent.Run(t.Context(), agent.Options{ConfigFile: bad, NodeName: "n", Log: log})
	if len(config.Problems(err)) < 2 {
		t.Errorf("bad configuration: got %v, want every problem", err)
	}
}

func TestWait(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "host")
	o := agent.WaitOptions{HostDir: dir, Sets: []string{"cluster", "aws"}, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := agent.Wait(ctx, o); err == nil || strings.Count(err.Error(), "not found: is the agent running") != 2 {
		t.Errorf("no sets: got %v, want an error that names both", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("waiting made the host directory: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- agent.Wait(t.Context(), o) }()
	publish(t, dir, "aws", map[string]string{"config.ini": eksConfig})
	publish(t, dir, "cluster", map[string]string{
		"CLUSTERID": eksClusterID, "identity.json": `{"clusterID": {"value": "payments", "source": "node-label"}}`,
	})
	expect.OK(t, <-ended)
	publish(t, dir, "aws", map[string]string{"config.ini": "[default]\n"})
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := agent.Wait(ctx, o); err == nil || !strings.Contains(err.Error(), "no region") {
		t.Errorf("a set without its region: got %v, want an error that says so", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	o.Sets = []string{"nonsense"}
	publish(t, dir, "nonsense", map[string]string{"x": "y"})
	if err := agent.Wait(ctx, o); err == nil || !strings.Contains(err.Error(), "unknown set") {
		t.Errorf("unknown set: got %v, want an error that says so", err)
	}
}

func wantStatus(t *testing.T, url string, want int) {
	t.Helper()
	resp, err := http.Get(url)
	expect.OK(t, err)
	expect.OK(t, resp.Body.Close())
	if got := resp.StatusCode; got != want {
		t.Errorf("%s: got status %d, want %d", url, got, want)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	expect.OK(t, err)
	return string(data)
}
