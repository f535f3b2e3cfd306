package podlogs

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ask reads a workload.
func (t *Task) ask(ctx context.Context, namespace string, w workload) (answer, error) {
	object, template, err := t.read(ctx, namespace, w)
	switch {
	case apierrors.IsNotFound(err):
		return answer{workload: w}, nil
	case err != nil:
		return answer{}, fmt.Errorf("read %s %s/%s: %w", w.kind, namespace, w.name, err)
	}
	return answer{
		workload: w,
		// One that is being deleted takes with it what we make.
		exists:   object.GetUID() == w.uid && object.GetDeletionTimestamp() == nil,
		labelled: template[labelKey] == enabled,
		created:  object.GetCreationTimestamp().Time,
	}, nil
}

// read returns a workload and the labels of its pod template. With an error the
// client returns an empty object, never nil.
func (t *Task) read(ctx context.Context, namespace string, w workload) (metav1.Object, map[string]string, error) {
	options := metav1.GetOptions{}
	switch w.kind {
	case deployment:
		object, err := t.client.AppsV1().Deployments(namespace).Get(ctx, w.name, options)
		return object, object.Spec.Template.Labels, err
	case statefulSet:
		object, err := t.client.AppsV1().StatefulSets(namespace).Get(ctx, w.name, options)
		return object, object.Spec.Template.Labels, err
	case daemonSet:
		object, err := t.client.AppsV1().DaemonSets(namespace).Get(ctx, w.name, options)
		return object, object.Spec.Template.Labels, err
	case job:
		object, err := t.client.BatchV1().Jobs(namespace).Get(ctx, w.name, options)
		return object, object.Spec.Template.Labels, err
	default:
		object, err := t.client.BatchV1().CronJobs(namespace).Get(ctx, w.name, options)
		return object, object.Spec.JobTemplate.Spec.Template.Labels, err
	}
}
