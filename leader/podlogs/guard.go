package podlogs

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/leader"
)

const (
	guardLife = 10 * time.Minute
	// guardRest keeps the changes of many workloads from making dry runs each while
	// a policy is missing.
	guardRest = 10 * time.Second
	// guardName is the workload that the dry runs are for.
	guardName = "chandler-policy-check"
)

// newGuards returns those of the policies that bound what is written, by resource.
func newGuards(client kubernetes.Interface, namespace string) map[string]*leader.Guard {
	guards := map[string]*leader.Guard{}
	for _, resource := range []string{roles, bindings, accounts} {
		guards[resource] = &leader.Guard{
			Policy: "chandler-pod-logs-" + resource, Source: "deploy/base/podlogs.yaml", Task: Name, Life: guardLife, Rest: guardRest,
			Try: func(ctx context.Context, task string) error {
				err := dryRun(ctx, client, namespace, resource, task, rules([]string{"x"}, true))
				if task == Name || resource != roles || !leader.RefusedByPolicy(err) {
					return err
				}
				// And the worst that a Role of ours could be, open to every pod.
				return dryRun(ctx, client, namespace, resource, Name, openRules())
			},
		}
	}
	return guards
}

func dryRun(ctx context.Context, client kubernetes.Interface, namespace, resource, task string, granted []rbacv1.PolicyRule) (err error) {
	meta := objectMeta(namespace, workload{kind: deployment, name: guardName, uid: "00000000-0000-0000-0000-000000000000"})
	meta.Labels[leader.TaskLabel] = task
	options := metav1.CreateOptions{FieldManager: leader.FieldManager, DryRun: []string{metav1.DryRunAll}}
	switch resource {
	case roles:
		_, err = client.RbacV1().Roles(namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: granted}, options)
	case bindings:
		_, err = client.RbacV1().RoleBindings(namespace).Create(ctx, roleBinding(meta), options)
	default:
		_, err = client.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, options)
	}
	return err
}

func openRules() []rbacv1.PolicyRule {
	open := rules([]string{"x"}, false)
	open[0].ResourceNames = nil
	return open
}
