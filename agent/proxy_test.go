package agent

import (
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/test/fakeaws"
)

const ownNetworkVariable = "AGENT_TEST_OWN_NETWORK"

// proxyAddress is in the namespace's own loopback, so nothing else has it.
const proxyAddress = "127.0.0.1:3128"

// inOwnNetwork runs the calling test once more in a network namespace, with a proxy
// for everything in its environment, and passes the outcome on. It reports whether
// this is that process.
func inOwnNetwork(t *testing.T, addresses ...string) bool {
	t.Helper()
	if os.Getenv(ownNetworkVariable) == "" {
		cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), ownNetworkVariable+"=1", "HTTP_PROXY=http://"+proxyAddress, "HTTPS_PROXY=http://"+proxyAddress, "NO_PROXY=", "no_proxy=")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if cmd.Process == nil {
			t.Skipf("a network namespace is not permitted here: %v", err)
		}
		if t.Logf("%s", out); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(out), "--- SKIP") {
			t.Skip("skipped there")
		}
		return false
	}
	commands := [][]string{{"link", "set", "lo", "up"}}
	for _, a := range addresses {
		commands = append(commands, []string{"address", "add", a, "dev", "lo", "nodad"})
	}
	for _, args := range commands {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Skipf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	return true
}

// record is what a server was asked, a line a request.
type record struct {
	mu    sync.Mutex
	lines []string
}

func (r *record) add(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
}

// distinct returns the lines in order, each once.
func (r *record) distinct() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Compact(slices.Sorted(slices.Values(r.lines)))
}

// listen serves an address until the test ends.
func listen(t *testing.T, address string, handler http.HandlerFunc) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
}

// With a proxy for everything, only what leaves the node goes through it: the pod's
// token and the facts of the node must not.
func TestNodeLocalIsNotProxied(t *testing.T) {
	if !inOwnNetwork(t, "169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32", "169.254.1.1/32", "fd00:ec2::254/128", "fd00:ec2::23/128") {
		return
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
	t.Setenv("AWS_REGION", "eu-west-1")
	proxied, direct := &record{}, &record{}
	listen(t, proxyAddress, func(w http.ResponseWriter, r *http.Request) {
		proxied.add(r.Method + " " + r.Host)
		w.WriteHeader(http.StatusForbidden)
	})
	for _, address := range []string{"169.254.170.2:80", "169.254.170.23:80", "[fd00:ec2::23]:80", "127.0.0.2:80"} {
		listen(t, address, func(w http.ResponseWriter, r *http.Request) {
			direct.add("credentials " + r.Host)
			expires := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
			_, _ = fmt.Fprintf(w, `{"AccessKeyId":"AKIAIOSFODNN7EXAMPLE","SecretAccessKey":"x","Token":"x","Expiration":%q}`, expires)
		})
	}
	listen(t, "169.254.1.1:80", func(_ http.ResponseWriter, r *http.Request) { direct.add(r.Method + " " + r.URL.Path) })

	askMetadata(t)
	askCredentials(t)
	askAPIServer(t)
	if _, err := (ReloadOptions{URL: "http://169.254.1.1/-/reload", Timeout: time.Minute}).post(t.Context(), nil); err != nil {
		t.Error(err)
	}
	want := []string{"GET /api/v1/nodes", "POST /-/reload",
		"credentials 127.0.0.2", "credentials 169.254.170.2", "credentials 169.254.170.23", "credentials [fd00:ec2::23]"}
	if diff := cmp.Diff(want, direct.distinct()); diff != "" {
		t.Errorf("asked directly (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"CONNECT api.ecr.eu-west-1.amazonaws.com:443", "CONNECT sts.eu-west-1.amazonaws.com:443"}, proxied.distinct()); diff != "" {
		t.Errorf("asked through the proxy (-want +got):\n%s", diff)
	}
}

// askMetadata asks for a fact of the instance and for the keys of its role.
func askMetadata(t *testing.T) {
	server, err := fakeaws.Listen(fakeaws.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	for address, mode := range map[string]string{"169.254.169.254:80": "IPv4", "[fd00:ec2::254]:80": "IPv6"} {
		if _, err := server.AddInstance(fakeaws.Instance{Address: address, Region: "eu-west-1", Role: "arn:aws:iam::123456789012:role/node"}); err != nil {
			t.Fatal(err)
		}
		t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", mode)
		if _, err := newIMDS(slog.New(slog.DiscardHandler)).GetMetadata(t.Context(), &imds.GetMetadataInput{Path: "placement/region"}); err != nil {
			t.Error(err)
		}
		retrieve(t)
	}
}

func retrieve(t *testing.T) {
	cfg, err := (&ownAWS{}).load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.Credentials.Retrieve(t.Context()); err != nil {
		t.Error(err)
	}
}

// askCredentials asks each service that hands out credentials to pods, AWS itself
// with those, and STS.
func askCredentials(t *testing.T) {
	t.Setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials")
	retrieve(t)
	t.Setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "")
	t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of the pod")
	for _, host := range []string{"169.254.170.23", "[fd00:ec2::23]", "127.0.0.2"} {
		t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://"+host+"/v1/credentials")
		retrieve(t)
	}
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	cfg, err := (&ownAWS{}).load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ecr.NewFromConfig(cfg).GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{}); err == nil {
		t.Error("got a token through a proxy that refuses")
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", token)
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/chandler")
	if cfg, err = (&ownAWS{}).load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.Credentials.Retrieve(t.Context()); err == nil {
		t.Error("got credentials through a proxy that refuses")
	}
}

// askAPIServer asks one that has a link-local address, as a proxy on the node may.
func askAPIServer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	content := `{"apiVersion":"v1","kind":"Config","current-context":"a","contexts":[{"name":"a","context":{"cluster":"a","user":"a"}}],
"clusters":[{"name":"a","cluster":{"server":"http://169.254.1.1"}}],"users":[{"name":"a","user":{}}]}`
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := loadKubeconfig(file, "test")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = kubernetes.NewForConfigOrDie(cfg).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}) // the record tells
}

