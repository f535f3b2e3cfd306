package leader

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// denial is shaped as the API server shapes the refusal of a policy.
func denial(reason metav1.StatusReason, code int32) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Reason: reason, Code: code,
		Details: &metav1.StatusDetails{Name: "x", Kind: "secrets", Causes: []metav1.StatusCause{{Message: "denied request: not ours"}}},
	}}
}

func TestRefusedByPolicy(t *testing.T) {
	secrets := corev1.Resource("secrets")
	terminating := apierrors.NewForbidden(secrets, "x", errors.New("being terminated"))
	terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	tests := map[string]struct {
		err             error
		refused, ending bool
	}{
		"nil":                {nil, false, false},
		"policy, forbidden":  {denial(metav1.StatusReasonForbidden, 403), true, false},
		"policy, invalid":    {denial(metav1.StatusReasonInvalid, 422), true, false},
		"wrapped":            {fmt.Errorf("write: %w", denial(metav1.StatusReasonForbidden, 403)), true, false},
		"validation":         {apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Secret").GroupKind(), "x", field.ErrorList{field.Invalid(field.NewPath("type"), "y", "field is immutable")}), false, false},
		"missing permission": {apierrors.NewForbidden(secrets, "x", errors.New("no RBAC rule")), false, false},
		"namespace ends":     {terminating, false, true},
		"namespace gone":     {apierrors.NewNotFound(corev1.Resource("namespaces"), "team-a"), false, true},
		"object gone":        {apierrors.NewNotFound(secrets, "x"), false, false},
		"conflict":           {apierrors.NewConflict(secrets, "x", nil), false, false},
		"of the dry run":     {unguarded{denial(metav1.StatusReasonForbidden, 403)}, false, false},
		"unreachable":        {errors.New("connection refused"), false, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := RefusedByPolicy(test.err); got != test.refused {
				t.Errorf("got refused %t, want %t", got, test.refused)
			}
			if got := NamespaceEnding(test.err); got != test.ending {
				t.Errorf("got ending %t, want %t", got, test.ending)
			}
		})
	}
}

func TestGuard(t *testing.T) {
	secrets := corev1.Resource("secrets")
	denied, forbidden, taken := denial(metav1.StatusReasonInvalid, 422), apierrors.NewForbidden(secrets, "", nil), apierrors.NewAlreadyExists(secrets, "")
	tests := map[string]struct {
		ours, others error // the answers to the two dry runs
		pass         bool
	}{
		"in force":                    {nil, denied, true},
		"in force, the name is taken": {taken, denied, true},
		"not in force":                {nil, nil, false},
		"not in force, name taken":    {nil, taken, false},
		"another policy denies both":  {denied, denied, false},
		"may not create":              {forbidden, denied, false},
		"refused by RBAC, not policy": {nil, forbidden, false},
		"cannot tell":                 {nil, errors.New("connection refused"), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g := &Guard{Policy: "p", Source: "f", Task: "ours", Life: time.Minute, Try: func(_ context.Context, task string) error {
				if task == "ours" {
					return test.ours
				}
				return test.others
			}}
			if err := g.Check(t.Context()); (err == nil) != test.pass {
				t.Errorf("got %v, want it to pass: %t", err, test.pass)
			}
		})
	}
}

func TestGuardProvesAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		g := &Guard{Policy: "p", Source: "f", Task: "ours", Life: time.Minute, Try: func(_ context.Context, task string) error {
			calls++
			if task == "ours" {
				return nil
			}
			return denial(metav1.StatusReasonInvalid, 422)
		}}
		check := func(want int) {
			t.Helper()
			if err := g.Check(t.Context()); err != nil || calls != want {
				t.Fatalf("got %d dry runs, %v, want %d", calls, err, want)
			}
		}
		for range 500 {
			check(2)
		}
		time.Sleep(g.Life)
		check(4)
	})
}

func TestGuardRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls, answer := 0, error(nil)
		g := &Guard{Policy: "p", Source: "f", Task: "ours", Life: time.Minute, Rest: 10 * time.Second, Try: func(_ context.Context, task string) error {
			calls++
			if task == "ours" {
				return nil
			}
			return answer
		}}
		check := func(ctx context.Context, want int, pass bool) {
			t.Helper()
			if err := g.Check(ctx); (err == nil) != pass || calls != want {
				t.Fatalf("got %d dry runs, %v, want %d, and it to pass: %t", calls, err, want, pass)
			}
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		check(over, 2, false) // says nothing to others
		for range 500 {
			check(t.Context(), 4, false)
		}
		answer = denial(metav1.StatusReasonInvalid, 422)
		check(t.Context(), 4, false)
		time.Sleep(g.Rest)
		check(t.Context(), 6, true)
	})
}
