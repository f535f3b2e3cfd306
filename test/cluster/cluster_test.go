package cluster_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	certsv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/chandler-k8s/chandler/test/cluster"
)

// workload is a node and, in a namespace of its own, a pod on it whose account
// may read ConfigMaps.
const workload = `
apiVersion: v1
kind: Namespace
metadata: {name: team-a}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: reader, namespace: team-a}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: other, namespace: team-a}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: team-a}
rules:
- {apiGroups: [""], resources: [configmaps], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: team-a}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects:
- {kind: ServiceAccount, name: reader, namespace: team-a}
- {kind: ServiceAccount, name: other, namespace: team-a}
---
apiVersion: v1
kind: Pod
metadata: {name: agent-a, namespace: team-a}
spec:
  serviceAccountName: reader
  nodeName: node-1
  containers: [{name: main, image: none.invalid/none}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: facts, namespace: team-a}
data: {colour: blue}
`

// TestControlPlane holds what needs no cluster of its own. The subtests run in
// order; the last one stops and starts the API server.
func TestControlPlane(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{})
	if err := c.Apply(t.Context(), []byte(workload)); err != nil {
		t.Fatal(err)
	}
	t.Run("is bootstrapped", func(t *testing.T) { testBootstrapped(t, c) })
	t.Run("pod token names pod and node", func(t *testing.T) { testPodToken(t, c) })
	t.Run("pod token has no more rights than its account", func(t *testing.T) { testPodRights(t, c) })
	t.Run("pod token needs the account of the pod", func(t *testing.T) { testForeignPod(t, c) })
	t.Run("requests are counted exactly per user", func(t *testing.T) { testCounts(t, c) })
	t.Run("kubeconfig of a pod works and is private", func(t *testing.T) { testKubeconfig(t, c) })
	t.Run("approved certificate is signed for 720h", func(t *testing.T) { testSigning(t, c) })
	t.Run("apply waits for a definition made just before", func(t *testing.T) { testApplyDefinition(t, c) })
	t.Run("apply refuses", func(t *testing.T) { testApplyRefuses(t, c) })
	t.Run("API server restart keeps objects and port", func(t *testing.T) { testRestart(t, c) })
}

