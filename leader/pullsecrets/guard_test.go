package pullsecrets

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/test/expect"
)

// policyRefusal is shaped as the API server shapes it.
func policyRefusal(reason metav1.StatusReason, code int32) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Reason: reason, Code: code,
		Details: &metav1.StatusDetails{Name: irish, Kind: "secrets", Causes: []metav1.StatusCause{{Message: "denied request: not ours"}}},
	}}
}

func TestRefused(t *testing.T) {
	secrets := corev1.Resource("secrets")
	immutable := apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Secret").GroupKind(), irish,
		field.ErrorList{field.Invalid(field.NewPath("type"), "x", "field is immutable")})
	testOfPatch := apierrors.NewGenericServerResponse(422, "patch", secrets, irish, "", 0, false)
	tests := map[string]struct {
		err     error
		refused bool
	}{
		"nil":                  {nil, false},
		"policy, forbidden":    {policyRefusal(metav1.StatusReasonForbidden, 403), true},
		"policy, invalid":      {policyRefusal(metav1.StatusReasonInvalid, 422), true},
		"wrapped":              {fmt.Errorf("write: %w", policyRefusal(metav1.StatusReasonForbidden, 403)), true},
		"type cannot change":   {immutable, true},
		"missing permission":   {apierrors.NewForbidden(secrets, irish, errors.New("no RBAC rule")), false},
		"test of a JSON patch": {testOfPatch, false},
		"unreachable":          {errors.New("connection refused"), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := refused(test.err); got != test.refused {
				t.Errorf("got refused %t, want %t", got, test.refused)
			}
		})
	}
}

// TestGuard: nothing but the label tells the two dry runs apart.
func TestGuard(t *testing.T) {
	client := fake.NewClientset()
	var asked []*corev1.Secret
	client.PrependReactor("create", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
		created, ok := action.(clienttesting.CreateActionImpl)
		secret, isSecret := created.Object.(*corev1.Secret)
		if !ok || !isSecret || len(created.CreateOptions.DryRun) != 1 {
			t.Errorf("got %v, want a dry run of a Secret", action)
			return false, nil, nil
		}
		asked = append(asked, secret.DeepCopy())
		if secret.Labels[leader.TaskLabel] != Name {
			return true, nil, policyRefusal(metav1.StatusReasonInvalid, 422)
		}
		return true, secret, nil
	})
	expect.OK(t, newGuard(client.CoreV1().Secrets("chandler")).Check(t.Context()))
	if len(asked) != 2 {
		t.Fatalf("got %d dry runs, want 2", len(asked))
	}
	asked[0].Labels, asked[1].Labels = nil, nil
	if !reflect.DeepEqual(asked[0], asked[1]) {
		t.Errorf("got %v and %v, want the same Secret", asked[0], asked[1])
	}
}
