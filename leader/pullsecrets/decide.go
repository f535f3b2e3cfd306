package pullsecrets

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// selected is the one label value that asks for a pull secret, as with eatr;
// declined is the one that says no without a mistake.
const (
	selected = "true"
	declined = "false"
)

// action is what to do about one namespace and registry.
type action int

const (
	forget action = iota // the namespace is gone, and its Secrets with it
	wait                 // the namespace is being deleted
	remove               // no Secret of ours belongs there
	supply               // there has to be one
)

// pair is a namespace and a registry's host.
type pair struct{ namespace, host string }

func (p pair) key() string { return p.namespace + "/" + p.host }

// parsePair takes a pair's key apart; ok is false for keys of another kind.
func parsePair(key string) (p pair, ok bool) {
	namespace, host, ok := strings.Cut(key, "/")
	return pair{namespace, host}, ok
}

// decide says what to do about a host's label on a namespace, nil if there is
// none. problem tells a mistake in the label together with its remedy; it is
// empty if there is none.
func decide(namespace *metav1.PartialObjectMetadata, host string, withPublic bool) (do action, problem string) {
	if namespace == nil {
		return forget, ""
	}
	if namespace.DeletionTimestamp != nil {
		return wait, ""
	}
	value, labelled := namespace.Labels[host]
	if !labelled || value == declined {
		return remove, ""
	}
	registry, err := Parse(host)
	switch {
	case err != nil:
		return remove, "label ignored: " + err.Error()
	case value != selected:
		return remove, `label ` + host + ` ignored: its value must be "true"`
	case registry.Public() && !withPublic:
		return remove, "label " + host + " ignored: leader.pullSecrets.ecrPublic is off"
	default:
		return supply, ""
	}
}

// hosts returns the label keys of a namespace that are meant to be registries.
func hosts(namespace metav1.Object) []string {
	var found []string
	for key := range namespace.GetLabels() {
		if IsCandidate(key) {
			found = append(found, key)
		}
	}
	return found
}

// changeAccount returns the JSON patch that adds or removes our one entry in the
// imagePullSecrets of a ServiceAccount, nil if nothing has to change. It proves
// first that the list is the one it was made for: the list has no merge key, and
// others write to it at the same time.
func changeAccount(list []corev1.LocalObjectReference, host string, present bool) []jsonOperation {
	const path = "/imagePullSecrets"
	ours := func(entry corev1.LocalObjectReference) bool { return entry.Name == host }
	if present == slices.ContainsFunc(list, ours) {
		return nil
	}
	entry := corev1.LocalObjectReference{Name: host}
	switch {
	case present && len(list) == 0:
		// The API server leaves an empty list out.
		return []jsonOperation{
			{Op: "test", Path: path},
			{Op: "add", Path: path, Value: []corev1.LocalObjectReference{entry}},
		}
	case present:
		return []jsonOperation{
			{Op: "test", Path: path, Value: list},
			{Op: "add", Path: path + "/-", Value: entry},
		}
	}
	change := []jsonOperation{{Op: "test", Path: path, Value: list}}
	for i, entry := range slices.Backward(list) {
		if ours(entry) {
			change = append(change, jsonOperation{Op: "remove", Path: path + "/" + strconv.Itoa(i)})
		}
	}
	return change
}

// jsonOperation is one operation of a JSON patch, RFC 6902.
type jsonOperation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"` // null where there is none
}
