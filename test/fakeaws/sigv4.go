package fakeaws

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Kinds that only a request's own shape can cause.
const (
	missingSignature Kind = -1 - iota
	malformedSignature
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	dateFormat = "20060102T150405Z"

	// maxSkew is how far a signature's date may be off. STS names 15 minutes in
	// its refusal.
	maxSkew = 15 * time.Minute

	expiredMessage   = "The security token included in the request is expired"
	unknownMessage   = "The security token included in the request is invalid."
	malformedMessage = "The Authorization header is not a complete AWS4-HMAC-SHA256 signature"
	signatureMessage = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method."
)

// authorization is an Authorization header taken apart, e.g. "AWS4-HMAC-SHA256
// Credential=AKIA/20260102/eu-west-1/ecr/aws4_request, SignedHeaders=host;x-amz-date, Signature=ab12".
type authorization struct {
	present     bool
	complete    bool
	accessKeyID string
	day         string // e.g. "20260102"
	region      string
	service     string
	headers     []string // lower case
	signature   string   // hex
}

func parseAuthorization(r *http.Request) authorization {
	header := r.Header.Get("Authorization")
	a := authorization{present: header != ""}
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok {
		return a
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[name] = value
	}
	scope := strings.Split(fields["Credential"], "/")
	if len(scope) != 5 || scope[4] != "aws4_request" {
		return a
	}
	a.accessKeyID, a.day, a.region, a.service = scope[0], scope[1], scope[2], scope[3]
	a.headers = strings.Split(fields["SignedHeaders"], ";")
	a.signature = fields["Signature"]
	a.complete = a.accessKeyID != "" && a.signature != "" &&
		slices.Contains(a.headers, "host") && slices.Contains(a.headers, "x-amz-date")
	return a
}

// authenticate returns the keys that signed a request, or the refusal that the
// real service would give.
func (s *Server) authenticate(r *http.Request, body []byte, a authorization, c Call, words codec) (Keys, *apiError) {
	signed, err := time.Parse(dateFormat, r.Header.Get("X-Amz-Date"))
	switch {
	case !a.present:
		return Keys{}, words.wording(missingSignature, c)
	case !a.complete || err != nil || signed.Format("20060102") != a.day:
		return Keys{}, words.wording(malformedSignature, c)
	}
	keys, known := s.lookup(a.accessKeyID)
	if !known || r.Header.Get("X-Amz-Security-Token") != keys.SessionToken {
		return Keys{}, words.wording(UnknownKeys, c)
	}
	bad := words.wording(BadSignature, c)
	if scope := s.wrongScope(a, c); scope != "" {
		bad.message = scope
		return Keys{}, bad
	}
	now := s.now()
	if signed.Before(now.Add(-maxSkew)) || signed.After(now.Add(maxSkew)) {
		bad.message = fmt.Sprintf("Signature expired: %s is not within %v of %s", signed.Format(dateFormat), maxSkew, now.UTC().Format(dateFormat))
		return Keys{}, bad
	}
	if !signatureFits(r, body, a, keys, signed) {
		return Keys{}, bad
	}
	if !keys.Expires.IsZero() && !now.Before(keys.Expires) {
		return Keys{}, words.wording(ExpiredKeys, c)
	}
	return keys, nil
}

func (s *Server) wrongScope(a authorization, c Call) string {
	if a.service != c.Service {
		return fmt.Sprintf("Credential should be scoped to correct service: '%s'.", c.Service)
	}
	if a.region == "" || (len(s.options.Regions) > 0 && !slices.Contains(s.options.Regions, a.region)) {
		return "Credential should be scoped to a valid region."
	}
	return ""
}

// signatureFits signs what the client says it signed, with the SDK's own
// signer, and compares.
func signatureFits(r *http.Request, body []byte, a authorization, keys Keys, signed time.Time) bool {
	again := &http.Request{
		Method: r.Method,
		Host:   r.Host,
		URL:    &url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery},
		Header: http.Header{},
	}
	for _, name := range a.headers {
		switch name {
		case "host":
		case "content-length":
			again.ContentLength = r.ContentLength
		default:
			again.Header[http.CanonicalHeaderKey(name)] = slices.Clone(r.Header.Values(name))
		}
	}
	sum := sha256.Sum256(body)
	// A session token is among the headers already. A signer of its own for
	// each request, since signers remember keys by their ID alone and would miss
	// a changed secret.
	credentials := aws.Credentials{AccessKeyID: keys.AccessKeyID, SecretAccessKey: keys.SecretAccessKey}
	err := v4.NewSigner().SignHTTP(context.Background(), credentials, again, hex.EncodeToString(sum[:]), a.service, a.region, signed)
	if err != nil {
		return false
	}
	return hmac.Equal([]byte(parseAuthorization(again).signature), []byte(a.signature))
}

func deniedMessage(c Call, resource string) string {
	who := c.Principal
	if who == "" {
		who = "anonymous"
	}
	return fmt.Sprintf("User: %s is not authorized to perform: %s:%s on resource: %s", who, c.Service, c.Operation, resource)
}
