package csrsigning

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"time"
)

const (
	certificateType = "CERTIFICATE"
	keyType         = "PRIVATE KEY"
	redacted        = "[redacted]"

	// backdate is for clocks of targets that are behind.
	backdate = 5 * time.Minute
)

// caKey is a CA's private key. No way of printing or encoding it shows it, not even
// as a field, where fmt does not ask a type how it wants to be printed: hence the
// function.
type caKey struct{ signer func() *ecdsa.PrivateKey }

func hold(key *ecdsa.PrivateKey) caKey {
	return caKey{func() *ecdsa.PrivateKey { return key }}
}

// LogValue implements slog.LogValuer.
func (caKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler, which package json heeds too.
func (caKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format implements fmt.Formatter.
func (caKey) Format(state fmt.State, _ rune) {
	_, _ = state.Write([]byte(redacted)) // a broken writer is fmt's concern
}

// pem encodes the key for the Secret.
func (k caKey) pem() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer())
	if err != nil {
		return nil, errors.New("encode the CA's key")
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: der}), nil
}

// authority is a CA that can sign.
type authority struct {
	certificate *x509.Certificate
	key         caKey
}

// newAuthority makes a CA that lives from now on. It signs client certificates
// alone, and no further CA.
func newAuthority(now time.Time, life time.Duration) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the CA's key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		// A name of its own, for verifiers that find an issuer by its name.
		Subject:               pkix.Name{CommonName: "chandler-scraper-ca-" + hex.EncodeToString(serial.Bytes()[:4])},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the CA's certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make the CA's certificate: %w", err)
	}
	return &authority{certificate, hold(key)}, nil
}

func newSerial() (*big.Int, error) {
	serial := make([]byte, 16)
	if _, err := rand.Read(serial); err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	serial[0] = serial[0]&0x7f | 0x40 // positive, and always of 16 bytes
	return new(big.Int).SetBytes(serial), nil
}

// sign issues a certificate for what a request names, for the given life at most.
// The request has been checked.
func (a *authority) sign(request *x509.CertificateRequest, now time.Time, life time.Duration) (certificate []byte, err error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		RawSubject:   request.RawSubject,
		DNSNames:     request.DNSNames,
		NotBefore:    later(now.Add(-backdate), a.certificate.NotBefore),
		NotAfter:     earlier(now.Add(life), a.certificate.NotAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, request.PublicKey, crypto.Signer(a.key.signer()))
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: der}), nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// parseAuthority reads a CA of ours. Errors say what is wrong and quote nothing.
func parseAuthority(certificates, key []byte) (*authority, error) {
	parsed, err := parseCertificates(certificates)
	if err != nil {
		return nil, err
	}
	if len(parsed) != 1 {
		return nil, fmt.Errorf("%d certificates, want one", len(parsed))
	}
	private, err := parseKey(key)
	if err != nil {
		return nil, err
	}
	if !private.PublicKey.Equal(parsed[0].PublicKey) {
		return nil, errors.New("the key is not that of the certificate")
	}
	return &authority{parsed[0], hold(private)}, nil
}

func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != keyType || len(rest) > 0 {
		return nil, errors.New("the key is not one PEM block of type " + keyType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the key is not in the form PKCS#8") // the error might quote it
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the key is not on curve P-256")
	}
	return key, nil
}

// parseCertificates reads certificates of CAs of ours, none from an empty text.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for len(text) > 0 {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != certificateType {
			return nil, errors.New("not a certificate in PEM")
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificate: %w", err)
		}
		if !certificate.IsCA || !certificate.MaxPathLenZero || certificate.KeyUsage != x509.KeyUsageCertSign ||
			certificate.CheckSignatureFrom(certificate) != nil {
			return nil, errors.New("not the certificate of a CA that chandler made")
		}
		all = append(all, certificate)
		text = rest
	}
	return all, nil
}

func encodeCertificates(certificates ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certificates {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: c.Raw})...)
	}
	return out
}
