package leader

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
)

// NodeCandidate returns a function for Options.Candidate that reads the named
// Node and answers whether it matches candidates, a label selector, e.g.
// "role=infra". An empty one matches every node and is not asked for: the
// function is then nil. The error is of a malformed selector.
func NodeCandidate(client kubernetes.Interface, node, candidates string) (func(context.Context) (bool, error), error) {
	if candidates == "" {
		return nil, nil
	}
	selector, err := labels.Parse(candidates)
	if err != nil {
		return nil, fmt.Errorf("candidates %q: %w", candidates, err)
	}
	return func(ctx context.Context) (bool, error) {
		found, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return false, fmt.Errorf("read Node %s: %w", node, err)
		}
		return selector.Matches(labels.Set(found.Labels)), nil
	}, nil
}

// CountAgents returns a function for Options.Agents that counts who looks at
// the Lease: the pods that the named DaemonSet of the term's namespace wants or,
// where candidates narrows who may lead (a node label selector, e.g.
// "role=infra"), the nodes that match. It costs one read.
func CountAgents(daemonSet, candidates string) func(context.Context, Term) (int, error) {
	if candidates == "" {
		return func(ctx context.Context, term Term) (int, error) {
			set, err := term.Client.AppsV1().DaemonSets(term.Namespace).Get(ctx, daemonSet, metav1.GetOptions{})
			if err != nil {
				return 0, fmt.Errorf("read DaemonSet %s/%s: %w", term.Namespace, daemonSet, err)
			}
			return int(set.Status.DesiredNumberScheduled), nil
		}
	}
	return func(ctx context.Context, term Term) (int, error) {
		nodes, err := term.Metadata.Resource(schema.GroupVersionResource{Version: "v1", Resource: "nodes"}).
			List(ctx, metav1.ListOptions{LabelSelector: candidates, ResourceVersion: "0"})
		if err != nil {
			return 0, fmt.Errorf("list nodes with %q: %w", candidates, err)
		}
		return len(nodes.Items), nil
	}
}
