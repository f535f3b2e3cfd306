package podlogs

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/chandler-k8s/chandler/leader"
)

// inquire reads the workload of each of the kinds, of which there is at most one of a
// name, and notes what that says of the claimants. Where something of ours has no
// owner, a workload that is there without pods becomes one of them.
func (t *Task) inquire(ctx context.Context, key string, asked []string, f found, s *state) error {
	namespace, name, _ := strings.Cut(key, "/")
	var heirs []workload
	for _, kind := range asked {
		object, template, err := t.read(ctx, namespace, kind, name)
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("read %s %s: %w", kind, key, err)
		}
		// One that is being deleted takes with it what we make.
		there := err == nil && object.GetDeletionTimestamp() == nil
		claimants := f.claimants()
		if heir, ok := inheriting(kind, object); there && ok && f.ownerless() {
			heirs = append(heirs, heir)
			claimants = append(claimants, heir)
		}
		for _, claimant := range claimants {
			if claimant.kind != kind {
				continue
			}
			s.claims[claimant] = answer{
				exists:   there && object.GetUID() == claimant.uid,
				labelled: template[labelKey] == enabled,
				created:  object.GetCreationTimestamp().Time,
			}
		}
	}
	s.inherit(f, asked, heirs)
	return nil
}

// inheriting returns a workload that was read, unless it is the Job of another one.
func inheriting(kind string, object metav1.Object) (workload, bool) {
	if kind == job && metav1.GetControllerOfNoCopy(object) != nil {
		return workload{}, false
	}
	return itself(kind, object)
}

// isOurs reports whether there is an object of a name that carries our label.
func (t *Task) isOurs(ctx context.Context, resource, namespace, name string) (bool, error) {
	options := metav1.ListOptions{LabelSelector: leader.TaskLabel + "=" + Name, FieldSelector: "metadata.name=" + name}
	var list runtime.Object
	var err error
	switch resource {
	case roles:
		list, err = t.client.RbacV1().Roles(namespace).List(ctx, options)
	case bindings:
		list, err = t.client.RbacV1().RoleBindings(namespace).List(ctx, options)
	default:
		list, err = t.client.CoreV1().ServiceAccounts(namespace).List(ctx, options)
	}
	if err != nil {
		return false, fmt.Errorf("look for %s %s/%s: %w", resource, namespace, name, err)
	}
	return meta.LenList(list) > 0, nil
}

// read returns a workload and the labels of its pod template. With an error the
// client returns an empty object, never nil.
func (t *Task) read(ctx context.Context, namespace, kind, name string) (metav1.Object, map[string]string, error) {
	options := metav1.GetOptions{}
	switch kind {
	case deployment:
		object, err := t.client.AppsV1().Deployments(namespace).Get(ctx, name, options)
		return object, object.Spec.Template.Labels, err
	case statefulSet:
		object, err := t.client.AppsV1().StatefulSets(namespace).Get(ctx, name, options)
		return object, object.Spec.Template.Labels, err
	case daemonSet:
		object, err := t.client.AppsV1().DaemonSets(namespace).Get(ctx, name, options)
		return object, object.Spec.Template.Labels, err
	case job:
		object, err := t.client.BatchV1().Jobs(namespace).Get(ctx, name, options)
		return object, object.Spec.Template.Labels, err
	default:
		object, err := t.client.BatchV1().CronJobs(namespace).Get(ctx, name, options)
		return object, object.Spec.JobTemplate.Spec.Template.Labels, err
	}
}
