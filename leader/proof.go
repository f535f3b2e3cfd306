package leader

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	leasePolicy = "chandler-lease"
	tokenPolicy = "chandler-leader-token"
	// overlongLife is more than the policy of the leader's token lets pass.
	overlongLife = time.Hour
)

// ErrUnguarded is wrapped by the error that ends a term at its start, or fails later
// requests of it, because an admission policy of deploy/base/policies.yaml is not in
// force.
var ErrUnguarded = errors.New("it is not in force, and without it any node's agent could take the leader's rights: apply deploy/base/policies.yaml")

// proveLeasePolicy makes a dry run of a Lease that the policy refuses for its name
// alone. It blocks until that is answered, for a lease duration at most.
func (l *Leader) proveLeasePolicy(ctx context.Context) error {
	stray := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{GenerateName: leaseName + "-policy-check-"}}
	seconds := int32(l.opts.LeaseDuration / time.Second)
	stray.Spec.HolderIdentity, stray.Spec.LeaseDurationSeconds = &l.opts.Identity, &seconds
	return l.prove(ctx, leasePolicy, func(ctx context.Context) error {
		stray.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
		return l.leases.dryRun(ctx, stray)
	})
}

// proveTokenPolicy makes a dry run of a request that differs in nothing but the
// token's life from the one that has just been granted.
func (l *Leader) proveTokenPolicy(ctx context.Context) error {
	return l.prove(ctx, tokenPolicy, func(ctx context.Context) error {
		_, err := l.createToken(ctx, overlongLife, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	})
}

// prove repeats a dry run until it passes, which proves that the policy is not in
// force, or is refused by a policy, which proves that it is.
func (l *Leader) prove(ctx context.Context, policy string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, l.opts.LeaseDuration)
	defer cancel()
	for {
		err := try(ctx)
		switch {
		case err == nil:
			return fmt.Errorf("admission policy %s: %w", policy, ErrUnguarded)
		case RefusedByPolicy(err):
			return nil
		case !sleep(ctx, longestObtain):
			return fmt.Errorf("prove that admission policy %s is in force: %w", policy, err)
		}
	}
}
