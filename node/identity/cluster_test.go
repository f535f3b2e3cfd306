package identity_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/node/identity"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fakeaws"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// options are those of an agent with the rights that deploy/ gives it.
func options(t *testing.T, cfg *rest.Config, node string) (identity.Options, *bytes.Buffer) {
	t.Helper()
	var logs bytes.Buffer
	core, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return identity.Options{
		NodeName: node, Core: core, Dynamic: dyn,
		Log: slog.New(slog.NewTextHandler(&logs, nil)), Metrics: prometheus.NewRegistry(),
	}, &logs
}

func resolve(t *testing.T, o identity.Options) identity.Facts {
	t.Helper()
	facts, err := identity.New(o).Resolve(t.Context())
	if err != nil {
		t.Errorf("sources that could not be asked: %v", err)
	}
	return facts
}

func want(t *testing.T, got identity.Facts, want map[identity.Key]identity.Fact) {
	t.Helper()
	if diff := cmp.Diff(got, identity.Facts(want)); diff != "" {
		t.Errorf("facts (-got +want):\n%s", diff)
	}
}

// scene is a real cluster, the fixtures' nodes in it, and the agents' rights.
type scene struct {
	t       *testing.T
	cluster *cluster.Cluster
	admin   kubernetes.Interface
}

// TestSourcesOnARealCluster goes from a bare cluster to one with every source.
// The steps build on each other.
func TestSourcesOnARealCluster(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{})
	expect.OK(t, fixtures.Deploy(t.Context(), c))
	expect.OK(t, fixtures.Apply(t.Context(), c, "eks", "kubeadm", "openshift"))
	admin, err := kubernetes.NewForConfig(c.Admin())
	expect.OK(t, err)
	for _, step := range []struct {
		name string
		run  func(scene)
	}{
		{"kubeadm: providerID and UID, API groups absent", scene.kubeadm},
		{"EKS: labels, and what config says wins", scene.eks},
		{"IMDS fills in what a kubeadm node lacks", scene.metadata},
		{"ClusterProperty", scene.clusterProperty},
		{"OpenShift", scene.openShift},
		{"RBAC refuses one source", scene.refused},
		{"API server down: what was known stays", scene.down},
	} {
		t.Run(step.name, func(t *testing.T) { step.run(scene{t, c, admin}) })
	}
}

// options are those of the agent on a node.
func (s scene) options(node string) (identity.Options, *bytes.Buffer) {
	s.t.Helper()
	cfg, err := fixtures.AgentPod(s.t.Context(), s.cluster, node)
	expect.OK(s.t, err)
	return options(s.t, cfg, node)
}

func (s scene) kubeadm() {
	system, err := s.admin.CoreV1().Namespaces().Get(s.t.Context(), "kube-system", metav1.GetOptions{})
	expect.OK(s.t, err)
	o, logs := s.options(fixtures.KubeadmNode)
	want(s.t, resolve(s.t, o), map[identity.Key]identity.Fact{
		"clusterID": {Value: string(system.UID), Source: "kube-system-uid"}, "region": {Value: "us-west-2", Source: "provider-id"},
		"zone": {Value: "us-west-2-lax-1a", Source: "provider-id"}, "partition": {Value: "aws", Source: "provider-id"},
		"instanceID": {Value: "i-0123456789abcdef0", Source: "provider-id"}, "nodeName": {Value: fixtures.KubeadmNode, Source: "config"},
	})
	if strings.Contains(logs.String(), "level=WARN") {
		s.t.Errorf("absent API groups are no reason for a warning:\n%s", logs)
	}
}

func (s scene) eks() {
	o, logs := s.options(fixtures.EKSNode)
	o.Region = "eu-central-1"
	want(s.t, resolve(s.t, o), map[identity.Key]identity.Fact{
		"clusterID": {Value: "payments", Source: "node-label"}, "region": {Value: "eu-central-1", Source: "config"},
		"zone": {Value: "eu-west-1b", Source: "provider-id"}, "partition": {Value: "aws", Source: "config"},
		"instanceID": {Value: "i-0a1b2c3d4e5f60718", Source: "provider-id"}, "instanceType": {Value: "m7i.large", Source: "node-label"},
		"nodeName": {Value: fixtures.EKSNode, Source: "config"},
	})
	if got := strings.Count(logs.String(), "identity sources disagree"); got != 2 {
		s.t.Errorf("got %d disagreements, want 2, of the node's label and providerID:\n%s", got, logs)
	}
}

func (s scene) metadata() {
	o, _ := s.options(fixtures.KubeadmNode)
	o.Metadata = metadataService(s.t, fakeaws.Instance{
		Region: "us-west-2", Zone: "us-west-2-lax-1a", ID: "i-0123456789abcdef0", Type: "c7g.large",
		Tags: map[string]string{"eks:cluster-name": "edge", "Name": "worker-3"},
	})
	facts := resolve(s.t, o)
	if got := facts["clusterID"]; got != (identity.Fact{Value: "edge", Source: "imds"}) {
		s.t.Errorf("cluster ID: got %v, want that of the instance's tag", got)
	}
	if got := facts["instanceType"]; got != (identity.Fact{Value: "c7g.large", Source: "imds"}) {
		s.t.Errorf("instance type: got %v, want that of IMDS", got)
	}
}

func (s scene) clusterProperty() {
	expect.OK(s.t, fixtures.Apply(s.t.Context(), s.cluster, "crds", "clusterproperty"))
	o, _ := s.options(fixtures.EKSNode)
	if got := resolve(s.t, o)["clusterID"]; got != (identity.Fact{Value: "fleet-member-7", Source: "cluster-property"}) {
		s.t.Errorf("cluster ID: got %v, want that of the ClusterProperty", got)
	}
}

