package csrsigning

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/leader"
)

const (
	reasonForeign = "ScraperCAForeign"
	eventAction   = "KeepScraperCA"

	shortestLook = time.Second
	longestLook  = time.Hour
)

// syncCA brings Secret, bundle and what signs in line, one write at a time: each is
// an event, which brings the next.
func (t *Task) syncCA(ctx context.Context) (again time.Duration, err error) {
	secret, bundle, err := t.observed()
	if err != nil {
		return 0, err
	}
	held, err := readSecret(secret)
	if err != nil {
		return 0, t.refuse("Secret", err)
	}
	if bundle != nil && !ours(bundle) {
		return 0, t.refuse("ConfigMap", errForeign)
	}
	t.accept()
	now := time.Now()
	wanted, err := t.advance(held, readBundle(bundle), now)
	if err != nil {
		return 0, err
	}
	if !wanted.equal(held) {
		if held.active == nil || !held.active.certificate.Equal(wanted.active.certificate) {
			t.setReady(nil) // until the other one is in place
		}
		return 0, t.writeSecret(ctx, secret, held, wanted)
	}
	if err := t.publish(ctx, bundle, held); err != nil {
		return 0, err
	}
	if slices.ContainsFunc(readBundle(bundle), held.active.certificate.Equal) {
		t.setReady(held.active)
	} else {
		t.setReady(nil)
	}
	return min(max(held.due(t.lives).Sub(now), shortestLook), longestLook), nil
}

// observed returns Secret and ConfigMap as last seen, nil for what is absent.
func (t *Task) observed() (*corev1.Secret, *corev1.ConfigMap, error) {
	secret, err := t.secrets.Get(ObjectName)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, nil, err
	}
	bundle, bundleErr := t.bundles.Get(ObjectName)
	if bundleErr != nil && !apierrors.IsNotFound(bundleErr) {
		return nil, nil, bundleErr
	}
	if err != nil {
		secret = nil
	}
	if bundleErr != nil {
		bundle = nil
	}
	return secret, bundle, nil
}

// advance decides, and makes a CA if one is wanted.
func (t *Task) advance(held holding, bundle []*x509.Certificate, now time.Time) (holding, error) {
	wanted, making := held.advance(bundle, now, t.lives)
	if !making {
		return wanted, nil
	}
	made, err := newAuthority(now, t.lives.ca)
	if err != nil {
		return holding{}, err
	}
	if wanted.active == nil {
		wanted.active = made
	} else {
		wanted.next = made
	}
	return wanted, nil
}

// writeSecret creates or replaces the Secret. Another leader that was faster is an
// ordinary outcome: what it wrote is an event.
func (t *Task) writeSecret(ctx context.Context, before *corev1.Secret, held, wanted holding) error {
	secret, err := wanted.secret()
	if err != nil {
		return err
	}
	if err := t.prove(ctx, secret); err != nil {
		return err
	}
	client := t.client.CoreV1().Secrets(t.rules.Namespace)
	if before == nil {
		_, err = client.Create(ctx, secret, metav1.CreateOptions{FieldManager: leader.FieldManager})
	} else {
		secret.ResourceVersion = before.ResourceVersion
		_, err = client.Update(ctx, secret, metav1.UpdateOptions{FieldManager: leader.FieldManager})
	}
	switch {
	case apierrors.IsAlreadyExists(err), apierrors.IsConflict(err), apierrors.IsNotFound(err) && before != nil:
		return nil
	case err != nil:
		return fmt.Errorf("write Secret %s/%s: %w", t.rules.Namespace, ObjectName, err)
	}
	if held.active == nil || !held.active.certificate.Equal(wanted.active.certificate) {
		t.metrics.rotations.Inc()
	}
	t.log.Info("CA of scraper certificates written", "active", wanted.active.certificate.Subject.CommonName,
		"rotating", wanted.next != nil, "old", len(wanted.old))
	return nil
}

// publish writes the bundle if it is not what the Secret says.
func (t *Task) publish(ctx context.Context, before *corev1.ConfigMap, held holding) error {
	bundle := held.configMap()
	client := t.client.CoreV1().ConfigMaps(t.rules.Namespace)
	var err error
	switch {
	case before == nil:
		_, err = client.Create(ctx, bundle, metav1.CreateOptions{FieldManager: leader.FieldManager})
	case before.Data[bundleKey] != bundle.Data[bundleKey] || len(before.Data) != 1:
		bundle.ResourceVersion = before.ResourceVersion
		_, err = client.Update(ctx, bundle, metav1.UpdateOptions{FieldManager: leader.FieldManager})
	default:
		return nil
	}
	switch {
	case apierrors.IsAlreadyExists(err), apierrors.IsConflict(err), apierrors.IsNotFound(err) && before != nil:
		return nil
	case err != nil:
		return fmt.Errorf("write ConfigMap %s/%s: %w", t.rules.Namespace, ObjectName, err)
	}
	t.log.Info("CA bundle of scraper certificates published", "certificates", len(held.bundle()))
	return nil
}

// refuse stops all signing because of an object that is not ours, and tells so once.
func (t *Task) refuse(kind string, reason error) error {
	t.setReady(nil)
	t.gauges.foreign.Set(1)
	err := fmt.Errorf("%s %s/%s left alone, nothing is signed: %w; rename or delete it", kind, t.rules.Namespace, ObjectName, reason)
	t.mu.Lock()
	news := t.told != err.Error()
	t.told = err.Error()
	t.mu.Unlock()
	if news {
		regarding := &corev1.ObjectReference{APIVersion: "v1", Kind: kind, Namespace: t.rules.Namespace, Name: ObjectName}
		t.events.Eventf(regarding, nil, corev1.EventTypeWarning, reasonForeign, eventAction, "%s", err)
	}
	return fmt.Errorf("%w: %w", leader.ErrPermanent, err)
}

func (t *Task) accept() {
	t.gauges.foreign.Set(0)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.told = ""
}
