package podlogs

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/chandler-k8s/chandler/leader"
)

// denied is shaped as the API server shapes the refusal of a policy.
func denied() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Reason: metav1.StatusReasonInvalid, Code: 422,
		Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Message: "denied request: not ours"}}},
	}}
}

func TestGuard(t *testing.T) {
	resource := schema.GroupResource{Resource: "any"}
	forbidden := apierrors.NewForbidden(resource, "", nil)
	tests := map[string]struct {
		ours, others error // the answers to the two dry runs
		pass         bool
	}{
		"in force":                    {nil, denied(), true},
		"in force, the name is taken": {apierrors.NewAlreadyExists(resource, ""), denied(), true},
		"not in force":                {nil, nil, false},
		"not in force, name taken":    {nil, apierrors.NewAlreadyExists(resource, ""), false},
		"another policy denies both":  {denied(), denied(), false},
		"may not create":              {forbidden, denied(), false},
		"refused by RBAC, not policy": {nil, forbidden, false},
		"cannot tell":                 {nil, errors.New("connection refused"), false},
	}
	for name, test := range tests {
		for _, resource := range []string{roles, bindings, accounts} {
			t.Run(name+", "+resource, func(t *testing.T) {
				client := fake.NewClientset()
				client.PrependReactor("create", resource, func(action clienttesting.Action) (bool, runtime.Object, error) {
					created, ok := action.(clienttesting.CreateActionImpl)
					object, isObject := created.Object.(metav1.Object)
					if !ok || !isObject || len(created.CreateOptions.DryRun) != 1 {
						t.Errorf("got %v, want a dry run", action)
						return false, nil, nil
					}
					if object.GetLabels()[leader.TaskLabel] == Name {
						return true, created.Object, test.ours
					}
					return true, created.Object, test.others
				})
				if err := newGuard(client, "chandler").check(t.Context(), resource); (err == nil) != test.pass {
					t.Errorf("got %v, want it to pass: %t", err, test.pass)
				}
			})
		}
	}
}

func TestGuardProvesAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		client := fake.NewClientset()
		client.PrependReactor("create", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
			calls++
			created, _ := action.(clienttesting.CreateActionImpl)
			if calls%2 == 0 {
				return true, nil, denied()
			}
			return true, created.Object, nil
		})
		g := newGuard(client, "chandler")
		for range 500 {
			if err := g.check(t.Context(), roles); err != nil {
				t.Fatal(err)
			}
		}
		if calls != 2 {
			t.Errorf("got %d dry runs, want 2", calls)
		}
		time.Sleep(guardLife)
		if err := g.check(t.Context(), roles); err != nil || calls != 4 {
			t.Errorf("got %d dry runs, %v, want 4", calls, err)
		}
	})
}
