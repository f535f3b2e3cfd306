package chart_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// TestHelm installs, upgrades to the split installation and back, and uninstalls, as
// docs/install.md says, with a Helm that talks to a real API server.
func TestHelm(t *testing.T) {
	w := newWorld(t)
	helm := func(args ...string) {
		t.Helper()
		_, err := run(t.Context(), append(args, "--kubeconfig", w.Kubeconfig(), "--namespace", fixtures.Namespace)...)
		expect.OK(t, err)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fixtures.Namespace}}
	_, err := w.admin.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	expect.OK(t, err)
	before := w.installed(t)

	helm("install", "chandler", deploy("chart"))
	fixtures.AwaitPolicies(t, w.admin)
	usual := w.installed(t)
	if !slices.Contains(usual, "daemonsets.apps/chandler") || slices.Contains(usual, "deployments.apps/chandler-leader") {
		t.Errorf("installed: got %v", usual)
	}
	helm("upgrade", "chandler", deploy("chart"), "--values", deploy("chart", "values", "split.yaml"))
	if split := w.installed(t); !slices.Contains(split, "deployments.apps/chandler-leader") {
		t.Errorf("split: got %v", split)
	}
	helm("upgrade", "chandler", deploy("chart"), "--reset-values")
	if diff := cmp.Diff(usual, w.installed(t)); diff != "" {
		t.Errorf("upgraded there and back (-before +after):\n%s", diff)
	}

	helm("uninstall", "chandler", "--wait")
	// What they are kept for, the comment of the policy says.
	kept := append(before, "namespaces/chandler-registries",
		"validatingadmissionpolicies.admissionregistration.k8s.io/chandler-leader-token", "validatingadmissionpolicybindings.admissionregistration.k8s.io/chandler-leader-token")
	slices.Sort(kept)
	if diff := cmp.Diff(kept, w.installed(t)); diff != "" {
		t.Errorf("left by helm uninstall (-want +got):\n%s", diff)
	}
}

// installed lists the objects that an installation can consist of.
func (w *world) installed(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, kind := range []string{
		"namespaces", "serviceaccounts", "configmaps", "resourcequotas", "services", "daemonsets.v1.apps", "deployments.v1.apps",
		"clusterroles.v1.rbac.authorization.k8s.io", "clusterrolebindings.v1.rbac.authorization.k8s.io",
		"roles.v1.rbac.authorization.k8s.io", "rolebindings.v1.rbac.authorization.k8s.io",
		"validatingadmissionpolicies.v1.admissionregistration.k8s.io", "validatingadmissionpolicybindings.v1.admissionregistration.k8s.io",
	} {
		list, err := w.client.Resource(resource(kind)).List(t.Context(), metav1.ListOptions{})
		expect.OK(t, err)
		for _, object := range list.Items {
			if strings.HasPrefix(object.GetName(), "chandler") && object.GetDeletionTimestamp() == nil {
				names = append(names, resource(kind).GroupResource().String()+"/"+object.GetName())
			}
		}
	}
	slices.Sort(names)
	return names
}

// resource reads "deployments.v1.apps"; without a group it is of the core.
func resource(name string) schema.GroupVersionResource {
	if full, _ := schema.ParseResourceArg(name); full != nil {
		return *full
	}
	return schema.GroupVersionResource{Version: "v1", Resource: name}
}
