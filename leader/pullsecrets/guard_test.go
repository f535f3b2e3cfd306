package pullsecrets

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
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
	terminating := apierrors.NewForbidden(secrets, irish, errors.New("being terminated"))
	terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	immutable := apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Secret").GroupKind(), irish,
		field.ErrorList{field.Invalid(field.NewPath("type"), "x", "field is immutable")})
	testOfPatch := apierrors.NewGenericServerResponse(422, "patch", secrets, irish, "", 0, false)
	tests := map[string]struct {
		err             error
		refused, ending bool
	}{
		"nil":                  {nil, false, false},
		"policy, forbidden":    {policyRefusal(metav1.StatusReasonForbidden, 403), true, false},
		"policy, invalid":      {policyRefusal(metav1.StatusReasonInvalid, 422), true, false},
		"wrapped":              {fmt.Errorf("write: %w", policyRefusal(metav1.StatusReasonForbidden, 403)), true, false},
		"type cannot change":   {immutable, true, false},
		"missing permission":   {apierrors.NewForbidden(secrets, irish, errors.New("no RBAC rule")), false, false},
		"namespace ends":       {terminating, false, true},
		"namespace gone":       {apierrors.NewNotFound(corev1.Resource("namespaces"), "team-a"), false, true},
		"Secret gone":          {apierrors.NewNotFound(secrets, irish), false, false},
		"test of a JSON patch": {testOfPatch, false, false},
		"conflict":             {apierrors.NewConflict(secrets, irish, nil), false, false},
		"of the dry run":       {unguarded{policyRefusal(metav1.StatusReasonForbidden, 403)}, false, false},
		"unreachable":          {errors.New("connection refused"), false, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := refused(test.err); got != test.refused {
				t.Errorf("got refused %t, want %t", got, test.refused)
			}
			if got := ending(test.err); got != test.ending {
				t.Errorf("got ending %t, want %t", got, test.ending)
			}
		})
	}
}

func TestGuard(t *testing.T) {
	denied := policyRefusal(metav1.StatusReasonInvalid, 422)
	tests := map[string]struct {
		ours, others error // the answers to the two dry runs
		pass         bool
	}{
		"in force":                    {nil, denied, true},
		"not in force":                {nil, nil, false},
		"another policy denies both":  {denied, denied, false},
		"may not create":              {apierrors.NewForbidden(corev1.Resource("secrets"), "", nil), denied, false},
		"cannot tell":                 {nil, errors.New("connection refused"), false},
		"refused by RBAC, not policy": {nil, apierrors.NewForbidden(corev1.Resource("secrets"), "", nil), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset()
			client.PrependReactor("create", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
				created, ok := action.(clienttesting.CreateActionImpl)
				if !ok || len(created.CreateOptions.DryRun) != 1 {
					t.Errorf("got %v, want a dry run", action)
					return false, nil, nil
				}
				secret, ok := created.Object.(*corev1.Secret)
				if ok && secret.Labels["chandler.dev/task"] == "pullsecrets" {
					return true, secret, test.ours
				}
				return true, secret, test.others
			})
			g := &guard{client: client.CoreV1().Secrets("chandler")}
			if err := g.check(t.Context()); (err == nil) != test.pass {
				t.Errorf("got %v, want it to pass: %t", err, test.pass)
			}
		})
	}
}

func TestGuardProvesAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		client := fake.NewClientset()
		client.PrependReactor("create", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
			calls++
			if calls%2 == 0 {
				return true, nil, policyRefusal(metav1.StatusReasonInvalid, 422)
			}
			return true, &corev1.Secret{}, nil
		})
		g := &guard{client: client.CoreV1().Secrets("chandler")}
		for range 500 {
			if err := g.check(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if calls != 2 {
			t.Errorf("got %d dry runs, want 2", calls)
		}
		time.Sleep(guardLife)
		if err := g.check(t.Context()); err != nil || calls != 4 {
			t.Errorf("got %d dry runs, %v, want 4", calls, err)
		}
	})
}
