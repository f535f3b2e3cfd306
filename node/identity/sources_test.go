package identity

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestOfNode: what a Node says of itself, and what of that counts.
func TestOfNode(t *testing.T) {
	const i = "i-0123456789abcdef0"
	tests := map[string]struct {
		providerID          string
		labels, annotations map[string]string
		tainted             bool
		want                Facts
		refused             bool   // a value is, and the log says so
		why                 string // part of what the log says of the region
	}{
		"AWS": {
			providerID: "aws:///eu-west-1b/" + i, labels: place("eu-west-1", "eu-west-1b"),
			want: Facts{Region: {"eu-west-1", sourceProviderID}, Partition: {"aws", sourceProviderID}, Zone: {"eu-west-1b", sourceProviderID}, InstanceID: {i, sourceProviderID}},
		},
		"the old label of a local zone": {
			providerID: "aws:///us-west-2-lax-1a/" + i, labels: place("us-west-2-lax-1", "us-west-2-lax-1a"),
			want: Facts{Region: {"us-west-2", sourceProviderID}, Partition: {"aws", sourceProviderID}, Zone: {"us-west-2-lax-1a", sourceProviderID}, InstanceID: {i, sourceProviderID}},
		},
		"the same, by the label alone": {
			providerID: "aws:////" + i, labels: place("us-west-2-lax-1", "us-west-2-lax-1a"),
			want: Facts{Region: {"us-west-2", sourceNodeLabel}, Partition: {"aws", sourceNodeLabel}, Zone: {"us-west-2-lax-1a", sourceNodeLabel}, InstanceID: {i, sourceProviderID}},
		},
		"hybrid: the region is the cluster's, the zone whatever the label says": {
			providerID: "eks-hybrid:///us-west-2/payments/mi-0123456789abcdef0", labels: place("dc-7", "rack-3"),
			want: Facts{
				ClusterID: {"payments", sourceProviderID}, Region: {"us-west-2", sourceProviderID}, Partition: {"aws", sourceProviderID},
				Zone: {"rack-3", sourceNodeLabel}, InstanceID: {"mi-0123456789abcdef0", sourceProviderID},
			},
			refused: true,
		},
		"AWS, but not understood": {
			providerID: "aws:///zone/x", labels: place("eu-west-1", "eu-west-1b"),
			want:    Facts{Region: {"eu-west-1", sourceNodeLabel}, Partition: {"aws", sourceNodeLabel}, Zone: {"eu-west-1b", sourceNodeLabel}},
			refused: true,
		},
		"Huawei's region": {
			providerID: "6f5ac1d0-1111-2222-3333-444455556666", labels: place("cn-north-4", "cn-north-4a"), want: Facts{}, why: "is not of AWS",
		},
		"OpenStack's region, named like one of AWS": {
			providerID: "openstack://us-west-1/6f5a", labels: place("us-west-1", "nova"), want: Facts{}, why: "is not of AWS",
		},
		"labels alone":                          {labels: place("us-west-1", "us-west-1a"), want: Facts{}, why: "has no providerID"},
		"not initialized by the cloud provider": {tainted: true, want: Facts{}, why: "has not initialized it yet"},
		"Cluster API": {
			annotations: map[string]string{"cluster.x-k8s.io/cluster-name": "edge", "cluster.x-k8s.io/cluster-namespace": "team-a"},
			want:        Facts{ClusterID: {"edge", sourceNodeAnnotation}}, why: "has no providerID",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: tt.labels, Annotations: tt.annotations}}
			node.Spec.ProviderID = tt.providerID
			if tt.tainted {
				node.Spec.Taints = []corev1.Taint{{Key: "node.cloudprovider.kubernetes.io/uninitialized", Effect: corev1.TaintEffectNoSchedule}}
			}
			replies := ofNode(node, reply{})
			got, _ := decide(nil, replies)
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("facts (-got +want):\n%s", diff)
			}
			refused := false
			for _, r := range replies {
				refused = refused || r.refused != nil
			}
			if refused != tt.refused {
				t.Errorf("a value is refused: got %t, want %t", refused, tt.refused)
			}
			r := Resolver{replies: replies}
			if why := r.Missing(Region).Why; !strings.Contains(why, tt.why) {
				t.Errorf("why the region is missing: got %q, want %q in it", why, tt.why)
			}
		})
	}
}

func place(region, zone string) map[string]string {
	return map[string]string{corev1.LabelTopologyRegion: region, corev1.LabelTopologyZone: zone}
}

