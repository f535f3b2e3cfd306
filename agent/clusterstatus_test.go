package agent_test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/config"
	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/clusterstatus"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fakeaws"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// TestClusterStatus runs agents that hold a real Lease, and reads what CloudWatch got.
func TestClusterStatus(t *testing.T) {
	c := controlPlane(t)
	expect.OK(t, c.ApplyFiles(t.Context(), filepath.Join(fixtures.Root(), "deploy", "optional", "clusterstatus.yaml")))
	expect.OK(t, c.Apply(t.Context(), deployment("idle", 0), deployment("web", 1)))
	t.Run("value follows the pods", func(t *testing.T) { testValueFollows(t, c) })
	t.Run("takeover", func(t *testing.T) { testStatusTakeover(t, c) })
}

func deployment(name string, replicas int) []byte {
	return fmt.Appendf(nil, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: chandler}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec: {containers: [{name: c, image: none}]}
`, name, replicas)
}

// leaderOf is the section leader with cluster status of one Deployment besides what a
// test adds.
func leaderOf(more, target string) string {
	return fmt.Sprintf(`leader:
  leaseDuration: 4s
  %s
  clusterStatus:
    enabled: true
    seconds: 5
    metric: {namespace: Test, name: Healthy}
    targets: [{kind: Deployment, namespace: chandler, name: %s, mode: AllOfThem}]`, more, target)
}

const statusAlone = "podLogs: {enabled: false}\n  pullSecrets: {enabled: false}"

// setProcessKeys gives the process an AWS identity, and no region.
func setProcessKeys(t *testing.T, aws *fakeaws.Server) {
	t.Helper()
	keys := aws.NewKeys("status")
	t.Setenv("AWS_ACCESS_KEY_ID", keys.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", keys.SecretAccessKey)
	t.Setenv("AWS_REGION", "")
}

// testValueFollows is the whole way: a Deployment's status, the Lease, the datum.
func testValueFollows(t *testing.T, c *cluster.Cluster) {
	aws := startAWS(t)
	setProcessKeys(t, aws)
	client, err := kubernetes.NewForConfig(c.Admin())
	expect.OK(t, err)
	b := newBench(t, agentPod(t, c, fixtures.EKSNode))
	b.leader = leaderOf(statusAlone, "web")
	b.configure("")
	stop := b.start(fixtures.EKSNode)
	for _, value := range []float64{1, 0, 1} {
		setReady(t, client, "web", value == 1)
		awaitValue(t, aws, value)
	}
	if got, want := holder(t, client, ""), fixtures.PodName(fixtures.EKSNode); got != want {
		t.Errorf("the Lease is held by %s, want %s", got, want)
	}
	b.awaitLog("task=clusterstatus", "target not healthy", "Deployment chandler/web", "0 of 1 desired ready")
	expect.OK(t, stop())
}

// setReady plays the kubelet of a Deployment's pods.
func setReady(t *testing.T, client kubernetes.Interface, app string, ready bool) {
	t.Helper()
	status := map[bool]corev1.ConditionStatus{true: corev1.ConditionTrue, false: corev1.ConditionFalse}[ready]
	eventually(t, func() (bool, string) {
		pods, err := client.CoreV1().Pods(fixtures.Namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
		expect.OK(t, err)
		for i := range pods.Items {
			pods.Items[i].Status.Phase = corev1.PodRunning
			pods.Items[i].Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
			if _, err := client.CoreV1().Pods(fixtures.Namespace).UpdateStatus(t.Context(), &pods.Items[i], metav1.UpdateOptions{}); err != nil {
				return false, err.Error()
			}
		}
		return len(pods.Items) > 0, "no pod of " + app
	})
}

// testStatusTakeover lets one agent publish after the other. Each publishes to the
// region that its node was found to be in, which tells them apart.
func testStatusTakeover(t *testing.T, c *cluster.Cluster) {
	aws := startAWS(t)
	setProcessKeys(t, aws)
	client, err := kubernetes.NewForConfig(c.Admin())
	expect.OK(t, err)
	regions := map[string]string{
		fixtures.PodName(fixtures.EKSNode): "eu-west-1", fixtures.PodName(fixtures.KubeadmNode): "us-west-2",
	}
	stops := map[string]func() error{}
	for _, node := range []string{fixtures.EKSNode, fixtures.KubeadmNode} {
		b := newBench(t, agentPod(t, c, node))
		b.leader = leaderOf(statusAlone, "idle")
		b.configure("")
		stops[fixtures.PodName(node)] = b.start(node)
	}
	awaitData(t, aws, "", 2)
	first := holder(t, client, "")
	expect.OK(t, stops[first]())
	second := holder(t, client, first)
	awaitData(t, aws, regions[second], 2)

	writers := map[time.Time]string{}
	for _, d := range aws.Data() {
		minute := d.Timestamp.Truncate(time.Minute)
		if before, ok := writers[minute]; ok && before != d.Call.Region {
			t.Errorf("minute %s: data in %s and in %s", minute, before, d.Call.Region)
		}
		writers[minute] = d.Call.Region
		if d.Value != 1 || d.Namespace != "Test" || d.Name != "Healthy" {
			t.Errorf("got %+v, want a 1 of Test Healthy", d)
		}
	}
}

// awaitData waits for so many data in a region, or in any. A new leader may have to
// leave a whole minute to its predecessor.
func awaitData(t *testing.T, aws *fakeaws.Server, region string, want int) {
	t.Helper()
	expect.Done(t, 2*patience, func() (bool, string) {
		found := 0
		for _, d := range aws.Data() {
			if region == "" || d.Call.Region == region {
				found++
			}
		}
		return found >= want, fmt.Sprintf("%d data in %q, want %d", found, region, want)
	})
}

// awaitValue waits until the newest datum has a value.
func awaitValue(t *testing.T, aws *fakeaws.Server, want float64) {
	t.Helper()
	expect.Done(t, 2*patience, func() (bool, string) {
		data := aws.Data()
		if len(data) == 0 {
			return false, "no datum"
		}
		return data[len(data)-1].Value == want, fmt.Sprintf("got %v, want %v", data[len(data)-1].Value, want)
	})
}

// TestModesAreTheConfigurations: package config and the task, which may not import each
// other, mean the same by a kind and a mode.
func TestModesAreTheConfigurations(t *testing.T) {
	metrics, err := clusterstatus.NewMetrics(prometheus.NewRegistry())
	expect.OK(t, err)
	accepted := func(kind string, mode config.Mode) bool {
		_, err := clusterstatus.New(leader.Term{Log: slog.New(slog.DiscardHandler)}, clusterstatus.Options{
			Interval: time.Minute, Metric: clusterstatus.Metric{Namespace: "N", Name: "M"}, Metrics: metrics,
			Targets: []clusterstatus.Target{{Kind: kind, Namespace: "n", Name: "w", Mode: clusterstatus.Mode(mode)}},
		})
		return err == nil
	}
	for _, kind := range config.Kinds() {
		for _, mode := range []config.Mode{config.AllOfThem, config.AtLeastOne, config.AtLeast, config.Percentage, config.LastRunSucceeded} {
			if got, want := accepted(kind, mode), slices.Contains(config.Modes(kind), string(mode)); got != want {
				t.Errorf("%s of a %s: the task accepts it: %v, the configuration: %v", mode, kind, got, want)
			}
		}
	}
}
