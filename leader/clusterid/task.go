// Package clusterid warns of a cluster whose nodes would find different cluster IDs:
// some have it on their Node or in it, and the others fall back to another source. What
// goes by the ID then takes one cluster for two.
//
// The task reads the metadata of Nodes and changes nothing. It cannot see what an agent
// learns from its instance's tags, so it warns where these may mend the difference.
// Package agent builds it, unless the configuration says the ID.
package clusterid

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/events"

	"github.com/chandler-k8s/chandler/leader"
)

// Name is the task's name.
const Name = "clusterid"

const (
	// theKey is the one key: the work is periodic.
	theKey = "cluster"
	// interval is how often the Nodes are looked at. Labels hardly ever change.
	interval = time.Hour
	// unknown is when to look again while our own node does not know its ID yet.
	unknown = time.Minute
	// page bounds one answer, in Nodes.
	page = 500

	reasonDiffer = "ClusterIDsMayDiffer"
	eventAction  = "CompareClusterIDs"
)

var nodes = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}

// Options is what New needs besides the term.
type Options struct {
	// IDOf returns the cluster ID that a Node's labels and annotations give its agent,
	// and whether they give one. A known one may be empty: it is not in the metadata.
	IDOf func(labels, annotations map[string]string) (id string, known bool)
	// Shared answers whether all nodes have their ID from a source that they share, such
	// as OpenShift's Infrastructure; known is false while that has not been found out.
	Shared func() (shared, known bool)
	// DaemonSet is the name of the agents', which the Event is about.
	DaemonSet string
}

// Task compares for one term. It implements leader.Task.
type Task struct {
	opts      Options
	metadata  metadata.Interface
	events    events.EventRecorder
	log       *slog.Logger
	namespace string
	warned    string // guarded by the one key: Syncs of it never overlap
}

// New returns a term's task. It does no I/O.
func New(term leader.Term, opts Options) *Task {
	return &Task{opts: opts, metadata: term.Metadata, events: term.Events, log: term.Log, namespace: term.Namespace}
}

// Name implements leader.Task.
func (*Task) Name() string { return Name }

// Watch implements leader.Task.
func (*Task) Watch(_ leader.Informers, enqueue func(string)) error {
	enqueue(theKey)
	return nil
}

// Permissions implements leader.Permitted.
func (*Task) Permissions() []authorizationv1.ResourceAttributes {
	return []authorizationv1.ResourceAttributes{{Verb: "list", Resource: "nodes"}}
}

// Sync implements leader.Task. It warns once of a difference, and again of another.
func (t *Task) Sync(ctx context.Context, _ string) (time.Duration, error) {
	shared, known := t.opts.Shared()
	switch {
	case !known:
		return unknown, nil
	case shared:
		return interval, nil
	}
	found, err := t.survey(ctx)
	if err != nil {
		return 0, err
	}
	difference := found.difference()
	if difference != "" && difference != t.warned {
		t.log.Warn("nodes may find different cluster IDs", "task", Name, "found", difference, "remedy", "set identity.clusterID")
	}
	if difference != "" {
		set := &corev1.ObjectReference{APIVersion: "apps/v1", Kind: "DaemonSet", Namespace: t.namespace, Name: t.opts.DaemonSet}
		t.events.Eventf(set, nil, corev1.EventTypeWarning, reasonDiffer, eventAction,
			"Nodes may find different cluster IDs (%s). Set identity.clusterID.", difference)
	}
	t.warned = difference
	return interval, nil
}

// survey reads the metadata of every Node, a page at a time.
func (t *Task) survey(ctx context.Context) (survey, error) {
	found := survey{}
	options := metav1.ListOptions{Limit: page}
	for {
		list, err := t.metadata.Resource(nodes).List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("list nodes: %w", err)
		}
		for _, node := range list.Items {
			id, known := t.opts.IDOf(node.Labels, node.Annotations)
			found.add(node.Name, id, known)
		}
		if options.Continue = list.Continue; options.Continue == "" {
			return found, nil
		}
	}
}
