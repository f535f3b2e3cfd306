package fakeaws

import (
	"net/http"
	"testing"
)

func FuzzParseAuthorization(f *testing.F) {
	const scope = "Credential=AKIA/20260102/eu-west-1/ecr/aws4_request"
	for _, header := range []string{
		"",
		"Bearer x",
		"AWS4-HMAC-SHA256",
		"AWS4-HMAC-SHA256 ",
		"AWS4-HMAC-SHA256 " + scope + ", SignedHeaders=host;x-amz-date, Signature=ab12",
		"AWS4-HMAC-SHA256 " + scope + ",SignedHeaders=host,Signature=",
		"AWS4-HMAC-SHA256 Credential=////aws4_request, SignedHeaders=;;, Signature==",
	} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		a := parseAuthorization(&http.Request{Header: http.Header{"Authorization": {header}}})
		if a.complete && (!a.present || a.accessKeyID == "" || a.signature == "" || len(a.headers) < 2) {
			t.Errorf("taken for complete: %q", header)
		}
	})
}
