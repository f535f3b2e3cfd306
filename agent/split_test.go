package agent_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/agent"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// TestSplit runs the leaders of the split installation as the pods of its
// Deployment, under exactly its manifest, beside an agent that never leads.
func TestSplit(t *testing.T) {
	c := controlPlane(t)
	expect.OK(t, c.ApplyFiles(t.Context(), filepath.Join(fixtures.Root(), "deploy", "optional", "split.yaml")))
	aws := startAWS(t)
	client, err := kubernetes.NewForConfig(c.Admin())
	expect.OK(t, err)
	keys := aws.NewKeys("ecr")
	_, err = client.CoreV1().Secrets(fixtures.HostNamespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "eatr-aws-credentials-" + registry},
		StringData: map[string]string{"aws_access_key_id": keys.AccessKeyID, "aws_secret_access_key": keys.SecretAccessKey},
	}, metav1.CreateOptions{})
	expect.OK(t, err)

	node := newBench(t, agentPod(t, c, fixtures.KubeadmNode))
	node.start(fixtures.KubeadmNode)
	node.awaitStatus("/readyz", 200)
	t.Run("an agent's token", func(t *testing.T) { testSplitAgent(t, c) })

	leaders := map[string]*splitLeader{}
	for pod, node := range splitPods(t, client) {
		leaders[pod] = startSplitLeader(t, c, pod, node)
	}
	makeNamespace(t, client, "team-a")
	awaitPullSecret(t, client, "team-a")
	first := holder(t, client, "")
	if leaders[first] == nil {
		t.Fatalf("the Lease names %s, want a pod of the Deployment", first)
	}
	leaders[first].awaitStatus("/healthz", 200)
	leaders[first].awaitStatus("/readyz", 200)
	if body := leaders[first].mustMetrics(); !strings.Contains(body, "chandler_leader 1\n") {
		t.Error("the leader's metrics do not say that it leads")
	}
	if _, err := os.Stat(leaders[first].hostDir); !os.IsNotExist(err) {
		t.Errorf("the leader has made a host directory: %v", err)
	}
	t.Run("the other pod's token", func(t *testing.T) { testSplitOther(t, c, leaders, first) })
	expect.OK(t, leaders[first].stop())
	second := holder(t, client, first)
	makeNamespace(t, client, "team-b")
	awaitPullSecret(t, client, "team-b")
	if leaders[second] == nil || second == first {
		t.Errorf("the Lease names %s, want the other pod", second)
	}
	if node.logged("msg=leading") || node.logged("lease") {
		t.Error("the agent has taken part in the election")
	}
}

// splitPods returns the nodes of the Deployment's pods, by name, once they are on
// one, which here is for the test to see to.
func splitPods(t *testing.T, client kubernetes.Interface) map[string]string {
	t.Helper()
	pods := client.CoreV1().Pods(fixtures.Namespace)
	var names []string
	eventually(t, func() (bool, string) {
		found, err := pods.List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=chandler-leader"})
		expect.OK(t, err)
		names = nil
		for i := range found.Items {
			names = append(names, found.Items[i].Name)
		}
		return len(names) == 2, fmt.Sprintf("the Deployment has pods %v, want two", names)
	})
	placed := map[string]string{}
	for i, node := range []string{fixtures.EKSNode, fixtures.KubeadmNode} {
		placed[names[i]] = node
		expect.OK(t, pods.Bind(t.Context(), &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Name: names[i]}, Target: corev1.ObjectReference{Kind: "Node", Name: node},
		}, metav1.CreateOptions{}))
	}
	return placed
}

// splitLeader is one pod's process.
type splitLeader struct {
	*bench
	stop func() error
}

func startSplitLeader(t *testing.T, c *cluster.Cluster, pod, node string) *splitLeader {
	t.Helper()
	var token *rest.Config
	eventually(t, func() (bool, string) { // as a kubelet goes on asking
		var err error
		token, err = c.AsPod(t.Context(), fixtures.Namespace, "chandler-leader", pod)
		return err == nil, fmt.Sprint(err)
	})
	l := &splitLeader{bench: newBench(t, token)}
	l.leader = "leader: {enabled: false, leaseDuration: 4s, podLogs: {enabled: false}}" // as the agents read it
	l.configure("")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- agent.RunLeader(ctx, agent.Options{
			ConfigFile: l.configFile, Kubeconfig: l.kubeconfig, Version: "test", PodName: pod, NodeName: node, Namespace: fixtures.Namespace,
			Log: slog.New(slog.NewTextHandler(&l.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
	}()
	l.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		expect.OK(t, l.stop())
		if t.Failed() {
			t.Logf("log of leader %s:\n%s", pod, l.logs.String())
		}
	})
	return l
}

// testSplitAgent: with leader.enabled false an agent needs no right of the
// election, and has none.
func testSplitAgent(t *testing.T, c *cluster.Cluster) {
	client, err := kubernetes.NewForConfig(agentPod(t, c, fixtures.KubeadmNode))
	expect.OK(t, err)
	leases := client.CoordinationV1().Leases(fixtures.Namespace)
	me := fixtures.PodName(fixtures.KubeadmNode)
	seconds := int32(15)
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "chandler"},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &me, LeaseDurationSeconds: &seconds, RenewTime: &metav1.MicroTime{Time: time.Now()},
		},
	}
	attempts := map[string]error{}
	_, attempts["see the Lease"] = leases.Get(t.Context(), "chandler", metav1.GetOptions{})
	_, attempts["create the Lease"] = leases.Create(t.Context(), lease, metav1.CreateOptions{FieldManager: "chandler"})
	_, attempts["write the Lease"] = leases.Update(t.Context(), lease, metav1.UpdateOptions{FieldManager: "chandler"})
	_, attempts["get the leader's token"] = client.CoreV1().ServiceAccounts(fixtures.Namespace).
		CreateToken(t.Context(), "chandler-leader", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	for what, err := range attempts {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want it forbidden", what, err)
		}
	}
}

// testSplitOther: a pod of the Deployment cannot seize the Lease of another.
func testSplitOther(t *testing.T, c *cluster.Cluster, leaders map[string]*splitLeader, first string) {
	for pod := range leaders {
		if pod == first {
			continue
		}
		token, err := c.AsPod(t.Context(), fixtures.Namespace, "chandler-leader", pod)
		expect.OK(t, err)
		client, err := kubernetes.NewForConfig(token)
		expect.OK(t, err)
		leases := client.CoordinationV1().Leases(fixtures.Namespace)
		for name, holder := range map[string]string{"seize it": pod, "empty it": "", "renew it": first} {
			eventually(t, func() (bool, string) { // the leader writes it too
				lease, err := leases.Get(t.Context(), "chandler", metav1.GetOptions{})
				expect.OK(t, err)
				lease.Spec.HolderIdentity, lease.Spec.RenewTime = &holder, &metav1.MicroTime{Time: time.Now()}
				_, err = leases.Update(t.Context(), lease, metav1.UpdateOptions{FieldManager: "chandler"})
				if err == nil {
					t.Errorf("%s: got no error, want it forbidden", name)
				}
				return err == nil || apierrors.IsForbidden(err), fmt.Sprintf("%s: got %v, want it forbidden", name, err)
			})
		}
	}
}
