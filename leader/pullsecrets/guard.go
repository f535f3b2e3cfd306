package pullsecrets

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/chandler-k8s/chandler/leader"
)

const (
	// guardLife: registries that renew together make one proof, and each renewal
	// makes a new one.
	guardLife = time.Minute
	// guardHost names no registry that anybody has.
	guardHost = "000000000000.dkr.ecr.us-east-1.amazonaws.com"
)

// newGuard returns that of the policy which keeps foreign Secrets from being
// overwritten.
func newGuard(client corev1client.SecretInterface) *leader.Guard {
	return &leader.Guard{
		Policy: "chandler-pull-secrets", Source: "deploy/base/pullsecrets.yaml", Task: Name, Life: guardLife,
		Try: func(ctx context.Context, task string) error {
			_, err := client.Create(ctx, &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: guardHost, Labels: map[string]string{leader.TaskLabel: task}},
				Type:       corev1.SecretTypeDockerConfigJson,
				Data:       map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{}}`)},
			}, metav1.CreateOptions{FieldManager: leader.FieldManager, DryRun: []string{metav1.DryRunAll}})
			return err
		},
	}
}

// refused reports whether the API server refused this very object: an admission
// policy did, or validation, as for a type that cannot change.
func refused(err error) bool {
	if leader.RefusedByPolicy(err) {
		return true
	}
	status, ok := errors.AsType[*apierrors.StatusError](err)
	return ok && apierrors.IsInvalid(err) && status.ErrStatus.Details != nil && len(status.ErrStatus.Details.Causes) > 0
}

// reasonFor quotes the refusal. The API server leaves the values of Secrets out.
func reasonFor(err error) string {
	if status, ok := errors.AsType[*apierrors.StatusError](err); ok {
		return status.ErrStatus.Details.Causes[0].Message
	}
	return err.Error()
}
