package podlogs

import (
	"slices"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/chandler-k8s/chandler/test/expect"
)

// denied is shaped as the API server shapes the refusal of a policy.
func denied() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Reason: metav1.StatusReasonInvalid, Code: 422,
		Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Message: "denied request: not ours"}}},
	}}
}

// TestGuards: each resource is proved by dry runs of its own.
func TestGuards(t *testing.T) {
	client := fake.NewClientset()
	var asked []string
	client.PrependReactor("create", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if created, ok := action.(clienttesting.CreateActionImpl); !ok || len(created.CreateOptions.DryRun) != 1 || action.GetNamespace() != "chandler" {
			t.Errorf("got %v, want a dry run in chandler", action)
		}
		asked = append(asked, action.GetResource().Resource)
		return policies(action)
	})
	for resource, guard := range newGuards(client, "chandler") {
		asked = nil
		expect.OK(t, guard.Check(t.Context()))
		want := []string{resource, resource}
		if resource == roles {
			want = append(want, resource) // open to every pod
		}
		if !slices.Equal(asked, want) {
			t.Errorf("%s: got dry runs of %v, want %v", resource, asked, want)
		}
	}
}
