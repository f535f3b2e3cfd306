package leader_test

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/test/expect"
)

// testUnguarded: a replica does not lead while one of the policies is not in force,
// as when only the RBAC was applied, and does once it is.
func (w *world) testUnguarded(t *testing.T) {
	for _, policy := range []string{"chandler-lease", "chandler-leader-token"} {
		t.Run(policy, func(t *testing.T) {
			w.vacate(t)
			client := w.client(t, "a")
			if err := create(t.Context(), client, leaseOf(podName("a"))); err != nil {
				t.Fatal(err)
			}
			w.settled(t, "a", client)
			bindings := w.admin.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
			if err := bindings.Delete(t.Context(), policy, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			expect.Within(t, 30*time.Second, func() error { return w.unguarded(t, policy, client) })
			logs := &expect.Log{}
			r := w.start(t, "a", func(o *leader.Options) { o.Log = slog.New(slog.NewTextHandler(logs, nil)) })
			expect.Within(t, time.Minute, func() error {
				if text := logs.String(); !strings.Contains(text, "admission policy "+policy+": it is not in force") || !strings.Contains(text, "deploy/base/policies.yaml") {
					return errors.New("the log names no missing policy")
				}
				return nil
			})
			if got := metric(r.registry, "chandler_task_runs_total"); got != 0 {
				t.Errorf("got %v syncs without the policy, want none", got)
			}
			if err := w.ApplyFiles(t.Context(), filepath.Join("..", "deploy", "base", "policies.yaml")); err != nil {
				t.Fatal(err)
			}
			expect.Within(t, time.Minute, func() error {
				if got := metric(r.registry, "chandler_task_runs_total"); got == 0 {
					return errors.New("no sync although the policy is back")
				}
				return nil
			})
			r.end(t)
		})
	}
}

// unguarded returns an error while the API server enforces the policy.
func (w *world) unguarded(t *testing.T, policy string, client kubernetes.Interface) error {
	t.Helper()
	if policy == "chandler-lease" {
		stray := leaseOf("nobody")
		stray.Name = "stray"
		_, err := client.CoordinationV1().Leases(namespace).Create(t.Context(), stray, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	request := tokenRequest(nodeName("a"))
	*request.Spec.ExpirationSeconds = 7200
	if _, err := w.leaderToken(t, client, request); err != nil {
		return fmt.Errorf("two hours: %w", err)
	}
	return nil
}
