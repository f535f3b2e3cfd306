package fakeaws_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/chandler-k8s/chandler/test/fakeaws"
)

func TestWrongKeys(t *testing.T) {
	for _, tc := range []struct {
		name             string
		change           func(s *fakeaws.Server, k *fakeaws.Keys)
		wantECR, wantSTS string
	}{
		{"right", func(*fakeaws.Server, *fakeaws.Keys) {}, "", ""},
		{"unknown access key ID", func(_ *fakeaws.Server, k *fakeaws.Keys) { k.AccessKeyID = "AKIAAAAAAAAAAAAAAAAA" }, "UnrecognizedClientException", "InvalidClientTokenId"},
		{"removed", func(s *fakeaws.Server, k *fakeaws.Keys) { s.RemoveKeys(k.AccessKeyID) }, "UnrecognizedClientException", "InvalidClientTokenId"},
		{"wrong secret", func(_ *fakeaws.Server, k *fakeaws.Keys) { k.SecretAccessKey += "x" }, "InvalidSignatureException", "SignatureDoesNotMatch"},
		{"secret with a newline", func(_ *fakeaws.Server, k *fakeaws.Keys) { k.SecretAccessKey += "\n" }, "InvalidSignatureException", "SignatureDoesNotMatch"},
		{"session token of nobody", func(_ *fakeaws.Server, k *fakeaws.Keys) { k.SessionToken = "x" }, "UnrecognizedClientException", "InvalidClientTokenId"},
		{"session token missing", func(s *fakeaws.Server, k *fakeaws.Keys) {
			temporary := *k
			temporary.SessionToken = "wanted"
			s.SetKeys(temporary)
		}, "UnrecognizedClientException", "InvalidClientTokenId"},
		{"right session token", func(s *fakeaws.Server, k *fakeaws.Keys) {
			k.SessionToken = "wanted"
			s.SetKeys(*k)
		}, "", ""},
		{"expired", func(s *fakeaws.Server, k *fakeaws.Keys) { s.ExpireKeys(k.AccessKeyID) }, "ExpiredTokenException", "ExpiredToken"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := listen(t, fakeaws.Options{})
			k := s.NewKeys("ci")
			tc.change(s, &k)
			cfg := signWith(loadConfig(t, s.Env()), k)
			_, err := getToken(t.Context(), cfg)
			if got := code(err); got != tc.wantECR {
				t.Errorf("ECR: got error %q (%v), want %q", got, err, tc.wantECR)
			}
			_, err = getIdentity(t.Context(), cfg)
			if got := code(err); got != tc.wantSTS {
				t.Errorf("STS: got error %q (%v), want %q", got, err, tc.wantSTS)
			}
		})
	}
}

func TestRotatedSecret(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	old := s.NewKeys("ci")
	fresh := old
	fresh.SecretAccessKey = "another"
	s.SetKeys(fresh)
	cfg := loadConfig(t, s.Env())
	if _, err := getToken(t.Context(), signWith(cfg, old)); code(err) != "InvalidSignatureException" {
		t.Errorf("old secret: got error %v, want InvalidSignatureException", err)
	}
	if _, err := getToken(t.Context(), signWith(cfg, fresh)); err != nil {
		t.Errorf("new secret: %v", err)
	}
}

func TestRegionsAllowed(t *testing.T) {
	s := listen(t, fakeaws.Options{Regions: []string{"eu-west-1"}})
	cfg := signWith(loadConfig(t, s.Env()), s.NewKeys("ci"))
	got := map[string]string{}
	for _, region := range []string{"eu-west-1", "eu-west-2"} {
		cfg.Region = region
		_, err := getToken(t.Context(), cfg)
		got[region] = code(err)
	}
	want := map[string]string{"eu-west-1": "", "eu-west-2": "InvalidSignatureException"}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("errors by region (-got +want):\n%s", diff)
	}
}

// ecrRequest is a rightly signed request whose parts a test can then spoil.
func ecrRequest(t *testing.T, s *fakeaws.Server, service string, at time.Time) *http.Request {
	t.Helper()
	const body = "{}"
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken")
	k := s.NewKeys("ci")
	sum := sha256.Sum256([]byte(body))
	credentials := aws.Credentials{AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey}
	if err := v4.NewSigner().SignHTTP(context.Background(), credentials, r, hex.EncodeToString(sum[:]), service, "eu-west-1", at); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSignatureIsChecked(t *testing.T) {
	replace := func(old, with string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Authorization", strings.ReplaceAll(r.Header.Get("Authorization"), old, with))
		}
	}
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	now := time.Now()
	for _, tc := range []struct {
		name    string
		service string
		at      time.Time
		spoil   func(*http.Request)
		want    int
	}{
		{"right", "ecr", now, func(*http.Request) {}, http.StatusOK},
		{"unsigned headers may change", "ecr", now, set("User-Agent", "curl"), http.StatusOK},
		{"no Authorization", "ecr", now, func(r *http.Request) { r.Header.Del("Authorization") }, http.StatusBadRequest},
		{"other scheme", "ecr", now, set("Authorization", "Bearer x"), http.StatusBadRequest},
		{"no scope", "ecr", now, replace("/eu-west-1/ecr/aws4_request", ""), http.StatusBadRequest},
		{"other region in the scope", "ecr", now, replace("/eu-west-1/", "/eu-west-2/"), http.StatusBadRequest},
		{"empty region in the scope", "ecr", now, replace("/eu-west-1/", "//"), http.StatusBadRequest},
		{"signed for another service", "sts", now, func(*http.Request) {}, http.StatusBadRequest},
		{"no signature", "ecr", now, replace("Signature=", "Other="), http.StatusBadRequest},
		{"host not signed", "ecr", now, replace("host;", ""), http.StatusBadRequest},
		{"no date", "ecr", now, func(r *http.Request) { r.Header.Del("X-Amz-Date") }, http.StatusBadRequest},
		{"other date", "ecr", now, set("X-Amz-Date", now.Add(time.Second).UTC().Format("20060102T150405Z")), http.StatusBadRequest},
		{"old", "ecr", now.Add(-time.Hour), func(*http.Request) {}, http.StatusBadRequest},
		{"future", "ecr", now.Add(time.Hour), func(*http.Request) {}, http.StatusBadRequest},
		{"signed header changed", "ecr", now, set("Content-Type", "application/x-amz-json-1.0"), http.StatusBadRequest},
		{"path changed", "ecr", now, func(r *http.Request) { r.URL.Path = "/x" }, http.StatusBadRequest},
		{"query added", "ecr", now, func(r *http.Request) { r.URL.RawQuery = "x=1" }, http.StatusBadRequest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := ecrRequest(t, listen(t, fakeaws.Options{}), tc.service, tc.at)
			tc.spoil(r)
			if got := send(t, r, nil); got.StatusCode != tc.want {
				t.Errorf("got status %d, want %d", got.StatusCode, tc.want)
			}
		})
	}
}

func TestSDKRecoversFromClockSkew(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	cfg := signWith(loadConfig(t, s.Env()), s.NewKeys("ci"))
	cfg.Retryer = quickRetryer
	s.SetClockOffset(2 * time.Hour)
	out, err := getToken(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Count(fakeaws.Call{}), 2; got != want {
		t.Errorf("got %d attempts, want %d", got, want)
	}
	if got := time.Until(*out.AuthorizationData[0].ExpiresAt); got < 13*time.Hour {
		t.Errorf("token expires in %v, want the server's clock to count", got)
	}
}