// TestUninitializedNode: a Node that its cloud provider has not seen yet denies
// nothing of what that will set, and does not hold back the cluster ID.
func TestUninitializedNode(t *testing.T) {
	node := &corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: uninitialized}}}}
	prev := Facts{Region: {"eu-west-1", sourceProviderID}, Zone: {"eu-west-1a", sourceProviderID}}
	uid := reply{source: sourceNamespace, about: []Key{ClusterID}, values: map[Key]string{ClusterID: "6f5a-uid"}}
	got, _ := decide(prev, append(ofNode(node, reply{}), uid))
	want := Facts{
		Region: prev[Region], Zone: prev[Zone], Partition: {"aws", sourceProviderID}, ClusterID: {"6f5a-uid", sourceNamespace},
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("facts (-got +want):\n%s", diff)
	}
}

// tags is a metadata service that shows any tag, as those that stand in for EC2's do.
type tags map[string]string

func (m tags) GetMetadata(_ context.Context, in *imds.GetMetadataInput, _ ...func(*imds.Options)) (*imds.GetMetadataOutput, error) {
	body, found := m[strings.TrimPrefix(in.Path, "tags/instance/")]
	if in.Path == "tags/instance" {
		found = true
		for key := range m {
			body += key + "\n"
		}
	}
	if !found {
		response := &smithyhttp.Response{Response: &http.Response{StatusCode: http.StatusNotFound}}
		return nil, &smithyhttp.ResponseError{Response: response, Err: errors.New("not found")}
	}
	return &imds.GetMetadataOutput{Content: io.NopCloser(strings.NewReader(body))}, nil
}

func TestClusterNameTags(t *testing.T) {
	for name, tt := range map[string]struct {
		tags    tags
		want    string
		refused bool
	}{
		"EKS before the rest":       {tags{"eks:cluster-name": "eks", "KubernetesCluster": "kops", "kubernetes.io/cluster/ocp": "owned"}, "eks", false},
		"kOps":                      {tags{"KubernetesCluster": "kops.example.com", "Name": "n"}, "kops.example.com", false},
		"owned":                     {tags{"kubernetes.io/cluster/ocp-x7k2p": "owned"}, "ocp-x7k2p", false},
		"shared":                    {tags{"kubernetes.io/cluster/ocp-x7k2p": "shared"}, "ocp-x7k2p", false},
		"neither owned nor shared":  {tags{"kubernetes.io/cluster/ocp-x7k2p": "no"}, "", false},
		"of two clusters":           {tags{"kubernetes.io/cluster/a": "owned", "kubernetes.io/cluster/b": "shared"}, "", true},
		"of two clusters, one left": {tags{"kubernetes.io/cluster/a": "owned", "kubernetes.io/cluster/b": ""}, "a", false},
		"none":                      {tags{}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := metadata(t.Context(), tt.tags)
			if r.err != nil {
				t.Fatal(r.err)
			}
			if got := r.values[ClusterID]; got != tt.want {
				t.Errorf("cluster ID: got %q, want %q", got, tt.want)
			}
			if (r.refused != nil) != tt.refused {
				t.Errorf("got refusal %v, want one: %t", r.refused, tt.refused)
			}
		})
	}
}

// TestNewNode: Cluster API annotates a Node some time after it was registered, also one
// that is registered again. Until then a known ID stays, and the UID serves meanwhile.
func TestNewNode(t *testing.T) {
	annotated := Facts{ClusterID: {"edge", sourceNodeAnnotation}}
	byUID := Facts{ClusterID: {"6f5a-uid", sourceNamespace}}
	for name, tt := range map[string]struct {
		age   time.Duration
		prev  Facts
		want  Facts
		again bool // soon
	}{
		"new":                          {time.Minute, nil, byUID, true},
		"new, and known before":        {time.Minute, annotated, annotated, false},
		"no longer new":                {time.Hour, nil, byUID, false},
		"no longer new, known before":  {time.Hour, annotated, byUID, false},
		"new, and found the UID first": {time.Minute, byUID, byUID, true},
	} {
		t.Run(name, func(t *testing.T) {
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(time.Now().Add(-tt.age))}}
			uid := reply{source: sourceNamespace, about: []Key{ClusterID}, values: map[Key]string{ClusterID: "6f5a-uid"}}
			asked := append(ofNode(node, reply{}), uid)
			r := New(Options{Previous: tt.prev, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
			r.settle(asked)
			if diff := cmp.Diff(r.Facts(), tt.want); diff != "" {
				t.Errorf("facts (-got +want):\n%s", diff)
			}
			if got := r.tentative(asked); got != tt.again {
				t.Errorf("asked again soon: got %t, want %t", got, tt.again)
			}
		})
	}
}
