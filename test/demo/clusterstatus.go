package main

import (
	"context"
	"fmt"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/test/fixtures"
)

// statusConfig is what of a node's configuration concerns the metric.
const statusConfig = `{enabled: true, seconds: 5, region: eu-west-1, metric: {namespace: Kubernetes/Status, name: Healthy}, targets: [{kind: Deployment, namespace: observability, name: prometheus, mode: AtLeastOne}]}`

const statusTarget = `
apiVersion: v1
kind: Namespace
metadata: {name: observability}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: prometheus, namespace: observability}
spec:
  replicas: 2
  selector: {matchLabels: {app: prometheus}}
  template:
    metadata: {labels: {app: prometheus}}
    spec: {containers: [{name: prometheus, image: none}]}
`

// prepareStatus makes the target of the metric, with its pods ready, and the keys
// to publish with.
func (d *demo) prepareStatus(ctx context.Context) error {
	keys := d.aws.NewKeys("status")
	d.env = map[string]string{"AWS_ACCESS_KEY_ID": keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY": keys.SecretAccessKey}
	if err := d.cluster.ApplyFiles(ctx, filepath.Join(fixtures.Root(), "deploy", "optional", "clusterstatus.yaml")); err != nil {
		return err
	}
	if err := d.cluster.Apply(ctx, []byte(statusTarget)); err != nil {
		return err
	}
	return d.setReady(ctx, corev1.ConditionTrue)
}

// status shows the metric: its value drops when the target loses its pods, and
// returns with them.
func (d *demo) status(ctx context.Context) error {
	say(d.out, "CloudWatch metric Kubernetes/Status Healthy, every 5 s: 1 while Deployment observability/prometheus has a ready pod")
	if err := d.awaitDatum(ctx, 1); err != nil {
		return err
	}
	for _, part := range []struct {
		what  string
		ready corev1.ConditionStatus
		value float64
	}{
		{"its pods are not ready any more", corev1.ConditionFalse, 0},
		{"they are ready again", corev1.ConditionTrue, 1},
	} {
		say(d.out, "%s", part.what)
		if err := d.setReady(ctx, part.ready); err != nil {
			return err
		}
		if err := d.awaitDatum(ctx, part.value); err != nil {
			return err
		}
	}
	return nil
}

// setReady sets the condition of the target's pods, as kubelets would.
func (d *demo) setReady(ctx context.Context, ready corev1.ConditionStatus) error {
	client, err := kubernetes.NewForConfig(d.cluster.Admin())
	if err != nil {
		return err
	}
	pods := client.CoreV1().Pods("observability")
	return until(ctx, func() bool {
		list, err := pods.List(ctx, metav1.ListOptions{})
		if err != nil || len(list.Items) < 2 {
			return false
		}
		for i := range list.Items {
			list.Items[i].Status.Phase = corev1.PodRunning
			list.Items[i].Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
			if _, err := pods.UpdateStatus(ctx, &list.Items[i], metav1.UpdateOptions{}); err != nil {
				return false
			}
		}
		return true
	})
}

// awaitDatum waits until CloudWatch has the value, and shows the last data.
func (d *demo) awaitDatum(ctx context.Context, value float64) error {
	err := until(ctx, func() bool {
		data := d.aws.Data()
		return len(data) > 0 && data[len(data)-1].Value == value
	})
	if err != nil {
		return fmt.Errorf("wait for a datum of %v: %w", value, err)
	}
	data := d.aws.Data()
	for _, datum := range data[max(0, len(data)-2):] {
		fmt.Fprintf(d.out, "      %s  %s %s = %v\n", datum.Timestamp.Format("15:04:05.0"), datum.Namespace, datum.Name, datum.Value) //nolint:errcheck // a closed terminal ends us by signal
	}
	return nil
}