func clientset(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func testBootstrapped(t *testing.T, c *cluster.Cluster) {
	client := clientset(t, c.Admin())
	if _, err := client.RbacV1().ClusterRoles().Get(t.Context(), "system:node", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := client.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	version, err := client.ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if got, unwanted := version.GitVersion, "v0.0.0"; strings.HasPrefix(got, unwanted) {
		t.Errorf("server version: got %s", got)
	}
}

func podConfig(t *testing.T, c *cluster.Cluster) *rest.Config {
	t.Helper()
	config, err := c.AsPod(t.Context(), "team-a", "reader", "agent-a")
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func testPodToken(t *testing.T, c *cluster.Cluster) {
	pod, err := clientset(t, c.Admin()).CoreV1().Pods("team-a").Get(t.Context(), "agent-a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	review, err := clientset(t, podConfig(t, c)).AuthenticationV1().SelfSubjectReviews().
		Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	user := review.Status.UserInfo
	got := map[string]string{"username": user.Username}
	for _, key := range []string{"pod-name", "pod-uid", "node-name"} {
		got[key] = strings.Join(user.Extra["authentication.kubernetes.io/"+key], ",")
	}
	want := map[string]string{
		"username": "system:serviceaccount:team-a:reader",
		"pod-name": "agent-a", "pod-uid": string(pod.UID), "node-name": "node-1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
}

func testPodRights(t *testing.T, c *cluster.Cluster) {
	client := clientset(t, podConfig(t, c))
	if _, err := client.CoreV1().ConfigMaps("team-a").Get(t.Context(), "facts", metav1.GetOptions{}); err != nil {
		t.Errorf("read of its own ConfigMap: %v", err)
	}
	_, err := client.CoreV1().Secrets("team-a").List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("list of Secrets: got %v, want Forbidden", err)
	}
}

func testForeignPod(t *testing.T, c *cluster.Cluster) {
	if _, err := c.AsPod(t.Context(), "team-a", "other", "agent-a"); err == nil {
		t.Error("token of account other for a pod of account reader: got no error")
	}
	if _, err := c.AsPod(t.Context(), "team-a", "reader", "absent"); !apierrors.IsNotFound(err) {
		t.Errorf("token for an absent pod: got %v, want NotFound", err)
	}
}

// testCounts lets two users make different numbers of requests at the same time,
// among them a refused one and a watch that goes on.
func testCounts(t *testing.T, c *cluster.Cluster) {
	other, err := c.AsServiceAccount(t.Context(), "team-a", "other")
	if err != nil {
		t.Fatal(err)
	}
	users := map[*rest.Config]int{podConfig(t, c): 37, other: 23}
	mark, err := c.Mark()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	failures := make(chan error)
	for config, gets := range users {
		config.QPS = -1
		client := clientset(t, config)
		go func() { failures <- makeRequests(ctx, client, gets) }()
	}
	for range users {
		if err := <-failures; err != nil {
			t.Error(err)
		}
	}
	all, err := c.Requests(mark)
	if err != nil {
		t.Fatal(err)
	}
	got := all.Where(func(r cluster.Request) bool { return strings.HasPrefix(r.User, "system:serviceaccount:team-a:") })
	want := expected("reader", "agent-a", 37)
	for request, count := range expected("other", "", 23) {
		want[request] = count
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if got, want := all.Where(cluster.User(cluster.ServiceAccountUser("team-a", "reader"))).Total(), 37+3; got != want {
		t.Errorf("requests of reader: got %d, want %d", got, want)
	}
}

func expected(account, pod string, gets int) cluster.Requests {
	base := cluster.Request{User: cluster.ServiceAccountUser("team-a", account), Pod: pod}
	get, watch, refused, path := base, base, base, base
	get.Verb, get.Resource, get.Namespace = "get", "configmaps", "team-a"
	watch.Verb, watch.Resource, watch.Namespace = "watch", "configmaps", "team-a"
	refused.Verb, refused.Group, refused.Resource = "list", "apps", "deployments"
	path.Verb, path.Path = "get", "/version"
	return cluster.Requests{get: gets, watch: 1, refused: 1, path: 1}
}

// makeRequests returns with a watch left open until ctx ends.
func makeRequests(ctx context.Context, client *kubernetes.Clientset, gets int) error {
	if _, err := client.CoreV1().ConfigMaps("team-a").Watch(ctx, metav1.ListOptions{}); err != nil {
		return err
	}
	for range gets {
		if _, err := client.CoreV1().ConfigMaps("team-a").Get(ctx, "facts", metav1.GetOptions{}); err != nil {
			return err
		}
	}
	if _, err := client.AppsV1().Deployments("").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		return errors.New("list of Deployments was not refused")
	}
	_, err := client.ServerVersion()
	return err
}

func testKubeconfig(t *testing.T, c *cluster.Cluster) {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := cluster.WriteKubeconfig(path, podConfig(t, c)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, c.Kubeconfig()} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := info.Mode().Perm(), fs.FileMode(0o600); got != want {
			t.Errorf("mode of %s: got %o, want %o", path, got, want)
		}
		config, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := clientset(t, config).CoreV1().ConfigMaps("team-a").List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func testSigning(t *testing.T, c *cluster.Cluster) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "scraper"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	requests := clientset(t, c.Admin()).CertificatesV1().CertificateSigningRequests()
	csr, err := requests.Create(t.Context(), &certsv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "scraper-"},
		Spec: certsv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName: certsv1.KubeAPIServerClientSignerName,
			Usages:     []certsv1.KeyUsage{certsv1.UsageClientAuth, certsv1.UsageDigitalSignature},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	csr.Status.Conditions = []certsv1.CertificateSigningRequestCondition{{Type: certsv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test"}}
	if _, err := requests.UpdateApproval(t.Context(), csr.Name, csr, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	var issued []byte
	poll(t, "certificate", func() bool {
		csr, err := requests.Get(t.Context(), csr.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		issued = csr.Status.Certificate
		return len(issued) > 0
	})
	block, _ := pem.Decode(issued)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := certificate.NotAfter.Sub(csr.CreationTimestamp.Time).Round(time.Hour), 720*time.Hour; got != want {
		t.Errorf("lifetime: got %s, want %s", got, want)
	}
}

func testRestart(t *testing.T, c *cluster.Cluster) {
	client := clientset(t, podConfig(t, c))
	get := func() (*corev1.ConfigMap, error) {
		return client.CoreV1().ConfigMaps("team-a").Get(t.Context(), "facts", metav1.GetOptions{})
	}
	before, err := get()
	if err != nil {
		t.Fatal(err)
	}
	c.StopAPIServer()
	c.StopAPIServer()
	if _, err := get(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("request while the API server is stopped: got %v, want connection refused", err)
	}
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := get()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := after.UID, before.UID; got != want {
		t.Errorf("UID after the restart: got %s, want %s", got, want)
	}
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Errorf("start while it runs: %v", err)
	}
}

// poll asks until it is so, at most half a minute.
func poll(t *testing.T, what string, so func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, 30*time.Second, true,
		func(context.Context) (bool, error) { return so(), nil })
	if err != nil {
		t.Fatalf("wait for %s: %v", what, err)
	}
}
