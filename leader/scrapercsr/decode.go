package scrapercsr

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
)

const (
	pemType   = "CERTIFICATE REQUEST"
	pemHeader = "-----BEGIN " + pemType + "-----\n"
	pemFooter = "-----END " + pemType + "-----\n"
)

// decode takes a request apart that asks for the common name and one node's name,
// and for nothing else.
func (r Rules) decode(text []byte, node string) (*x509.CertificateRequest, *Violation) {
	der, v := decodePEM(text)
	if v != nil {
		return nil, v
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, breach(MalformedRequest, "not a PKCS#10 certificate request: %s", quote(err.Error()))
	}
	var body certificationRequestInfo
	if rest, err := asn1.Unmarshal(request.RawTBSCertificateRequest, &body); err != nil || len(rest) > 0 {
		return nil, breach(MalformedRequest, "not a PKCS#10 certificate request")
	}
	for _, check := range []func() *Violation{
		func() *Violation { return checkSubject(body.Subject.FullBytes, r.CommonName) },
		func() *Violation { return checkKey(request) },
		func() *Violation { return checkAttributes(body.Attributes, node) },
		func() *Violation { return checkEncoding(request, body, node) },
	} {
		if v := check(); v != nil {
			return nil, v
		}
	}
	return request, nil
}

// decodePEM accepts one block as encoding/pem writes it and nothing around it. A
// decoder that reads on, or begins later, thus sees the same request as this one.
func decodePEM(text []byte) ([]byte, *Violation) {
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, breach(NotPEM, "spec.request holds no PEM block")
	}
	switch {
	case !bytes.HasPrefix(text, []byte("-----BEGIN ")):
		return nil, breach(TextBeforePEM, "spec.request has text before its PEM block")
	case block.Type != pemType:
		return nil, breach(WrongPEMType, "spec.request is of type %s, want %q", quote(block.Type), pemType)
	case len(block.Headers) > 0:
		return nil, breach(PEMHeaders, "the PEM block of spec.request has headers, want none")
	case bytes.Contains(rest, []byte("-----BEGIN ")):
		return nil, breach(SecondPEMBlock, "spec.request has a second PEM block")
	case len(rest) > 0:
		return nil, breach(TextAfterPEM, "spec.request has text after its PEM block")
	case !bytes.Equal(text, pem.EncodeToMemory(block)):
		return nil, breach(UnusualPEM, "spec.request is not written as encoding/pem does: lines of 64 characters that end in one newline each")
	}
	return block.Bytes, nil
}

// certificationRequestInfo is the signed part of a request, RFC 2986 section 4.1.
type certificationRequestInfo struct {
	Raw        asn1.RawContent
	Version    int
	Subject    asn1.RawValue
	PublicKey  asn1.RawValue
	Attributes []asn1.RawValue `asn1:"tag:0"`
}

func checkKey(request *x509.CertificateRequest) *Violation {
	key, ok := request.PublicKey.(*ecdsa.PublicKey)
	switch {
	case !ok:
		return breach(WrongKeyType, "the key is of type %s, want ECDSA with curve P-256", request.PublicKeyAlgorithm)
	case key.Curve != elliptic.P256():
		return breach(WrongCurve, "the key is on curve %s, want P-256", key.Curve.Params().Name)
	case request.SignatureAlgorithm != x509.ECDSAWithSHA256:
		return breach(WrongSignatureAlgorithm, "the request is signed with %s, want %s", request.SignatureAlgorithm, x509.ECDSAWithSHA256)
	case request.CheckSignature() != nil:
		return breach(BadSignature, "the request is not signed with the key that it names")
	}
	return nil
}

// checkEncoding compares the signed part with what an honest agent would have
// signed with that key: nothing that the other rules overlook gets past it.
func checkEncoding(request *x509.CertificateRequest, body certificationRequestInfo, node string) *Violation {
	attribute, err := nodeNameAttribute(node)
	if err != nil {
		return breach(WrongNodeName, "node name %s cannot be a DNS name in a certificate", quote(node))
	}
	honest, err := asn1.Marshal(certificationRequestInfo{
		Subject:    body.Subject,
		PublicKey:  asn1.RawValue{FullBytes: request.RawSubjectPublicKeyInfo},
		Attributes: []asn1.RawValue{{FullBytes: attribute}},
	})
	if err != nil || !bytes.Equal(honest, request.RawTBSCertificateRequest) {
		return breach(UnusualEncoding, "the request is not encoded as crypto/x509 does")
	}
	return nil
}
