package leader

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Guard proves that an admission policy is in force which bounds what a task
// writes. Its two dry runs differ in nothing but the value of TaskLabel, so no
// other policy can be what tells them apart. It finds an installation without the
// policy; it is no obstacle to who has stolen the leader's token.
type Guard struct {
	Policy string        // its name
	Source string        // the manifest that has it, e.g. "deploy/base/podlogs.yaml"
	Task   string        // the value of TaskLabel that it lets pass
	Life   time.Duration // how long one proof serves; zero is not at all
	Rest   time.Duration // how long a failure to prove it serves; zero is not at all

	// Try makes a dry run of a request that the policy lets pass exactly if the
	// value of its TaskLabel is task. Nil where each call of CheckBy brings its own.
	Try func(ctx context.Context, task string) error

	mu             sync.Mutex
	proved, failed time.Time
	failure        error
}

// unguarded is why nothing may be written. It does not unwrap: a refusal inside is
// that of a dry run, not of what was to be written.
type unguarded struct{ reason error }

// Error implements error.
func (u unguarded) Error() string { return u.reason.Error() }

// Check returns an error unless the policy is in force, as far as a proof that is
// younger than Life tells, or a failure that is younger than Rest.
func (g *Guard) Check(ctx context.Context) error { return g.CheckBy(ctx, g.Try) }

// CheckBy is Check with a dry run of something that only the caller has.
func (g *Guard) CheckBy(ctx context.Context, try func(ctx context.Context, task string) error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.proved) < g.Life {
		return nil
	}
	if time.Since(g.failed) < g.Rest {
		return g.failure
	}
	if err := g.prove(ctx, try); err != nil {
		if ctx.Err() == nil { // else it is the caller who gave up
			g.failed, g.failure = time.Now(), err
		}
		return err
	}
	g.proved = time.Now()
	return nil
}

func (g *Guard) prove(ctx context.Context, try func(ctx context.Context, task string) error) error {
	if err := unlessExists(try(ctx, g.Task)); err != nil {
		return unguarded{fmt.Errorf("prove that admission policy %s lets ours pass: %w", g.Policy, err)}
	}
	switch err := unlessExists(try(ctx, "check")); {
	case err == nil:
		return unguarded{fmt.Errorf("admission policy %s is not in force: apply %s", g.Policy, g.Source)}
	case !RefusedByPolicy(err):
		return unguarded{fmt.Errorf("prove that admission policy %s is in force: %w", g.Policy, err)}
	}
	return nil
}

// unlessExists takes it for success that the object exists: policies are asked before that
// is noticed.
func unlessExists(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// RefusedByPolicy reports whether an admission policy refused a request: its
// refusals carry one cause, without a type. That of a missing permission has none.
func RefusedByPolicy(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || status.ErrStatus.Details == nil || !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
		return false
	}
	causes := status.ErrStatus.Details.Causes
	return len(causes) > 0 && causes[0].Type == ""
}

// NamespaceEnding reports whether a write failed because its namespace is gone or on
// its way out.
func NamespaceEnding(err error) bool {
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return true
	}
	status, ok := errors.AsType[*apierrors.StatusError](err)
	return ok && apierrors.IsNotFound(err) && status.ErrStatus.Details != nil && status.ErrStatus.Details.Kind == "namespaces"
}
