package csrsigning

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/leader"
)

// ObjectName is the name of the CA's Secret and of the bundle's ConfigMap.
const ObjectName = "chandler-scraper-ca"

// bundleKey is the key of the bundle in the ConfigMap.
const bundleKey = "ca.crt"

// Keys of the Secret besides those of its type.
const (
	nextCertificateKey = "next.crt"
	nextPrivateKey     = "next.key"
	publishedKey       = "next.published"
	oldKey             = "old.crt"
)

var errForeign = errors.New("not made by chandler: it lacks the label " + leader.TaskLabel + "=" + Name)

func ours(object metav1.Object) bool { return object.GetLabels()[leader.TaskLabel] == Name }

// readSecret takes the Secret apart. Nil is an empty holding. The error tells why it
// is not one that we made.
func readSecret(secret *corev1.Secret) (holding, error) {
	var h holding
	if secret == nil {
		return h, nil
	}
	if !ours(secret) {
		return h, errForeign
	}
	if secret.Type != corev1.SecretTypeTLS {
		return h, fmt.Errorf("of type %q, want %q", secret.Type, corev1.SecretTypeTLS)
	}
	var err error
	if h.active, err = parseAuthority(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]); err != nil {
		return holding{}, fmt.Errorf("%s and %s: %w", corev1.TLSCertKey, corev1.TLSPrivateKeyKey, err)
	}
	if len(secret.Data[nextCertificateKey])+len(secret.Data[nextPrivateKey]) > 0 {
		if h.next, err = parseAuthority(secret.Data[nextCertificateKey], secret.Data[nextPrivateKey]); err != nil {
			return holding{}, fmt.Errorf("%s and %s: %w", nextCertificateKey, nextPrivateKey, err)
		}
	}
	if text := secret.Data[publishedKey]; len(text) > 0 {
		if h.published, err = time.Parse(time.RFC3339, string(text)); err != nil {
			return holding{}, fmt.Errorf("%s: not a time", publishedKey)
		}
	}
	if h.old, err = parseCertificates(secret.Data[oldKey]); err != nil {
		return holding{}, fmt.Errorf("%s: %w", oldKey, err)
	}
	return h, nil
}

// secret is the holding as it is kept.
func (h holding) secret() (*corev1.Secret, error) {
	key, err := h.active.key.pem()
	if err != nil {
		return nil, err
	}
	data := map[string][]byte{
		corev1.TLSCertKey: encodeCertificates(h.active.certificate), corev1.TLSPrivateKeyKey: key,
	}
	if h.next != nil {
		if data[nextPrivateKey], err = h.next.key.pem(); err != nil {
			return nil, err
		}
		data[nextCertificateKey] = encodeCertificates(h.next.certificate)
		if !h.published.IsZero() {
			data[publishedKey] = []byte(h.published.Format(time.RFC3339))
		}
	}
	if len(h.old) > 0 {
		data[oldKey] = encodeCertificates(h.old...)
	}
	return &corev1.Secret{ObjectMeta: objectMeta(), Type: corev1.SecretTypeTLS, Data: data}, nil
}

func (h holding) configMap() *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: objectMeta(), Data: map[string]string{bundleKey: string(encodeCertificates(h.bundle()...))},
	}
}

func objectMeta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: ObjectName, Labels: map[string]string{leader.TaskLabel: Name}}
}

// readBundle returns the certificates that targets have been given. Whatever else
// is in there is about to be overwritten, so it is not an error.
func readBundle(bundle *corev1.ConfigMap) []*x509.Certificate {
	if bundle == nil {
		return nil
	}
	certificates, err := parseCertificates([]byte(bundle.Data[bundleKey]))
	if err != nil {
		return nil
	}
	return certificates
}
