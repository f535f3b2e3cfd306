package pullsecrets

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/chandler-k8s/chandler/leader"
)

const (
	policyName = "chandler-pull-secrets"
	// guardLife is how long one proof serves: registries that renew together make
	// one, and each renewal makes a new one.
	guardLife = time.Minute
	// guardHost names no registry that anybody has.
	guardHost = "000000000000.dkr.ecr.us-east-1.amazonaws.com"
)

// unguarded is why nothing may be written. It does not unwrap: a refusal inside is
// that of a dry run, not of the Secret to be written.
type unguarded struct{ reason error }

// Error implements error.
func (u unguarded) Error() string { return u.reason.Error() }

var errNoPolicy = errors.New("admission policy " + policyName + " is not in force: apply deploy/base/pullsecrets.yaml")

// guard proves that the admission policy which keeps foreign Secrets from being
// overwritten is in force. Two dry runs differ in nothing but the value of our
// label, so no other policy can be what tells them apart.
type guard struct {
	client corev1client.SecretInterface

	mu     sync.Mutex
	proved time.Time
}

// check returns an error unless the policy is in force.
func (g *guard) check(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.proved) < guardLife {
		return nil
	}
	if err := g.try(ctx, Name); err != nil {
		return unguarded{fmt.Errorf("prove that admission policy %s lets pull secrets pass: %w", policyName, err)}
	}
	err := g.try(ctx, "check")
	switch {
	case err == nil:
		return unguarded{errNoPolicy}
	case !refused(err):
		return unguarded{fmt.Errorf("prove that admission policy %s is in force: %w", policyName, err)}
	}
	g.proved = time.Now()
	return nil
}

func (g *guard) try(ctx context.Context, label string) error {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: guardHost, Labels: map[string]string{leader.TaskLabel: label}},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data:       map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{}}`)},
	}
	_, err := g.client.Create(ctx, secret, metav1.CreateOptions{
		FieldManager: leader.FieldManager, DryRun: []string{metav1.DryRunAll},
	})
	return err
}

// refused reports whether the API server refused this very object: an admission
// policy did, whose refusals carry a cause without a type, or validation, as for
// a type that cannot change. A missing permission is something else.
func refused(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || status.ErrStatus.Details == nil {
		return false
	}
	causes := status.ErrStatus.Details.Causes
	switch {
	case apierrors.IsInvalid(err):
		return len(causes) > 0
	case apierrors.IsForbidden(err):
		return len(causes) > 0 && causes[0].Type == ""
	default:
		return false
	}
}

// reasonFor quotes the refusal. The API server leaves the values of Secrets out.
func reasonFor(err error) string {
	if status, ok := errors.AsType[*apierrors.StatusError](err); ok {
		return status.ErrStatus.Details.Causes[0].Message
	}
	return err.Error()
}

// ending reports whether the namespace is gone or on its way out.
func ending(err error) bool {
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return true
	}
	status, ok := errors.AsType[*apierrors.StatusError](err)
	return ok && apierrors.IsNotFound(err) && status.ErrStatus.Details != nil && status.ErrStatus.Details.Kind == "namespaces"
}
