// Package registry_test pulls an image from a real registry with the pull secret
// that a real leader wrote. It is a module of its own, so that the product's
// go.mod does not carry a registry.
package registry_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/bcrypt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/pullsecrets"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/fakeaws"
)

const (
	home      = "chandler"
	keysIn    = "ci-cd"
	prefix    = "eatr-aws-credentials"
	host      = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
	foreign   = "999999999999.dkr.ecr.us-east-1.amazonaws.com"
	patience  = time.Minute
	tokenLife = 20 * time.Second
	// bcryptBytes is how much of a password bcrypt reads.
	bcryptBytes = 72
)

func TestPull(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane and a registry")
	}
	aws, keys := startAWS(t)
	admin := startLeader(t, keys)
	labelNamespace(t, admin, "team-a")
	first := awaitSecret(t, admin, "team-a", "")

	registry := startRegistry(t)
	registry.accept(t, newest(t, aws))
	image := registry.push(t, newest(t, aws))
	useDockerConfig(t, first.Data[corev1.DockerConfigJsonKey])
	for _, alias := range []string{
		host, "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
		"123456789012.dkr-ecr.us-east-1.on.aws", "123456789012.dkr-ecr-fips.us-east-1.on.aws",
	} {
		t.Run(alias, func(t *testing.T) { registry.wantPull(t, alias, authn.DefaultKeychain, image) })
	}
	t.Run("anonymous", func(t *testing.T) {
		registry.wantRefusal(t, host, authn.NewMultiKeychain())
	})
	t.Run("another registry", func(t *testing.T) {
		// The secret holds nothing for it, so nothing is sent.
		registry.wantRefusal(t, foreign, authn.DefaultKeychain)
	})
	t.Run("after the renewal", func(t *testing.T) {
		second := awaitSecret(t, admin, "team-a", first.ResourceVersion)
		if second.UID != first.UID {
			t.Errorf("got UID %s, want %s", second.UID, first.UID)
		}
		registry.accept(t, newest(t, aws))
		registry.wantRefusal(t, host, authn.DefaultKeychain) // still the first secret
		useDockerConfig(t, second.Data[corev1.DockerConfigJsonKey])
		registry.wantPull(t, host, authn.DefaultKeychain, image)
	})
}

func startAWS(t *testing.T) (*fakeaws.Server, fakeaws.Keys) {
	t.Helper()
	aws, err := fakeaws.Listen(fakeaws.Options{TokenLife: tokenLife})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := aws.Close(); err != nil {
			t.Error(err)
		}
	})
	for variable, value := range aws.Env() {
		t.Setenv(variable, value)
	}
	return aws, aws.NewKeys("puller")
}

func newest(t *testing.T, aws *fakeaws.Server) fakeaws.Issued {
	t.Helper()
	issued := aws.Issued()
	if len(issued) == 0 {
		t.Fatal("no token was issued")
	}
	return issued[len(issued)-1]
}

// startLeader starts a control plane with deploy/base and one agent that becomes
// leader. It returns an administrator's client.
func startLeader(t *testing.T, keys fakeaws.Keys) kubernetes.Interface {
	t.Helper()
	c := cluster.ForTest(t, cluster.Options{})
	admin := kubernetes.NewForConfigOrDie(c.Admin())
	create(t, admin, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: keysIn}})
	for _, file := range []string{"00-namespace.yaml", "serviceaccounts.yaml", "rbac.yaml", "policies.yaml", "pullsecrets.yaml"} {
		if err := c.ApplyFiles(t.Context(), filepath.Join("..", "..", "deploy", "base", file)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := admin.CoreV1().Secrets(keysIn).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: prefix + "-" + host},
		StringData: map[string]string{
			"aws_region": "us-east-1", "aws_access_key_id": keys.AccessKeyID, "aws_secret_access_key": keys.SecretAccessKey,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "agent-a"},
		Spec:       corev1.PodSpec{ServiceAccountName: "chandler-agent", Containers: []corev1.Container{{Name: "chandler", Image: "chandler"}}},
	}
	if _, err := admin.CoreV1().Pods(home).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	lead(t, c, pod.Name)
	return admin
}

// lead runs the leader half of one agent until the test ends.
func lead(t *testing.T, c *cluster.Cluster, pod string) {
	t.Helper()
	config, err := c.AsPod(t.Context(), home, "chandler-agent", pod)
	if err != nil {
		t.Fatal(err)
	}
	load := func(ctx context.Context) (awssdk.Config, error) { return awsconfig.LoadDefaultConfig(ctx) }
	registerer := prometheus.NewRegistry()
	metrics, err := pullsecrets.NewMetrics(registerer)
	if err != nil {
		t.Fatal(err)
	}
	l, err := leader.New(leader.Options{
		Config: config, Namespace: home, Identity: pod,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Metrics: registerer,
		Tasks: func(term leader.Term) ([]leader.Task, error) {
			task, err := pullsecrets.New(term, pullsecrets.Options{
				HostNamespace: keysIn, CredentialsSecretPrefix: prefix, AWS: load, Metrics: metrics,
			})
			return []leader.Task{task}, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("leader: %v", err)
		}
	})
}

