package serving

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"sync"
	"time"
)

// selfMadeLife is how long a certificate of ours lasts. Nobody trusts it by its
// issuer, so what counts is that the key does not serve for ever.
const selfMadeLife = 30 * 24 * time.Hour

var errNoCertificate = errors.New("no certificate has been read yet")

// newCertificates returns what answers a handshake's question for a certificate.
func newCertificates(o TLS, m *metrics, log *slog.Logger) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if o.CertFile == "" {
		made := &selfMade{nodeName: o.NodeName, metrics: m}
		return made.get
	}
	files := &kept[*tls.Certificate]{
		what: "serving certificate", paths: []string{o.CertFile, o.KeyFile}, parse: parsePair, log: log,
	}
	get := func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, valid := files.get()
		if !valid {
			return nil, errNoCertificate
		}
		m.notAfter.Set(float64(pair.Leaf.NotAfter.Unix()))
		return pair, nil
	}
	_, _ = get(nil) // what is wrong is in the log before the first scrape
	return get
}

func parsePair(contents [][]byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	return &pair, err
}

// selfMade is a certificate that we make at the first handshake, and anew when
// four fifths of its life have passed. Its key is in memory only.
type selfMade struct {
	nodeName string
	metrics  *metrics

	mu   sync.Mutex // guards pair
	pair *tls.Certificate
}

func (s *selfMade) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.pair != nil && now.Before(s.pair.Leaf.NotAfter.Add(-selfMadeLife/5)) && now.After(s.pair.Leaf.NotBefore) {
		return s.pair, nil
	}
	pair, err := makeCertificate(s.nodeName, now)
	if err != nil {
		return nil, fmt.Errorf("make serving certificate: %w", err)
	}
	s.pair = pair
	s.metrics.notAfter.Set(float64(pair.Leaf.NotAfter.Unix()))
	return pair, nil
}

// makeCertificate makes a certificate that signs itself, for the node's name and
// every address of this network namespace.
func makeCertificate(nodeName string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "chandler"},
		NotBefore: now.Add(-time.Hour), // clocks differ
		NotAfter:  now.Add(selfMadeLife),
		KeyUsage:  x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{"localhost", nodeName},
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for _, a := range addresses {
		if network, ok := a.(*net.IPNet); ok {
			template.IPAddresses = append(template.IPAddresses, network.IP)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}