func (s scene) openShift() {
	expect.OK(s.t, fixtures.OpenShift(s.t.Context(), s.cluster))
	o, logs := s.options(fixtures.OpenShiftNode)
	reg := prometheus.NewRegistry()
	o.Metrics = reg
	want(s.t, resolve(s.t, o), map[identity.Key]identity.Fact{
		"clusterID": {Value: "prod-x7k2p", Source: "openshift-infrastructure"}, "region": {Value: "us-east-2", Source: "openshift-infrastructure"},
		"zone": {Value: "us-east-2a", Source: "provider-id"}, "partition": {Value: "aws", Source: "openshift-infrastructure"},
		"instanceID": {Value: "i-0f9e8d7c6b5a43210", Source: "provider-id"}, "instanceType": {Value: "m6i.xlarge", Source: "node-label"},
		"nodeName": {Value: fixtures.OpenShiftNode, Source: "config"},
	})
	if !strings.Contains(logs.String(), "fleet-member-7") {
		s.t.Errorf("the ClusterProperty disagrees, and the log does not say so:\n%s", logs)
	}
	if got := sourceOf(s.t, reg, "clusterID"); got != "openshift-infrastructure" {
		s.t.Errorf("metric chandler_identity_source of clusterID: got %q, want openshift-infrastructure", got)
	}
}

// refused takes the right to read Infrastructures from the agents.
func (s scene) refused() {
	role, err := s.admin.RbacV1().ClusterRoles().Get(s.t.Context(), "chandler-agent", metav1.GetOptions{})
	expect.OK(s.t, err)
	role.Rules = slices.DeleteFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return r.APIGroups[0] == "config.openshift.io" })
	_, err = s.admin.RbacV1().ClusterRoles().Update(s.t.Context(), role, metav1.UpdateOptions{})
	expect.OK(s.t, err)
	o, logs := s.options(fixtures.OpenShiftNode)
	got, deadline := identity.Fact{}, time.Now().Add(30*time.Second)
	for got.Source != "openshift-machine" && time.Now().Before(deadline) { // the authorizer follows within moments
		o.Metrics = prometheus.NewRegistry()
		got = resolve(s.t, o)["clusterID"]
	}
	if got != (identity.Fact{Value: "prod-x7k2p", Source: "openshift-machine"}) {
		s.t.Errorf("cluster ID: got %v, want that of the Machine", got)
	}
	if !strings.Contains(logs.String(), "RBAC refuses") {
		s.t.Errorf("the refusal is not in the log:\n%s", logs)
	}
	if strings.Contains(logs.String(), "could not be asked") {
		s.t.Errorf("a refusal is no answer, not a failure:\n%s", logs)
	}
}

func (s scene) down() {
	o, _ := s.options(fixtures.EKSNode)
	o.Previous = identity.Facts{"clusterID": {Value: "prod-x7k2p", Source: "openshift-infrastructure"}}
	s.cluster.StopAPIServer()
	facts, err := identity.New(o).Resolve(s.t.Context())
	if err == nil {
		s.t.Error("got no error from sources that could not be asked")
	}
	if got := facts["clusterID"].Value; got != "prod-x7k2p" {
		s.t.Errorf("cluster ID: got %q, want the one known before", got)
	}
}

// sourceOf reads from the metric which source a fact comes from.
func sourceOf(t *testing.T, reg prometheus.Gatherer, fact string) string {
	t.Helper()
	families, err := reg.Gather()
	expect.OK(t, err)
	for _, f := range families {
		for _, m := range f.Metric {
			labels := map[string]string{}
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			if f.GetName() == "chandler_identity_source" && labels["fact"] == fact && m.Gauge.GetValue() == 1 {
				return labels["source"]
			}
		}
	}
	return ""
}

func metadataService(t *testing.T, i fakeaws.Instance) *imds.Client {
	t.Helper()
	s, err := fakeaws.Listen(fakeaws.Options{})
	expect.OK(t, err)
	t.Cleanup(func() { expect.OK(t, s.Close()) })
	m, err := s.AddInstance(i)
	expect.OK(t, err)
	return imds.New(imds.Options{Endpoint: m.URL(), EnableFallback: aws.FalseTernary})
}

// TestMetadataOutOfReach is a pod behind a hop limit of 1: nothing waits for it.
func TestMetadataOutOfReach(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{})
	expect.OK(t, fixtures.Deploy(t.Context(), c))
	expect.OK(t, fixtures.Apply(t.Context(), c, "eks"))
	cfg, err := fixtures.AgentPod(t.Context(), c, fixtures.EKSNode)
	expect.OK(t, err)
	o, logs := options(t, cfg, fixtures.EKSNode)
	o.Metadata = metadataService(t, fakeaws.Instance{Region: "eu-west-1", Zone: "eu-west-1b", ID: "i-0a1b2c3d4e5f60718", HopLimit: 1})
	r := identity.New(o)
	ctx, cancel := context.WithCancel(t.Context())
	changed, ended := make(chan struct{}, 10), make(chan error, 1)
	go func() { ended <- r.Run(ctx, func() { changed <- struct{}{} }) }()
	<-changed
	if strings.Contains(logs.String(), "source=imds") {
		t.Errorf("the first round has waited for IMDS to fail:\n%s", logs)
	}
	if got := r.Facts()["region"]; got != (identity.Fact{Value: "eu-west-1", Source: "provider-id"}) {
		t.Errorf("region: got %v, want that of the providerID while IMDS hangs", got)
	}
	cancel()
	expect.OK(t, <-ended)
}