func TestNodeLocal(t *testing.T) {
	for host, want := range map[string]bool{
		"169.254.169.254": true, "169.254.170.2": true, "169.254.170.23": true, "fd00:ec2::254": true, "fd00:ec2::23": true,
		"::ffff:169.254.169.254": true, "fe80::1%eth0": true, "127.0.0.1": true, "127.8.0.1": true, "::1": true, "0.0.0.0": true, "::": true,
		"localhost": true, "LOCALHOST.": true, "prometheus.localhost": true,
		"": false, "10.96.0.1": false, "169.253.255.255": false, "fd00:ec3::1": false, "2600::1": false,
		"ecr.eu-west-1.amazonaws.com": false, "169.254.169.254.example.com": false, "notlocalhost": false, "localhost.example.com": false,
	} {
		if got := nodeLocal(host); got != want {
			t.Errorf("%q: got %t, want %t", host, got, want)
		}
	}
}

// The SDK adds the bundle to its own type of client alone.
func TestCABundle(t *testing.T) {
	asked := &record{}
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked.add(r.Method + " " + r.URL.Path) }))
	defer server.Close()
	bundle := filepath.Join(t.TempDir(), "ca.crt")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(bundle, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"AWS_CA_BUNDLE": bundle, "AWS_ENDPOINT_URL": server.URL, "AWS_REGION": "eu-west-1", "AWS_MAX_ATTEMPTS": "1",
		"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "x",
	} {
		t.Setenv(name, value)
	}
	cfg, err := (&ownAWS{}).load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = ecr.NewFromConfig(cfg).GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{}) // the record tells
	if diff := cmp.Diff([]string{"POST /"}, asked.distinct()); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}
