package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/test/fixtures"
)

const registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"

// lead shows the leader half: a pull secret in a labelled namespace, in a second
// one later, and what happens when the leader is killed.
func (d *demo) lead(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(d.cluster.Admin())
	if err != nil {
		return err
	}
	keys := d.aws.NewKeys("demo")
	_, err = client.CoreV1().Secrets(fixtures.HostNamespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "eatr-aws-credentials-" + registry},
		StringData: map[string]string{
			"aws_region": "eu-west-1", "aws_access_key_id": keys.AccessKeyID, "aws_secret_access_key": keys.SecretAccessKey,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	for _, namespace := range []string{"team-a", "team-b"} {
		if err := d.labelled(ctx, client, namespace); err != nil {
			return err
		}
	}
	old, err := d.leader(ctx, client, "")
	if err != nil {
		return err
	}
	say(d.out, "killing the leader, %s", old.name)
	began := time.Now()
	if err := old.process.Process.Kill(); err != nil {
		return err
	}
	successor, err := d.leader(ctx, client, old.name)
	if err != nil {
		return err
	}
	say(d.out, "%s leads, %s after the kill", successor.name, time.Since(began).Round(time.Second))
	return d.labelled(ctx, client, "team-c")
}

// labelled makes a namespace that asks for a pull secret, and shows what it gets.
func (d *demo) labelled(ctx context.Context, client kubernetes.Interface, name string) error {
	began := time.Now()
	_, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{registry: "true"}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	var secret *corev1.Secret
	err = until(ctx, func() bool {
		secret, err = client.CoreV1().Secrets(name).Get(ctx, registry, metav1.GetOptions{})
		return err == nil
	})
	if err != nil {
		return fmt.Errorf("pull secret of namespace %s: %w", name, err)
	}
	took := time.Since(began).Round(time.Millisecond)
	var content struct{ Auths map[string]json.RawMessage }
	if err := json.Unmarshal(secret.Data[corev1.DockerConfigJsonKey], &content); err != nil {
		return err
	}
	say(d.out, "namespace %s has its pull secret %s after labelling, for\n      %s", name, took,
		strings.Join(slices.Sorted(maps.Keys(content.Auths)), "\n      "))
	return nil
}

// leader waits until another node than the one named leads.
func (d *demo) leader(ctx context.Context, client kubernetes.Interface, besides string) (*node, error) {
	var found *node
	err := until(ctx, func() bool {
		lease, err := client.CoordinationV1().Leases(fixtures.Namespace).Get(ctx, "chandler", metav1.GetOptions{})
		if err != nil || lease.Spec.HolderIdentity == nil {
			return false
		}
		for _, n := range d.nodes {
			if fixtures.PodName(n.name) == *lease.Spec.HolderIdentity && n.name != besides {
				found = n
			}
		}
		return found != nil
	})
	if err != nil {
		return nil, fmt.Errorf("wait for a leader: %w", err)
	}
	return found, nil
}

// until polls, for a minute at most.
func until(ctx context.Context, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}
