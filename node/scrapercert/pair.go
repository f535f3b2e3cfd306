package scrapercert

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

const blockCertificate = "CERTIFICATE"

// pair is a certificate with its key. It is never logged.
type pair struct {
	leaf    *x509.Certificate
	certPEM []byte // the leaf, then whatever the signer sent with it
	keyPEM  []byte
	// obtained is when we got it, by the wall clock; zero for a pair of an earlier
	// run.
	obtained time.Time
}

// newPair puts together a certificate and its key and proves that they match.
func newPair(certPEM, keyPEM []byte) (*pair, error) {
	certificates, err := parseCertificates(certPEM)
	if err != nil {
		return nil, err
	}
	clean := encodeCertificates(certificates)
	if _, err := tls.X509KeyPair(clean, keyPEM); err != nil {
		return nil, err
	}
	return &pair{leaf: certificates[0], certPEM: clean, keyPEM: keyPEM}, nil
}

// verify holds the pair to what is asked for, at a time. Errors wrap ErrInvalid or
// ErrExpired.
func (p *pair) verify(commonName, nodeName string, now time.Time) error {
	leaf := p.leaf
	switch {
	case leaf.Subject.CommonName != commonName || len(leaf.Subject.Names) != 1:
		return fmt.Errorf("%w: its subject is %.200q, want the common name %q alone", ErrInvalid, leaf.Subject, commonName)
	case !slices.Equal(leaf.DNSNames, []string{nodeName}),
		len(leaf.IPAddresses)+len(leaf.EmailAddresses)+len(leaf.URIs) > 0:
		return fmt.Errorf("%w: it does not name the node %q alone", ErrInvalid, nodeName)
	case leaf.IsCA:
		return fmt.Errorf("%w: it is a CA", ErrInvalid)
	case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		return fmt.Errorf("%w: it is not for client authentication", ErrInvalid)
	}
	return checkDates(leaf, now)
}

func checkDates(leaf *x509.Certificate, now time.Time) error {
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("%w: it was valid until %s, and this node's clock says %s",
			ErrExpired, leaf.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("%w: it is valid from %s, and this node's clock says %s",
			ErrInvalid, leaf.NotBefore.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// due is when the pair is to be replaced: at 70 to 80 % of its life, and at the
// latest the given time after it was obtained, less up to a tenth; zero leaves
// that out. Where in the range is derived from the certificate, so it differs from
// node to node and is the same after a restart.
//
// Its life begins when it was obtained: Kubernetes backdates certificates by five
// minutes, which for one of ten seconds is nearly all of it.
func (p *pair) due(renewAfter time.Duration) time.Time {
	begin := p.leaf.NotBefore
	if p.obtained.After(begin) {
		begin = p.obtained
	}
	hash := sha256.Sum256(p.leaf.Raw)
	share := float64(binary.BigEndian.Uint32(hash[:])) / (1 << 32)
	wait := time.Duration((0.7 + 0.1*share) * float64(p.leaf.NotAfter.Sub(begin)))
	if renewAfter > 0 {
		wait = min(wait, time.Duration((1-0.1*share)*float64(renewAfter)))
	}
	return begin.Add(wait)
}

// parseCertificates reads PEM that holds certificates and nothing else; text
// around the blocks is let go. A private key in it is an error: the result may be
// published for everybody.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var found []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != blockCertificate {
			return nil, fmt.Errorf("it has a PEM block %.40q, want certificates alone", block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		found = append(found, certificate)
	}
	if len(found) == 0 {
		return nil, errors.New("it has no certificate in PEM form")
	}
	return found, nil
}

// encodeCertificates writes each certificate once, without the headers and text
// that stood around it.
func encodeCertificates(certificates []*x509.Certificate) []byte {
	var b bytes.Buffer
	seen := map[string]bool{}
	for _, c := range certificates {
		if !seen[string(c.Raw)] {
			seen[string(c.Raw)] = true
			b.Write(pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: c.Raw}))
		}
	}
	return b.Bytes()
}
