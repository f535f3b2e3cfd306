package leader

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
)

func metadataClient(t *testing.T) *metadatafake.FakeMetadataClient {
	t.Helper()
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return metadatafake.NewSimpleMetadataClient(scheme)
}

func TestInformers(t *testing.T) {
	secret := func(namespace string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "keys"}}
	}
	in := NewInformers(fake.NewClientset(secret("ci-cd"), secret("other")), metadataClient(t))
	hosts := Selection{Namespace: "ci-cd"}
	secrets := in.Typed(hosts).Core().V1().Secrets()
	if in.Typed(hosts) != in.Typed(hosts) || in.Typed(hosts) == in.Typed(Selection{}) {
		t.Error("got factories that do not follow their selection")
	}
	namespaces := schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	bare := in.Metadata(namespaces, Selection{})
	if bare != in.Metadata(namespaces, Selection{}) || bare == in.Metadata(namespaces, Selection{Labels: "a=b"}) {
		t.Error("got informers that do not follow their selection")
	}
	lister := secrets.Lister()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	in.Start(ctx)
	if missing := in.Wait(ctx); missing != nil {
		t.Fatalf("got %v not synced", missing)
	}
	if got, err := lister.Secrets("ci-cd").Get("keys"); err != nil || got.Name != "keys" {
		t.Errorf("got %v and error %v, want the Secret", got, err)
	}
	if _, err := lister.Secrets("other").Get("keys"); err == nil {
		t.Error("got a Secret outside of the selection")
	}
	cancel()
	in.Shutdown()
}

func TestWaitNamesWhatDoesNotSync(t *testing.T) {
	refused := func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("forbidden") }
	client, bare := fake.NewClientset(), metadataClient(t)
	client.PrependReactor("list", "secrets", refused)
	bare.PrependReactor("list", "pods", refused)
	in := NewInformers(client, bare)
	in.Typed(Selection{}).Core().V1().Secrets().Informer()
	in.Typed(Selection{}).Core().V1().ConfigMaps().Informer()
	in.Metadata(schema.GroupVersionResource{Version: "v1", Resource: "pods"}, Selection{})
	in.Metadata(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, Selection{})
	in.Typed(Selection{Namespace: "ci-cd", Optional: true}).Core().V1().Secrets().Informer()
	in.Metadata(schema.GroupVersionResource{Version: "v1", Resource: "pods"}, Selection{Labels: "a=b", Optional: true})
	ctx, cancel := context.WithCancel(t.Context())
	in.Start(ctx)
	waiting, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	if got, want := in.Wait(waiting), []string{"*v1.Secret", "pods"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := in.WaitOptional(waiting), []string{"*v1.Secret in ci-cd", "pods with a=b"}; !slices.Equal(got, want) {
		t.Errorf("optional: got %v, want %v", got, want)
	}
	cancel()
	in.Shutdown()
}
