package identity_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/chandler-k8s/chandler/node/identity"
	"github.com/chandler-k8s/chandler/test/expect"
)

// TestRefusalsAreAskedAgain: an API server that has just started refuses
// everything, and then answers.
func TestRefusalsAreAskedAgain(t *testing.T) {
	for name, test := range map[string]struct {
		refusing  time.Duration
		within    time.Duration
		mostAsked int64 // in a day after that
	}{
		"for five seconds": {5 * time.Second, 20 * time.Second, 50},
		"for ever":         {48 * time.Hour, 0, 50},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				var asked atomic.Int64
				core := fake.NewClientset(&corev1.Node{
					ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{ProviderID: providerID},
				})
				core.PrependReactor("get", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
					asked.Add(1)
					if time.Since(begin) < test.refusing {
						return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, "n", nil)
					}
					return false, nil, nil
				})
				r := newResolver(core)
				ended := make(chan error, 1)
				ctx, cancel := context.WithCancel(t.Context())
				go func() { ended <- r.Run(ctx, func() {}) }()
				time.Sleep(test.within)
				synctest.Wait()
				if got, want := r.Facts().Value(identity.Region) != "", test.within > 0; got != want {
					t.Errorf("region known after %s: got %t, want %t", test.within, got, want)
				}
				time.Sleep(24 * time.Hour)
				if got := asked.Load(); got > test.mostAsked {
					t.Errorf("asked %d times in a day, want %d at most", got, test.mostAsked)
				}
				cancel()
				expect.OK(t, <-ended)
			})
		})
	}
}

const providerID = "aws:///eu-west-1a/i-0123456789abcdef0"

// newResolver asks fakes of the cluster, which has no API but Kubernetes' own.
func newResolver(core kubernetes.Interface) *identity.Resolver {
	return identity.New(identity.Options{
		NodeName: "n", Core: core, Dynamic: dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
			map[schema.GroupVersionResource]string{{Group: "machine.openshift.io", Version: "v1beta1", Resource: "machines"}: "MachineList"}),
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
}

// TestNodeThatIsNotInitialized: agents tolerate every taint, and so start before the
// cloud provider has seen the node. The region is there soon after, not in an hour.
func TestNodeThatIsNotInitialized(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{
			Taints: []corev1.Taint{{Key: "node.cloudprovider.kubernetes.io/uninitialized", Effect: corev1.TaintEffectNoSchedule}},
		}}
		core := fake.NewClientset(node, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem, UID: "6f5a-uid"}})
		r := newResolver(core)
		ended := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { ended <- r.Run(ctx, func() {}) }()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := r.Facts(); got.Value(identity.ClusterID) != "6f5a-uid" || got.Value(identity.Region) != "" {
			t.Errorf("before: got %v, want the cluster ID alone", got)
		}
		node = node.DeepCopy()
		node.Spec = corev1.NodeSpec{ProviderID: providerID}
		_, err := core.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
		expect.OK(t, err)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got := r.Facts().Value(identity.Region); got != "eu-west-1" {
			t.Errorf("region half a minute later: got %q, want eu-west-1", got)
		}
		cancel()
		expect.OK(t, <-ended)
	})
}
