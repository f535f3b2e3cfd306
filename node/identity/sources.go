package identity

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
)

// The sources, as identity.json, the metric and the log name them.
const (
	// SourceConfig is an explicit value.
	SourceConfig          = "config"
	sourceInfrastructure  = "openshift-infrastructure"
	sourceMachine         = "openshift-machine"
	sourceClusterProperty = "cluster-property"
	sourceNodeLabel       = "node-label"
	sourceProviderID      = "provider-id"
	sourceIMDS            = "imds"
	sourceNamespace       = "kube-system-uid"
)

// Sources lists every source, most trusted first.
func Sources() []string {
	return []string{
		SourceConfig, sourceInfrastructure, sourceMachine, sourceClusterProperty,
		sourceNodeLabel, sourceProviderID, sourceIMDS, sourceNamespace,
	}
}

var (
	infrastructures   = schema.GroupVersionResource{Group: "config.openshift.io", Version: "v1", Resource: "infrastructures"}
	machines          = schema.GroupVersionResource{Group: "machine.openshift.io", Version: "v1beta1", Resource: "machines"}
	clusterProperties = []schema.GroupVersionResource{
		{Group: "about.k8s.io", Version: "v1beta1", Resource: "clusterproperties"},
		{Group: "about.k8s.io", Version: "v1alpha1", Resource: "clusterproperties"},
	}
)

const (
	machineClusterLabel = "machine.openshift.io/cluster-api-cluster"
	machineAnnotation   = "machine.openshift.io/machine"
	eksctlClusterLabel  = "alpha.eksctl.io/cluster-name"
)

// cluster asks the Kubernetes API.
type cluster struct {
	core             kubernetes.Interface
	dynamic          dynamic.Interface
	nodeName         string
	machineNamespace string
}

// failed sorts the errors: "this cluster has no such thing" is no answer, "we may
// not see it" is one that we note, and anything else is doubt.
func (r *reply) failed(err error) {
	switch {
	case apierrors.IsForbidden(err):
		r.forbidden = true
	case apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err):
	default:
		r.err = err
	}
}

func (c cluster) infrastructure(ctx context.Context) reply {
	r := reply{source: sourceInfrastructure, about: []Key{ClusterID, Region}}
	obj, err := c.dynamic.Resource(infrastructures).Get(ctx, "cluster", metav1.GetOptions{})
	if err != nil {
		r.failed(err)
		return r
	}
	r.values = map[Key]string{
		ClusterID: field(obj, "status", "infrastructureName"),
		Region:    field(obj, "status", "platformStatus", "aws", "region"),
	}
	return r
}

// machine reads the Machine that the node's annotation names, else the first of
// the list: cluster and region are the same for all of them.
func (c cluster) machine(ctx context.Context, node *corev1.Node) reply {
	r := reply{source: sourceMachine, about: []Key{ClusterID, Region}}
	obj, err := c.findMachine(ctx, node)
	if err != nil {
		r.failed(err)
		return r
	}
	if obj == nil {
		return r
	}
	r.values = map[Key]string{
		ClusterID: obj.GetLabels()[machineClusterLabel],
		Region:    field(obj, "spec", "providerSpec", "value", "placement", "region"),
	}
	return r
}

func (c cluster) findMachine(ctx context.Context, node *corev1.Node) (*unstructured.Unstructured, error) {
	if node != nil {
		namespace, name, ok := strings.Cut(node.Annotations[machineAnnotation], "/")
		if ok && namespace == c.machineNamespace && name != "" {
			obj, err := c.dynamic.Resource(machines).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
			if !apierrors.IsNotFound(err) {
				return obj, err
			}
		}
	}
	list, err := c.dynamic.Resource(machines).Namespace(c.machineNamespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil || len(list.Items) == 0 {
		return nil, err
	}
	return &list.Items[0], nil
}

func (c cluster) clusterProperty(ctx context.Context) reply {
	r := reply{source: sourceClusterProperty, about: []Key{ClusterID}}
	for _, version := range clusterProperties {
		obj, err := c.dynamic.Resource(version).Get(ctx, "cluster.clusterset.k8s.io", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue // this cluster may serve the other version
		}
		if err != nil {
			r.failed(err)
			return r
		}
		r.values = map[Key]string{ClusterID: field(obj, "spec", "value")}
		return r
	}
	return r
}

// node reads the node's own object, and what came of it for the sources that go by
// it. The Node is nil when it could not be read, or when we do not know its name.
func (c cluster) node(ctx context.Context) (*corev1.Node, reply) {
	var outcome reply
	if c.nodeName == "" {
		return nil, outcome
	}
	node, err := c.core.CoreV1().Nodes().Get(ctx, c.nodeName, metav1.GetOptions{})
	if err != nil {
		outcome.failed(fmt.Errorf("get node %s: %w", c.nodeName, err))
		return nil, outcome
	}
	return node, outcome
}

func nodeLabels(node *corev1.Node, r reply) reply {
	r.source, r.about = sourceNodeLabel, []Key{ClusterID, Region, Zone, InstanceType}
	if node != nil {
		r.values = map[Key]string{
			ClusterID:    node.Labels[eksctlClusterLabel],
			Region:       node.Labels[corev1.LabelTopologyRegion],
			Zone:         node.Labels[corev1.LabelTopologyZone],
			InstanceType: node.Labels[corev1.LabelInstanceTypeStable],
		}
	}
	return r
}

// providerID answers with what the ID says; one that makes no sense is passed on
// as the refusal of that one value.
func providerID(node *corev1.Node, r reply) reply {
	r.source, r.about = sourceProviderID, []Key{Region, Zone, InstanceID}
	if node == nil {
		return r
	}
	zone, instance, err := ParseProviderID(node.Spec.ProviderID)
	if err != nil {
		r.refused = err
		return r
	}
	r.values = map[Key]string{Zone: zone, Region: RegionOfZone(zone), InstanceID: instance}
	return r
}

func (c cluster) namespace(ctx context.Context) reply {
	r := reply{source: sourceNamespace, about: []Key{ClusterID}}
	ns, err := c.core.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		r.failed(err)
		return r
	}
	r.values = map[Key]string{ClusterID: string(ns.UID)}
	return r
}

// replies asks every source of the cluster at once and returns them in rank order.
func (c cluster) replies(ctx context.Context) []reply {
	infra, property, namespace := make(chan reply, 1), make(chan reply, 1), make(chan reply, 1)
	go func() { infra <- c.infrastructure(ctx) }()
	go func() { property <- c.clusterProperty(ctx) }()
	go func() { namespace <- c.namespace(ctx) }()
	node, outcome := c.node(ctx)
	machine := c.machine(ctx, node)
	return []reply{<-infra, machine, <-property, nodeLabels(node, outcome), providerID(node, outcome), <-namespace}
}

// field reads a string, and treats any other shape as absent: these objects
// belong to other projects.
func field(obj *unstructured.Unstructured, path ...string) string {
	s, _, err := unstructured.NestedString(obj.Object, path...)
	if err != nil {
		return "" // not a string: no answer
	}
	return s
}