func create(t *testing.T, admin kubernetes.Interface, namespace *corev1.Namespace) {
	t.Helper()
	if _, err := admin.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func labelNamespace(t *testing.T, admin kubernetes.Interface, namespace string) {
	t.Helper()
	create(t, admin, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace, Labels: map[string]string{host: "true"}}})
}

// awaitSecret waits for a version of the pull secret other than the given one.
func awaitSecret(t *testing.T, admin kubernetes.Interface, namespace, not string) *corev1.Secret {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		found, err := admin.CoreV1().Secrets(namespace).Get(t.Context(), host, metav1.GetOptions{})
		if err == nil && found.ResourceVersion != not {
			return found
		}
		select {
		case <-deadline:
			t.Fatalf("no new pull secret after %s: %v", patience, err)
		case <-tick.C:
		}
	}
}

// useDockerConfig makes the default keychain read a pull secret's content.
func useDockerConfig(t *testing.T, content []byte) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
}

// registry is a real one over TLS that takes itself for every host.
type registry struct {
	users string // the htpasswd file
	http  *http.Transport
}

func startRegistry(t *testing.T) *registry {
	t.Helper()
	t.Setenv("OTEL_TRACES_EXPORTER", "none")
	r := &registry{users: filepath.Join(t.TempDir(), "htpasswd")}
	if err := os.WriteFile(r.users, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	config := &configuration.Configuration{
		Storage: configuration.Storage{"inmemory": nil},
		Auth:    configuration.Auth{"htpasswd": {"realm": "test", "path": r.users}},
	}
	config.HTTP.Secret = "for one process only"
	config.Log.Level = "error"
	config.Catalog.MaxEntries = 10
	app := handlers.NewApp(t.Context(), config)
	server := httptest.NewTLSServer(app)
	t.Cleanup(server.Close)
	base, ok := server.Client().Transport.(*http.Transport)
	if !ok {
		t.Fatal("the test server's client has another transport")
	}
	r.http = base.Clone()
	r.http.TLSClientConfig.ServerName = "example.com" // what its certificate is for
	r.http.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}
	return r
}

// accept makes the registry know a password, and no other.
func (r *registry) accept(t *testing.T, issued fakeaws.Issued) {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(issued.Password[:bcryptBytes]), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("%s:%s\n", issued.Username, hash)
	if err := os.WriteFile(r.users, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	// It reads the file anew when the date differs, by whole seconds on some disks.
	date := time.Now().Add(time.Duration(len(issued.Password)) * time.Second)
	if err := os.Chtimes(r.users, date, date); err != nil {
		t.Fatal(err)
	}
}

// push stores a random image and returns its digest.
func (r *registry) push(t *testing.T, as fakeaws.Issued) ggcr.Hash {
	t.Helper()
	image, err := random.Image(1<<10, 2)
	if err != nil {
		t.Fatal(err)
	}
	auth := &authn.Basic{Username: as.Username, Password: as.Password}
	if err := remote.Write(reference(t, host), image, remote.WithAuth(auth), remote.WithTransport(r.http)); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func (r *registry) wantPull(t *testing.T, from string, keys authn.Keychain, want ggcr.Hash) {
	t.Helper()
	image, err := remote.Image(reference(t, from), remote.WithAuthFromKeychain(keys), remote.WithTransport(r.http))
	if err != nil {
		t.Fatal(err)
	}
	got, err := image.Digest()
	if err != nil || got != want {
		t.Fatalf("got image %s, %v, want %s", got, err, want)
	}
	layers, err := image.Layers()
	if err != nil || len(layers) != 2 {
		t.Fatalf("got %d layers, %v, want 2", len(layers), err)
	}
	for _, layer := range layers {
		content, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		if err := content.Close(); err != nil {
			t.Error(err)
		}
	}
}

func (r *registry) wantRefusal(t *testing.T, from string, keys authn.Keychain) {
	t.Helper()
	_, err := remote.Image(reference(t, from), remote.WithAuthFromKeychain(keys), remote.WithTransport(r.http))
	refused, ok := errors.AsType[*transport.Error](err)
	if !ok || refused.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %v, want 401", err)
	}
}

func reference(t *testing.T, registry string) name.Reference {
	t.Helper()
	found, err := name.ParseReference(registry + "/team/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	return found
}
