package agent_test

import (
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fakeaws"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// TestClusterStatusTakeover lets one agent publish after the other. Each publishes to
// the region that its node was found to be in, which tells them apart.
func TestClusterStatusTakeover(t *testing.T) {
	c := controlPlane(t)
	expect.OK(t, c.ApplyFiles(t.Context(), filepath.Join(fixtures.Root(), "deploy", "optional", "clusterstatus.yaml")))
	expect.OK(t, c.Apply(t.Context(), []byte(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: idle, namespace: chandler}
spec:
  replicas: 0
  selector: {matchLabels: {app: idle}}
  template:
    metadata: {labels: {app: idle}}
    spec: {containers: [{name: c, image: none}]}
`)))
	aws, err := fakeaws.Listen(fakeaws.Options{})
	expect.OK(t, err)
	t.Cleanup(func() { expect.OK(t, aws.Close()) })
	for name, value := range aws.Env() {
		t.Setenv(name, value)
	}
	keys := aws.NewKeys("status")
	t.Setenv("AWS_ACCESS_KEY_ID", keys.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", keys.SecretAccessKey)
	t.Setenv("AWS_REGION", "")
	client, err := kubernetes.NewForConfig(c.Admin())
	expect.OK(t, err)

	regions := map[string]string{
		fixtures.PodName(fixtures.EKSNode): "eu-west-1", fixtures.PodName(fixtures.KubeadmNode): "us-west-2",
	}
	stops := map[string]func() error{}
	for _, node := range []string{fixtures.EKSNode, fixtures.KubeadmNode} {
		b := newBench(t, agentPod(t, c, node))
		b.leader = `leader:
  leaseDuration: 4s
  podLogs: {enabled: false}
  pullSecrets: {enabled: false}
  clusterStatus:
    enabled: true
    seconds: 5
    metric: {namespace: Test, name: Healthy}
    targets: [{kind: Deployment, namespace: chandler, name: idle, mode: AllOfThem}]`
		b.configure("")
		stops[fixtures.PodName(node)] = b.start(node)
	}
	awaitData(t, aws, "")
	first := holder(t, client, "")
	expect.OK(t, stops[first]())
	second := holder(t, client, first)
	awaitData(t, aws, regions[second])

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

// awaitData waits for two data in a region, or in any. A new leader may have to leave a whole
// minute to its predecessor.
func awaitData(t *testing.T, aws *fakeaws.Server, region string) {
	t.Helper()
	deadline := time.After(2 * patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		found := 0
		for _, d := range aws.Data() {
			if region == "" || d.Call.Region == region {
				found++
			}
		}
		if found >= 2 {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("after %s: %d data in %s, want 2", 2*patience, found, region)
		case <-tick.C:
		}
	}
}
