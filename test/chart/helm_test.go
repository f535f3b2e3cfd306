package chart_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// TestHelm installs, upgrades to the split installation and back, and uninstalls, as
// docs/install.md says, with a Helm that talks to a real API server.
func TestHelm(t *testing.T) {
	w := newWorld(t)
	w.createNamespace(t)
	before := w.installed(t)

	w.helm(t, "install", "chandler", deploy("chart"))
	fixtures.AwaitPolicies(t, w.admin)
	usual := w.installed(t)
	if !slices.Contains(usual, "daemonsets.apps/chandler") || slices.Contains(usual, "deployments.apps/chandler-leader") {
		t.Errorf("installed: got %v", usual)
	}
	w.helm(t, "upgrade", "chandler", deploy("chart"), "--values", deploy("chart", "values", "split.yaml"))
	if split := w.installed(t); !slices.Contains(split, "deployments.apps/chandler-leader") {
		t.Errorf("split: got %v", split)
	}
	w.helm(t, "upgrade", "chandler", deploy("chart"), "--reset-values")
	if diff := cmp.Diff(usual, w.installed(t)); diff != "" {
		t.Errorf("upgraded there and back (-before +after):\n%s", diff)
	}

	w.helm(t, "uninstall", "chandler", "--wait")
	// What they are kept for, the comment of the policy says.
	kept := append(before, "namespaces/chandler-registries",
		"validatingadmissionpolicies.admissionregistration.k8s.io/chandler-leader-token", "validatingadmissionpolicybindings.admissionregistration.k8s.io/chandler-leader-token")
	slices.Sort(kept)
	if diff := cmp.Diff(kept, w.installed(t)); diff != "" {
		t.Errorf("left by helm uninstall (-want +got):\n%s", diff)
	}
}

// TestFromKubectl moves an installation of kubectl to Helm, as docs/install.md says: in
// place, and after it has been uninstalled, which leaves a policy. An upgrade then takes
// away what it no longer has.
func TestFromKubectl(t *testing.T) {
	for _, uninstalled := range []bool{false, true} {
		t.Run(fmt.Sprintf("uninstalled=%t", uninstalled), func(t *testing.T) {
			w := newWorld(t)
			before := w.kubectlCreate(t, deploy("daemonset.yaml"))
			if uninstalled {
				w.kubectlDelete(t, before)
				w.createNamespace(t)
			}
			w.helm(t, "install", "chandler", deploy("chart"), "--take-ownership", "--server-side=false")
			fixtures.AwaitPolicies(t, w.admin)
			w.helm(t, append([]string{"upgrade", "chandler", deploy("chart"), "--set", "awsSecrets=null"}, config(t, `serving: {address: ":9000"}`)...)...)
			daemonSet, err := w.admin.AppsV1().DaemonSets(fixtures.Namespace).Get(t.Context(), "chandler", metav1.GetOptions{})
			expect.OK(t, err)
			pod := daemonSet.Spec.Template.Spec
			if ports := pod.Containers[0].Ports; len(ports) != 2 || ports[0].ContainerPort != 9000 {
				t.Errorf("got ports %+v, want 9000 and that of the probes", ports)
			}
			if i := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == "aws-default" }); i >= 0 {
				t.Error("the volume aws-default is still there")
			}
		})
	}
}

func (w *world) helm(t *testing.T, args ...string) {
	t.Helper()
	_, err := run(t.Context(), append(args, "--kubeconfig", w.Kubeconfig(), "--namespace", fixtures.Namespace)...)
	expect.OK(t, err)
}

func (w *world) createNamespace(t *testing.T) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fixtures.Namespace}}
	_, err := w.admin.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	expect.OK(t, err)
}

// kubectlCreate makes the objects of a manifest, and their fields kubectl's, as the first
// `kubectl apply` does.
func (w *world) kubectlCreate(t *testing.T, path string) []*unstructured.Unstructured {
	t.Helper()
	all := objects(t, path)
	for _, object := range all {
		client, err := w.resource(object)
		expect.OK(t, err)
		_, err = client.Create(t.Context(), object, metav1.CreateOptions{FieldManager: "kubectl-client-side-apply"})
		expect.OK(t, err)
	}
	return all
}

// kubectlDelete uninstalls them, as docs/install.md says, and waits until they are gone.
func (w *world) kubectlDelete(t *testing.T, all []*unstructured.Unstructured) {
	t.Helper()
	for _, object := range all {
		if _, kept := object.GetLabels()["chandler.dev/keep"]; kept {
			continue
		}
		client, err := w.resource(object)
		expect.OK(t, err)
		if err := client.Delete(t.Context(), object.GetName(), metav1.DeleteOptions{}); !apierrors.IsNotFound(err) { // gone with its namespace
			expect.OK(t, err)
		}
	}
	expect.Within(t, patience, func() error {
		for _, object := range all {
			if _, err := w.get(t, object); object.GetKind() == "Namespace" && !apierrors.IsNotFound(err) {
				return errors.Join(fmt.Errorf("namespace %s is not gone", object.GetName()), err)
			}
		}
		return nil
	})
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
