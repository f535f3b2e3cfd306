// Package pki makes certificate authorities and certificates for tests, benchmarks
// and `make run`.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Lifetime is that of certificates that name none; a standing cluster runs for
// weeks.
const Lifetime = 365 * 24 * time.Hour

// Pair is a certificate and its key, and the same as PEM.
type Pair struct {
	Certificate     *x509.Certificate
	Key             crypto.Signer
	CertPEM, KeyPEM []byte
}

// NewAuthority makes a CA that signs itself.
func NewAuthority(name string) (*Pair, error) {
	return issue(&x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}, nil)
}

// Client issues a client certificate for a user and its groups.
func (p *Pair) Client(user string, groups ...string) (*Pair, error) {
	return p.Issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// Server issues a server's certificate for names and addresses.
func (p *Pair) Server(names []string, addresses ...net.IP) (*Pair, error) {
	return p.Issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: names[0]},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    names,
		IPAddresses: addresses,
	})
}

// Issue completes the template with key, serial number and, where it has none,
// validity, and signs it.
func (p *Pair) Issue(template *x509.Certificate) (*Pair, error) { return issue(template, p) }

// TLS returns the pair as crypto/tls takes it.
func (p *Pair) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.Certificate.Raw}, PrivateKey: p.Key, Leaf: p.Certificate}
}

// Write puts NAME.crt and NAME.key into a directory, each whole at once.
func (p *Pair) Write(dir, name string) error {
	return errors.Join(
		replace(filepath.Join(dir, name+".crt"), p.CertPEM),
		replace(filepath.Join(dir, name+".key"), p.KeyPEM),
	)
}

func replace(path string, data []byte) error {
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// issue signs; without an issuer the certificate signs itself.
func issue(template *x509.Certificate, issuer *Pair) (*Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-5 * time.Minute)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = template.NotBefore.Add(Lifetime)
	}
	if issuer == nil {
		issuer = &Pair{Certificate: template, Key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.Certificate, key.Public(), issuer.Key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate %q: %w", template.Subject.CommonName, err)
	}
	return encode(der, key)
}

func encode(der []byte, key *ecdsa.PrivateKey) (*Pair, error) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &Pair{
		Certificate: certificate,
		Key:         key,
		CertPEM:     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		KeyPEM:      pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

// Read returns the pair that Write put into a directory.
func Read(dir, name string) (*Pair, error) {
	certPEM, err := os.ReadFile(filepath.Join(dir, name+".crt"))
	if err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(filepath.Join(dir, name+".key"))
	if err != nil {
		return nil, err
	}
	both, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("read certificate %s/%s.crt: %w", dir, name, err)
	}
	key, ok := both.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read key %s/%s.key: it cannot sign", dir, name)
	}
	return &Pair{Certificate: both.Leaf, Key: key, CertPEM: certPEM, KeyPEM: keyPEM}, nil
}
