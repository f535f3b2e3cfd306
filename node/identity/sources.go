package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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
	sourceProviderID      = "provider-id"
	sourceNodeLabel       = "node-label"
	sourceNodeAnnotation  = "node-annotation"
	sourceIMDS            = "imds"
	sourceNamespace       = "kube-system-uid"
)

// Sources lists every source, most trusted first.
func Sources() []string {
	return []string{
		SourceConfig, sourceInfrastructure, sourceMachine, sourceClusterProperty,
		sourceProviderID, sourceNodeLabel, sourceNodeAnnotation, sourceIMDS, sourceNamespace,
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
	computeTypeLabel    = "eks.amazonaws.com/compute-type"
	capiAnnotation      = "cluster.x-k8s.io/cluster-name"
	// uninitialized taints a Node until its cloud provider has set what it knows.
	uninitialized = "node.cloudprovider.kubernetes.io/uninitialized"
	// newNode is the age until which Cluster API may have yet to annotate a Node: it
	// finds the Node by its providerID, and may have others to do first.
	newNode = 10 * time.Minute
)

var errUninitialized = errors.New("its cloud provider has not initialized it yet")

// knows lists the facts that each source of the cluster could know.
var knows = map[string][]Key{
	sourceInfrastructure:  {ClusterID, Region},
	sourceMachine:         {ClusterID, Region},
	sourceClusterProperty: {ClusterID},
	sourceProviderID:      {ClusterID, Region, Zone, InstanceID},
	sourceNodeLabel:       {ClusterID, Region, Zone, InstanceType},
	sourceNodeAnnotation:  {ClusterID},
	sourceNamespace:       {ClusterID},
}

// of returns an outcome as the reply of a source.
func (r reply) of(source string) reply {
	r.source, r.about = source, knows[source]
	return r
}

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
	r := reply{}.of(sourceInfrastructure)
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
	r := reply{}.of(sourceMachine)
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
		// Machines of other clouds keep their region elsewhere.
		Region: field(obj, "spec", "providerSpec", "value", "placement", "region"),
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
	r := reply{}.of(sourceClusterProperty)
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
		outcome.absent = apierrors.IsNotFound(err)
		return nil, outcome
	}
	return node, outcome
}

// ofNode returns the answers of the sources that go by the node's own object, in
// rank order. outcome is what came of reading it; node is nil if that failed.
func ofNode(node *corev1.Node, outcome reply) []reply {
	id, labels, annotations := outcome.of(sourceProviderID), outcome.of(sourceNodeLabel), outcome.of(sourceNodeAnnotation)
	if node != nil {
		provider := id.readProviderID(node)
		labels.readLabels(node, provider)
		annotations.readAnnotations(node)
	}
	return []reply{id, labels, annotations}
}

// readAnnotations takes a missing annotation for no denial while the Node is new.
func (r *reply) readAnnotations(node *corev1.Node) {
	r.values = map[Key]string{ClusterID: node.Annotations[capiAnnotation]}
	r.tentative = r.values[ClusterID] == "" && time.Since(node.CreationTimestamp.Time) < newNode
}

// ByMetadata returns the cluster ID that a Node's labels and annotations give its agent,
// and whether the agent has one from its Node at all: that of a hybrid node of EKS is in
// the providerID, and here empty.
func ByMetadata(labels, annotations map[string]string) (id string, known bool) {
	id = cmp.Or(labels[eksctlClusterLabel], annotations[capiAnnotation])
	return id, id != "" || labels[computeTypeLabel] == "hybrid"
}

// Shared reports whether what a source says is the same on every node of a cluster.
func Shared(source string) bool {
	switch source {
	case SourceConfig, sourceInfrastructure, sourceMachine, sourceClusterProperty:
		return true
	default:
		return false
	}
}

// readProviderID takes what makes sense of the ID, and the rest as refused. The node
// has none until its cloud provider has seen it: that is no denial.
func (r *reply) readProviderID(node *corev1.Node) Provider {
	id := node.Spec.ProviderID
	p, err := ParseProviderID(id)
	r.refused = err
	r.ofAWS = p.AWS
	r.values = map[Key]string{ClusterID: p.Cluster, Region: p.Region, Zone: p.Zone, InstanceID: p.Instance}
	switch {
	case p.AWS && p.Region == "":
		r.why = fmt.Sprintf("providerID %.140q names no zone", id)
	case p.AWS:
	case id != "":
		r.why = fmt.Sprintf("providerID %.140q is not of AWS", id)
	case slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == uninitialized }):
		r.about = []Key{Region, Zone, InstanceID} // the cluster's name is of kubelet, not of the cloud
		r.err = fmt.Errorf("node %s has no providerID, and the taint %s: %w", node.Name, uninitialized, errUninitialized)
	default:
		r.why = "the Node has no providerID"
	}
	return p
}

// readLabels takes the place from the labels only on nodes of AWS: other clouds have
// regions of the same form, and some of the same name.
func (r *reply) readLabels(node *corev1.Node, provider Provider) {
	r.values = map[Key]string{ClusterID: node.Labels[eksctlClusterLabel], InstanceType: node.Labels[corev1.LabelInstanceTypeStable]}
	region := node.Labels[corev1.LabelTopologyRegion]
	switch {
	case !provider.AWS && region != "":
		r.why = fmt.Sprintf("label %s=%s ignored, the providerID is not of AWS", corev1.LabelTopologyRegion, region)
	case !provider.AWS:
	default:
		r.values[Region], r.values[Zone] = regionOf(region), node.Labels[corev1.LabelTopologyZone]
		if region != "" && r.values[Region] == "" {
			r.refused = fmt.Errorf("label %s=%s: not a region of AWS", corev1.LabelTopologyRegion, region)
		}
	}
}

func (c cluster) namespace(ctx context.Context) reply {
	r := reply{}.of(sourceNamespace)
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
	all := append([]reply{<-infra, machine, <-property}, ofNode(node, outcome)...)
	return append(all, <-namespace)
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
