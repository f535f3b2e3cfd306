package podlogs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/leader"
)

const (
	// guardLife is how long one proof serves. The proof finds an installation without
	// the policies; it is no obstacle to who has stolen the leader's token.
	guardLife = 10 * time.Minute
	// guardName is the workload that the dry runs are for.
	guardName = "chandler-policy-check"
)

// unguarded is why nothing may be written. It does not unwrap: a refusal inside is
// that of a dry run.
type unguarded struct{ reason error }

// Error implements error.
func (u unguarded) Error() string { return u.reason.Error() }

// guard proves that the admission policies are in force which bound what is written.
// Two dry runs differ in nothing but the value of our label, so no other policy can
// be what tells them apart.
type guard struct {
	client    kubernetes.Interface
	namespace string

	mu     sync.Mutex
	proved map[string]time.Time // by resource
}

func newGuard(client kubernetes.Interface, namespace string) *guard {
	return &guard{client: client, namespace: namespace, proved: map[string]time.Time{}}
}

// check returns an error unless the policy of a resource is in force.
func (g *guard) check(ctx context.Context, resource string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.proved[resource]) < guardLife {
		return nil
	}
	if err := g.try(ctx, resource, Name); err != nil {
		return unguarded{fmt.Errorf("prove that the admission policy for %s lets ours pass: %w", resource, err)}
	}
	err := g.try(ctx, resource, "check")
	switch {
	case err == nil:
		return unguarded{errors.New("admission policy " + policyName(resource) + " is not in force: apply deploy/base/podlogs.yaml")}
	case !refused(err):
		return unguarded{fmt.Errorf("prove that the admission policy for %s is in force: %w", resource, err)}
	}
	g.proved[resource] = time.Now()
	return nil
}

func policyName(resource string) string { return "chandler-pod-logs-" + resource }

func (g *guard) try(ctx context.Context, resource, label string) (err error) {
	meta := objectMeta(g.namespace, workload{kind: deployment, name: guardName, uid: "00000000-0000-0000-0000-000000000000"})
	meta.Labels[leader.TaskLabel] = label
	options := metav1.CreateOptions{FieldManager: leader.FieldManager, DryRun: []string{metav1.DryRunAll}}
	switch resource {
	case roles:
		_, err = g.client.RbacV1().Roles(g.namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: rules([]string{"x"}, true)}, options)
	case bindings:
		_, err = g.client.RbacV1().RoleBindings(g.namespace).Create(ctx, roleBinding(meta), options)
	default:
		_, err = g.client.CoreV1().ServiceAccounts(g.namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, options)
	}
	if apierrors.IsAlreadyExists(err) {
		return nil // policies are asked before that is noticed
	}
	return err
}

// refused reports whether an admission policy refused this very object: its
// refusals carry one cause, without a type. A missing permission has none.
func refused(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || status.ErrStatus.Details == nil || !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
		return false
	}
	causes := status.ErrStatus.Details.Causes
	return len(causes) > 0 && causes[0].Type == ""
}

// ending reports whether the namespace is gone or on its way out.
func ending(err error) bool {
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return true
	}
	status, ok := errors.AsType[*apierrors.StatusError](err)
	return ok && apierrors.IsNotFound(err) && status.ErrStatus.Details != nil && status.ErrStatus.Details.Kind == "namespaces"
}
