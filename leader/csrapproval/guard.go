package csrapproval

import (
	"context"
	"time"

	certsv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/leader"
)

const (
	guardLife = 10 * time.Minute
	// checkType is the condition that no leader may add.
	checkType = "ChandlerPolicyCheck"
)

// newGuard returns that of the policy which bounds what a leader's token can
// approve. Without it a stolen one approves anything of our signer.
func newGuard() *leader.Guard {
	return &leader.Guard{
		Policy: "chandler-scraper-approvals", Source: "deploy/base/csrapproval-policies.yaml, or what `chandler policy` prints",
		Task: Name, Life: guardLife,
	}
}

// dryRun approves a request that may be approved, with one more condition unless
// task is ours.
func (t *Task) dryRun(ctx context.Context, request *certsv1.CertificateSigningRequest, task string) error {
	added := []certsv1.RequestConditionType{certsv1.CertificateApproved}
	if task != Name {
		added = append(added, checkType)
	}
	tried := request.DeepCopy()
	for _, condition := range added {
		tried.Status.Conditions = append(tried.Status.Conditions, certsv1.CertificateSigningRequestCondition{
			Type: condition, Status: corev1.ConditionTrue, Reason: reasonApproved, Message: "Dry run.",
		})
	}
	_, err := t.approve.UpdateApproval(ctx, request.Name, tried, metav1.UpdateOptions{
		FieldManager: leader.FieldManager, DryRun: []string{metav1.DryRunAll},
	})
	return err
}
