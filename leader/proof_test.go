package leader

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/test/expect"
)

// TestNoTermWithoutPolicies: a replica that finds a policy missing gives the Lease
// back, names the policy, and leads once it is there.
func TestNoTermWithoutPolicies(t *testing.T) {
	for _, policy := range []string{leasePolicy, tokenPolicy} {
		t.Run(policy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newFakeAPI()
				api.lacks = policy
				s := &syncs{begin: time.Now(), answer: func(int) (time.Duration, error) { return 0, nil }}
				var logs expect.Log
				r := start(t, api, "pod-0", running(&stubTask{name: "task", keys: []string{"k"}, sync: s.sync}),
					func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&logs, nil)) })
				idle(time.Minute)
				if got := len(s.times()); got != 0 || api.holder() != "" {
					t.Errorf("got %d syncs and holder %q, want neither", got, api.holder())
				}
				if want := "admission policy " + policy + ": it is not in force"; !strings.Contains(logs.String(), want) ||
					!strings.Contains(logs.String(), "deploy/base/policies.yaml") {
					t.Errorf("got log without %q and the manifest:\n%s", want, logs.String())
				}
				api.set(func(f *fakeAPI) { f.lacks = "" })
				passes(t, time.Minute, func() bool { return len(s.times()) == 1 })
				if got := testutil.ToFloat64(r.metrics.leading); got != 1 {
					t.Errorf("got %v leading, want 1", got)
				}
				r.end(t)
			})
		})
	}
}

// TestNoRightsWithoutPolicies: a leader whose policies are deleted has no rights once its
// token has ended, and has them again with the policies.
func TestNoRightsWithoutPolicies(t *testing.T) {
	for _, policy := range []string{leasePolicy, tokenPolicy} {
		t.Run(policy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newFakeAPI()
				var refused atomic.Pointer[error]
				r := start(t, api, "pod-0", func(o *Options) {
					o.Tasks = func(term Term) ([]Task, error) {
						return []Task{&stubTask{name: "task", keys: []string{"k"}, sync: func(ctx context.Context, _ string) (time.Duration, error) {
							_, err := term.Client.CoreV1().Namespaces().Get(ctx, "x", metav1.GetOptions{})
							refused.Store(nil)
							if errors.Is(err, ErrUnguarded) {
								refused.Store(&err)
							}
							return time.Second, nil
						}}}, nil
					}
				})
				passes(t, 5*time.Second, func() bool { return testutil.ToFloat64(r.metrics.leading) == 1 })
				api.set(func(f *fakeAPI) { f.lacks = policy })
				idle(tokenLife + time.Minute)
				if err := refused.Load(); err == nil || !strings.Contains((*err).Error(), policy) {
					t.Errorf("got %v after a token's life, want an error that names %s", err, policy)
				}
				api.set(func(f *fakeAPI) { f.lacks = "" })
				passes(t, time.Minute, func() bool { return refused.Load() == nil })
				r.end(t)
			})
		})
	}
}
