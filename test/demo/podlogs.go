package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// logNamespace is where the demo of pod logs plays.
const logNamespace = "shop"

// podLogs shows Roles for pod logs: one that follows a Deployment which is scaled,
// and what the ServiceAccount made with it may do.
func (d *demo) podLogs(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(d.cluster.Admin())
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: logNamespace}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	for name, labels := range map[string]map[string]string{
		"web":       {"app": "web", "podlogreader-affiliate": "enable"},
		"neighbour": {"app": "neighbour"},
	} {
		if err := addDeployment(ctx, client, name, labels); err != nil {
			return err
		}
	}
	say(d.out, "Deployments web, labelled podlogreader-affiliate=enable, and neighbour, not labelled, in namespace %s", logNamespace)
	for _, replicas := range []int{2, 3, 0, 1} {
		if err := d.showScaled(ctx, client, replicas); err != nil {
			return err
		}
	}
	return nil
}

func addDeployment(ctx context.Context, client kubernetes.Interface, name string, labels map[string]string) error {
	one := int32(1)
	_, err := client.AppsV1().Deployments(logNamespace).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "main"}}},
			},
		},
	}, metav1.CreateOptions{})
	return err
}

// showScaled scales web, waits until its Role has followed, and asks the API server
// what the made ServiceAccount may do.
func (d *demo) showScaled(ctx context.Context, client kubernetes.Interface, replicas int) error {
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	began := time.Now()
	if _, err := client.AppsV1().Deployments(logNamespace).Patch(ctx, "web", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return err
	}
	var pods []string
	err := until(ctx, func() bool {
		var err error
		pods, err = podsOf(ctx, client, "web")
		return err == nil && len(pods) == replicas && slices.Equal(pods, listed(ctx, client))
	})
	if err != nil {
		return fmt.Errorf("role podlogreader-web for %d pods: %w", replicas, err)
	}
	say(d.out, "web scaled to %d; %s later Role podlogreader-web lists %v", replicas, time.Since(began).Round(time.Millisecond), pods)
	neighbours, err := podsOf(ctx, client, "neighbour")
	if err != nil {
		return err
	}
	return d.showAccess(ctx, pods, neighbours)
}

// showAccess is kubectl auth can-i get pods/log, with the ServiceAccount's own token.
// An authorizer learns of a Role some moments after it was written.
func (d *demo) showAccess(ctx context.Context, own, others []string) error {
	var token *rest.Config
	err := until(ctx, func() (made bool) {
		var err error
		token, err = d.cluster.AsServiceAccount(ctx, logNamespace, "podlogreader-web")
		return err == nil
	})
	if err != nil {
		return fmt.Errorf("token of podlogreader-web: %w", err)
	}
	reader, err := kubernetes.NewForConfig(token)
	if err != nil {
		return err
	}
	for _, pod := range append(slices.Clone(own), others...) {
		want := slices.Contains(own, pod)
		err := until(ctx, func() bool {
			allowed, err := mayReadLog(ctx, reader, pod)
			return err == nil && allowed == want
		})
		if err != nil {
			return fmt.Errorf("access to the log of %s as podlogreader-web, wanted %t: %w", pod, want, err)
		}
		answer := map[bool]string{true: "yes", false: "no"}[want]
		if _, err := fmt.Fprintf(d.out, "      as podlogreader-web: auth can-i get pods/%s --subresource=log: %s\n", pod, answer); err != nil {
			return err
		}
	}
	return nil
}

func podsOf(ctx context.Context, client kubernetes.Interface, app string) ([]string, error) {
	list, err := client.CoreV1().Pods(logNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	slices.Sort(names)
	return names, nil
}

// listed returns the pods whose logs the Role grants.
func listed(ctx context.Context, client kubernetes.Interface) []string {
	role, err := client.RbacV1().Roles(logNamespace).Get(ctx, "podlogreader-web", metav1.GetOptions{})
	if err != nil {
		return []string{"no Role yet"}
	}
	var names []string
	for _, rule := range role.Rules {
		names = append(names, rule.ResourceNames...)
	}
	return names
}

func mayReadLog(ctx context.Context, reader kubernetes.Interface, pod string) (bool, error) {
	review, err := reader.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: logNamespace, Verb: "get", Resource: "pods", Subresource: "log", Name: pod,
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}
