package chart_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

const patience = time.Minute

// world is a control plane and a client for whatever it serves.
type world struct {
	*cluster.Cluster
	admin  kubernetes.Interface
	client dynamic.Interface
	mapper meta.RESTMapper
}

func newWorld(t *testing.T, apiServerArgs ...string) *world {
	t.Helper()
	c := cluster.ForTest(t, cluster.Options{APIServerArgs: apiServerArgs})
	expect.OK(t, c.ApplyFiles(t.Context(), "testdata/openshift-crds.yaml"))
	discovered := discovery.NewDiscoveryClientForConfigOrDie(c.Admin())
	return &world{
		Cluster: c, admin: kubernetes.NewForConfigOrDie(c.Admin()), client: dynamic.NewForConfigOrDie(c.Admin()),
		mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(discovered)),
	}
}

// apply applies a manifest as one file, and sees that every object is there with
// everything that the manifest says of it. Unknown fields are errors of Apply.
func (w *world) apply(t *testing.T, path string) {
	t.Helper()
	expect.OK(t, w.ApplyFiles(t.Context(), path))
	for _, want := range objects(t, path) {
		got, err := w.get(t, want)
		if err != nil {
			t.Errorf("%s %s: %v", want.GetKind(), want.GetName(), err)
			continue
		}
		for _, fault := range missing(want.GetKind()+" "+want.GetName(), want.Object, got.Object) {
			t.Error(fault)
		}
	}
}

func (w *world) get(t *testing.T, object *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	t.Helper()
	client, err := w.resource(object)
	if err != nil {
		return nil, err
	}
	return client.Get(t.Context(), object.GetName(), metav1.GetOptions{})
}

// resource returns a client for objects of that kind and namespace.
func (w *world) resource(object *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	kind := object.GroupVersionKind()
	mapping, err := w.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, err
	}
	client := w.client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return client, nil
	}
	return client.Namespace(object.GetNamespace()), nil
}

// objects reads a manifest.
func objects(t *testing.T, path string) []*unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile(path)
	expect.OK(t, err)
	var all []*unstructured.Unstructured
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		object := &unstructured.Unstructured{}
		expect.OK(t, yaml.Unmarshal([]byte(document+"\n"), &object.Object))
		if object.Object != nil {
			all = append(all, object)
		}
	}
	return all
}

// missing lists where got says something else than want; it may say more.
func missing(path string, want, got any) []string {
	var faults []string
	switch want := want.(type) {
	case map[string]any:
		got, _ := got.(map[string]any)
		for key, value := range want {
			faults = append(faults, missing(path+"."+key, value, got[key])...)
		}
	case []any:
		got, _ := got.([]any)
		if len(got) != len(want) {
			return []string{fmt.Sprintf("%s: got %d entries, want %d", path, len(got), len(want))}
		}
		for i := range want {
			faults = append(faults, missing(fmt.Sprintf("%s[%d]", path, i), want[i], got[i])...)
		}
	default:
		if fmt.Sprint(want) != fmt.Sprint(got) {
			return []string{fmt.Sprintf("%s: got %v, want %v", path, got, want)}
		}
	}
	return faults
}

// TestInstall applies each variant to a cluster that has none, as one file, and again.
func TestInstall(t *testing.T) {
	for _, m := range variants() {
		t.Run(m.file, func(t *testing.T) {
			w := newWorld(t)
			w.apply(t, deploy(m.file))
			w.apply(t, deploy(m.file))
			fixtures.AwaitPolicies(t, w.admin)
			w.checkRights(t, strings.TrimSuffix(m.file, ".yaml"))
		})
	}
}
