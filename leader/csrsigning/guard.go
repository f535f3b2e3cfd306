package csrsigning

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/leader"
)

const guardLife = 10 * time.Minute

// newGuard returns that of the policy which bounds what the leader writes into
// Secrets of our namespace. Without it a stolen token replaces what it likes there.
func newGuard() *leader.Guard {
	return &leader.Guard{Policy: "chandler-scraper-ca", Source: "deploy/base/csrsigning.yaml", Task: Name, Life: guardLife}
}

// prove makes dry runs of creating the Secret that is to be written: no other is a
// valid pair, of which the API server warns.
func (t *Task) prove(ctx context.Context, secret *corev1.Secret) error {
	client := t.client.CoreV1().Secrets(t.rules.Namespace)
	return t.guard.CheckBy(ctx, func(ctx context.Context, task string) error {
		tried := secret.DeepCopy()
		tried.Labels[leader.TaskLabel] = task
		_, err := client.Create(ctx, tried, metav1.CreateOptions{FieldManager: leader.FieldManager, DryRun: []string{metav1.DryRunAll}})
		return err
	})
}
