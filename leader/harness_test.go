package leader_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
)

const (
	namespace = "chandler"
	agent     = "chandler-agent"
	leading   = "chandler-leader"
	lease     = "chandler"
	manager   = "chandler"
)

// world is a control plane with exactly the manifests of deploy/base, and agents
// a, b and c, each a pod on a node of its own.
type world struct {
	*cluster.Cluster
	admin kubernetes.Interface
}

func newWorld(t *testing.T, args ...string) *world {
	t.Helper()
	// The feature must be on for the policy to have something to refuse.
	args = append(args, "--feature-gates=CoordinatedLeaderElection=true", "--runtime-config=coordination.k8s.io/v1beta1=true")
	w := &world{Cluster: cluster.ForTest(t, cluster.Options{APIServerArgs: args})}
	w.admin = kubernetes.NewForConfigOrDie(w.Admin())
	ctx := t.Context()
	for _, file := range []string{"00-namespace.yaml", "serviceaccounts.yaml", "rbac.yaml", "policies.yaml"} {
		if err := w.ApplyFiles(ctx, filepath.Join("..", "deploy", "base", file)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		w.addAgent(t, name)
	}
	w.awaitPolicies(t)
	return w
}

// addAgent makes a Node and the agent's pod on it.
func (w *world) addAgent(t *testing.T, name string) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-" + name}}
	if _, err := w.admin.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.addPod(t, name, node.Name)
}

func (w *world) addPod(t *testing.T, name, node string) {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: podName(name)},
		Spec: corev1.PodSpec{
			NodeName: node, ServiceAccountName: agent,
			Containers: []corev1.Container{{Name: "chandler", Image: "chandler"}},
			// No kubelet will ever clear them.
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		},
	}
	if _, err := w.admin.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func podName(name string) string  { return "agent-" + name }
func nodeName(name string) string { return "node-" + name }

// awaitPolicies waits until the API server enforces the policies just made.
func (w *world) awaitPolicies(t *testing.T) {
	t.Helper()
	a, err := w.AsPod(t.Context(), namespace, agent, podName("a"))
	if err != nil {
		t.Fatal(err)
	}
	leases := kubernetes.NewForConfigOrDie(a).CoordinationV1().Leases(namespace)
	expect.Within(t, 30*time.Second, func() error {
		stray := leaseOf(podName("a"))
		stray.Name = "stray"
		_, err := leases.Create(t.Context(), stray, metav1.CreateOptions{FieldManager: manager, DryRun: []string{metav1.DryRunAll}})
		if err == nil {
			return errors.New("a stray Lease is admitted")
		}
		if !apierrors.IsForbidden(err) {
			return fmt.Errorf("a stray Lease: got %w, want it refused", err)
		}
		return nil
	})
}

// client returns an unlimited client of the named agent's pod.
func (w *world) client(t *testing.T, name string) kubernetes.Interface {
	t.Helper()
	return kubernetes.NewForConfigOrDie(w.config(t, name))
}

func (w *world) config(t *testing.T, name string) *rest.Config {
	t.Helper()
	config, err := w.AsPod(t.Context(), namespace, agent, podName(name))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	return config
}

// vacate removes the Lease, as an administrator.
func (w *world) vacate(t *testing.T) {
	t.Helper()
	err := w.admin.CoordinationV1().Leases(namespace).Delete(t.Context(), lease, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}

// holder returns the name in the Lease, empty if there is none.
func (w *world) holder(ctx context.Context) (string, error) {
	found, err := w.admin.CoordinationV1().Leases(namespace).Get(ctx, lease, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || (err == nil && found.Spec.HolderIdentity == nil) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return *found.Spec.HolderIdentity, nil
}

// after waits for d, which only a test of the API server's own clock may do.
func after(d time.Duration) { <-time.After(d) }
