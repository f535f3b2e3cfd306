package leader

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

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
