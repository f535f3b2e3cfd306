package main

import (
	"context"
	"crypto/rand"
	"io"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

const secretName = "aws-default" //nolint:gosec // the name of an object

// mountedSecret plays kubelet, which this control plane has none of: it mounts a
// Secret as a directory and keeps that current. The layout of a Secret volume is
// the one that hostfiles publishes.
type mountedSecret struct {
	cluster *cluster.Cluster
	// volumes is where Secrets are mounted; empty mounts nothing.
	volumes string
}

// dir is where this Secret is mounted.
func (m *mountedSecret) dir() string { return filepath.Join(m.volumes, secretName) }

// rotate gives the Secret a new pair of keys.
func (m *mountedSecret) rotate(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(m.cluster.Admin())
	if err != nil {
		return err
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: secretName, Namespace: fixtures.Namespace},
		StringData: map[string]string{"aws_access_key_id": "AKIA" + rand.Text()[:16], "aws_secret_access_key": rand.Text() + rand.Text()[:14] + "\n"},
	}
	secrets := client.CoreV1().Secrets(fixtures.Namespace)
	_, err = secrets.Update(ctx, secret, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = secrets.Create(ctx, secret, metav1.CreateOptions{})
	}
	if err != nil || m.volumes == "" {
		return err
	}
	return m.mount(ctx, client)
}

func (m *mountedSecret) mount(ctx context.Context, client kubernetes.Interface) error {
	secret, err := client.CoreV1().Secrets(fixtures.Namespace).Get(ctx, secretName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	dir, err := hostfiles.Open(m.volumes)
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // the files stay
	var files []hostfiles.File
	for name, data := range secret.Data {
		files = append(files, hostfiles.File{Name: name, Mode: 0o400, UID: -1, GID: -1, Data: data})
	}
	_, err = dir.Publish(secretName, files)
	return err
}

// play follows the object, as kubelet does every minute or so, until ctx ends.
func (m *mountedSecret) play(ctx context.Context, out io.Writer) {
	client, err := kubernetes.NewForConfig(m.cluster.Admin())
	for err == nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
			err = m.mount(ctx, client)
		}
	}
	if ctx.Err() == nil {
		say(out, "mounting the Secret: %v", err)
	}
}
