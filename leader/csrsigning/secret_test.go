package csrsigning

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func full(t *testing.T) holding {
	t.Helper()
	return holding{active: made(t, began), next: made(t, began), published: began, old: []*x509.Certificate{made(t, began).certificate}}
}

func TestSecretIsReadAsWritten(t *testing.T) {
	for name, h := range map[string]holding{
		"first":    {active: made(t, began)},
		"rotating": {active: made(t, began), next: made(t, began)},
		"all":      full(t),
	} {
		t.Run(name, func(t *testing.T) {
			secret, err := h.secret()
			if err != nil {
				t.Fatal(err)
			}
			got, err := readSecret(secret)
			if err != nil {
				t.Fatal(err)
			}
			if !got.equal(h) || !got.active.key.signer().Equal(h.active.key.signer()) {
				t.Error("got another holding than was written")
			}
		})
	}
}

func TestForeignSecretsAreRefused(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	p384 := pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: der})
	leaf := signedLeaf(t, made(t, time.Now()))
	for name, change := range map[string]func(*corev1.Secret){
		"no label":            func(s *corev1.Secret) { s.Labels = nil },
		"another task's":      func(s *corev1.Secret) { s.Labels["chandler.dev/task"] = "pullsecrets" },
		"type":                func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque },
		"no certificate":      func(s *corev1.Secret) { s.Data["tls.crt"] = nil },
		"no key":              func(s *corev1.Secret) { s.Data["tls.key"] = nil },
		"another's key":       func(s *corev1.Secret) { s.Data["tls.key"] = s.Data["next.key"] },
		"another curve":       func(s *corev1.Secret) { s.Data["tls.key"] = p384 },
		"text after the key":  func(s *corev1.Secret) { s.Data["tls.key"] = append(s.Data["tls.key"], 'x') },
		"two certificates":    func(s *corev1.Secret) { s.Data["tls.crt"] = append(s.Data["tls.crt"], s.Data["next.crt"]...) },
		"no CA":               func(s *corev1.Secret) { s.Data["tls.crt"] = leaf },
		"next without a key":  func(s *corev1.Secret) { delete(s.Data, "next.key") },
		"garbage published":   func(s *corev1.Secret) { s.Data["next.published"] = []byte("soon") },
		"garbage old":         func(s *corev1.Secret) { s.Data["old.crt"] = []byte("x") },
		"old that is no CA's": func(s *corev1.Secret) { s.Data["old.crt"] = leaf },
	} {
		t.Run(name, func(t *testing.T) {
			secret, err := full(t).secret()
			if err != nil {
				t.Fatal(err)
			}
			key := secret.Data["tls.key"]
			change(secret)
			_, err = readSecret(secret)
			if err == nil {
				t.Fatal("got nil, want it refused")
			}
			if line := strings.Split(string(key), "\n")[1]; strings.Contains(err.Error(), line) {
				t.Errorf("the error shows the key: %v", err)
			}
		})
	}
}

func FuzzReadSecret(f *testing.F) {
	ca, err := newAuthority(time.Now(), time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	good, err := holding{active: ca}.secret()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.Data["tls.crt"], good.Data["tls.key"], []byte("2026-11-21T12:00:00Z"), good.Data["tls.crt"])
	f.Add([]byte("x"), []byte("-----BEGIN PRIVATE KEY-----"), []byte(""), []byte(nil))
	f.Fuzz(func(t *testing.T, certificate, key, published, old []byte) {
		secret := good.DeepCopy()
		secret.Data = map[string][]byte{"tls.crt": certificate, "tls.key": key, "next.published": published, "old.crt": old}
		h, err := readSecret(secret)
		if err != nil {
			return
		}
		again, err := h.secret()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readSecret(again); err != nil || !got.equal(holding{active: h.active, old: h.old}) {
			t.Errorf("what was read is not read again: %v", err)
		}
	})
}

func signedLeaf(t *testing.T, ca *authority) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"node-a"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.sign(request, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// TestCertificatesEndWithTheCA: none outlives what vouches for it.
func TestCertificatesEndWithTheCA(t *testing.T) {
	ca, err := newAuthority(time.Now(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(signedLeaf(t, ca))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if leaf.NotAfter.After(ca.certificate.NotAfter) || leaf.NotBefore.Before(ca.certificate.NotBefore) {
		t.Errorf("certificate from %s to %s, CA from %s to %s", leaf.NotBefore, leaf.NotAfter, ca.certificate.NotBefore, ca.certificate.NotAfter)
	}
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("usages %v, %v, CA %v", leaf.KeyUsage, leaf.ExtKeyUsage, leaf.IsCA)
	}
}

// TestKeysAreNotShown tries every way of printing what holds a CA's key.
func TestKeysAreNotShown(t *testing.T) {
	h := full(t)
	raw, err := h.active.key.signer().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	text, err := h.active.key.pem()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	var out bytes.Buffer
	for _, value := range []any{h, &h, h.active, *h.active, h.active.key, []caKey{h.active.key}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
			fmt.Fprintf(&out, verb, value)
		}
		for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(handler).Info("x", "value", value)
		}
		if encoded, err := json.Marshal(value); err == nil {
			out.Write(encoded)
		}
	}
	for _, shown := range append(lines[1:len(lines)-2], new(big.Int).SetBytes(raw).String(), hex.EncodeToString(raw)) {
		if strings.Contains(out.String(), shown) {
			t.Errorf("a private key is shown: %q", shown)
		}
	}
	if got := fmt.Sprint(h.active.key); got != redacted {
		t.Errorf("got %q, want %q", got, redacted)
	}
}
