package fakeaws_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/chandler-k8s/chandler/test/fakeaws"
)

// status is the HTTP status in err, 0 when no answer came.
func status(err error) int {
	if answer, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		return answer.HTTPStatusCode()
	}
	return 0
}

func TestEveryKindOfFailure(t *testing.T) {
	for _, tc := range []struct {
		name     string
		kind     fakeaws.Kind
		wantECR  string
		codeECR  int
		wantSTS  string
		codeSTS  int
		wantIMDS int
	}{
		{"none", fakeaws.None, "", 0, "", 0, http.StatusBadRequest},
		{"throttled", fakeaws.Throttled, "ThrottlingException", 400, "Throttling", 400, 503},
		{"access denied", fakeaws.AccessDenied, "AccessDeniedException", 400, "AccessDenied", 403, 403},
		{"expired keys", fakeaws.ExpiredKeys, "ExpiredTokenException", 400, "ExpiredToken", 403, 403},
		{"unknown keys", fakeaws.UnknownKeys, "UnrecognizedClientException", 400, "InvalidClientTokenId", 403, 403},
		{"bad signature", fakeaws.BadSignature, "InvalidSignatureException", 400, "SignatureDoesNotMatch", 403, 403},
		{"server error", fakeaws.ServerError, "ServerException", 500, "InternalFailure", 500, 500},
		{"unreachable", fakeaws.Unreachable, "other", 0, "other", 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := listen(t, fakeaws.Options{})
			m := addInstance(t, s, fakeaws.Instance{Region: "eu-west-1"})
			cfg := signWith(loadConfig(t, s.Env()), s.NewKeys("ci"))
			s.Inject(fakeaws.Fault{Kind: tc.kind})

			_, err := getToken(t.Context(), cfg)
			if code(err) != tc.wantECR || status(err) != tc.codeECR {
				t.Errorf("ECR: got %q with status %d (%v), want %q with %d", code(err), status(err), err, tc.wantECR, tc.codeECR)
			}
			_, err = getIdentity(t.Context(), cfg)
			if code(err) != tc.wantSTS || status(err) != tc.codeSTS {
				t.Errorf("STS: got %q with status %d (%v), want %q with %d", code(err), status(err), err, tc.wantSTS, tc.codeSTS)
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, m.URL()+"/latest/api/token", nil)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := http.DefaultClient.Do(r)
			got := 0
			if err == nil {
				got = answer.StatusCode
				if err := answer.Body.Close(); err != nil {
					t.Error(err)
				}
			}
			if got != tc.wantIMDS {
				t.Errorf("IMDS: got status %d, want %d", got, tc.wantIMDS)
			}
		})
	}
}

func TestSilentHoldsTheCallUntilTheClientGivesUp(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	cfg := signWith(loadConfig(t, s.Env()), s.NewKeys("ci"))
	s.Inject(fakeaws.Fault{Kind: fakeaws.Silent})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := getToken(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestLatency(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	cfg := signWith(loadConfig(t, s.Env()), s.NewKeys("ci"))
	s.Inject(fakeaws.Fault{Latency: 30 * time.Millisecond})
	s.Inject(fakeaws.Fault{Latency: 30 * time.Millisecond, Kind: fakeaws.Throttled})
	start := time.Now()
	_, err := getToken(t.Context(), cfg)
	if got, want := code(err), "ThrottlingException"; got != want {
		t.Errorf("got error %q, want %q", got, want)
	}
	if got := time.Since(start); got < 60*time.Millisecond {
		t.Errorf("answered after %v, want both latencies", got)
	}
}

func TestFaultsHitOnlyWhatTheyMatch(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	one, two := s.NewKeys("one"), s.NewKeys("two")
	cfg := loadConfig(t, s.Env())
	for _, tc := range []struct {
		name  string
		calls fakeaws.Call
		hit   bool
	}{
		{"everything", fakeaws.Call{}, true},
		{"the service", fakeaws.Call{Service: fakeaws.ServiceECR}, true},
		{"another service", fakeaws.Call{Service: fakeaws.ServiceSTS}, false},
		{"the operation", fakeaws.Call{Operation: "GetAuthorizationToken"}, true},
		{"another operation", fakeaws.Call{Operation: "GetCallerIdentity"}, false},
		{"the region", fakeaws.Call{Region: "eu-west-1"}, true},
		{"another region", fakeaws.Call{Region: "eu-west-2"}, false},
		{"the key", fakeaws.Call{Caller: one.AccessKeyID}, true},
		{"another key", fakeaws.Call{Caller: two.AccessKeyID}, false},
		{"the principal", fakeaws.Call{Principal: one.ARN}, true},
		{"another principal", fakeaws.Call{Principal: two.ARN}, false},
		{"one field fits, one does not", fakeaws.Call{Caller: one.AccessKeyID, Region: "eu-west-2"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			remove := s.Inject(fakeaws.Fault{Calls: tc.calls, Kind: fakeaws.AccessDenied})
			_, err := getToken(t.Context(), signWith(cfg, one))
			if got := err != nil; got != tc.hit {
				t.Errorf("got hit %v (%v), want %v", got, err, tc.hit)
			}
			remove()
			remove()
			if _, err := getToken(t.Context(), signWith(cfg, one)); err != nil {
				t.Errorf("after removal: %v", err)
			}
		})
	}
}

func TestFaultEndsAfterItsTimes(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	cfg := signWith(loadConfig(t, s.Env()), s.NewKeys("ci"))
	s.Inject(fakeaws.Fault{Kind: fakeaws.Throttled, Times: 2})
	s.Inject(fakeaws.Fault{Kind: fakeaws.AccessDenied, Times: 1})
	for n, want := range []string{"ThrottlingException", "ThrottlingException", "AccessDeniedException", ""} {
		_, err := getToken(t.Context(), cfg)
		if got := code(err); got != want {
			t.Errorf("call %d: got error %q, want %q", n, got, want)
		}
	}
}

func TestSDKRetriesThroughAnOutage(t *testing.T) {
	for name, kind := range map[string]fakeaws.Kind{
		"throttled":    fakeaws.Throttled,
		"server error": fakeaws.ServerError,
		"unreachable":  fakeaws.Unreachable,
	} {
		t.Run(name, func(t *testing.T) {
			s := listen(t, fakeaws.Options{})
			cfg := signWith(loadConfig(t, s.Env()), s.NewKeys("ci"))
			cfg.Retryer = quickRetryer
			s.Inject(fakeaws.Fault{Kind: kind, Times: 2})
			if _, err := getToken(t.Context(), cfg); err != nil {
				t.Error(err)
			}
			if got, want := s.Count(fakeaws.Call{}), 3; got != want {
				t.Errorf("got %d attempts, want %d", got, want)
			}
		})
	}
}

func TestClearFaultsAndResetCounts(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	cfg := signWith(loadConfig(t, s.Env()), s.NewKeys("ci"))
	s.Inject(fakeaws.Fault{Kind: fakeaws.Throttled})
	if _, err := getToken(t.Context(), cfg); err == nil {
		t.Error("got an answer, want a failure")
	}
	s.ClearFaults()
	s.ResetCounts()
	if got := s.Count(fakeaws.Call{}); got != 0 {
		t.Errorf("got %d calls after reset, want 0", got)
	}
	if _, err := getToken(t.Context(), cfg); err != nil {
		t.Error(err)
	}
}

func TestCallsOfUnknownKeysAreCounted(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	cfg := signWith(loadConfig(t, s.Env()), fakeaws.Keys{AccessKeyID: "AKIANOBODY", SecretAccessKey: "x"})
	if _, err := getToken(t.Context(), cfg); err == nil {
		t.Error("got an answer, want a refusal")
	}
	want := fakeaws.Call{Service: fakeaws.ServiceECR, Operation: "GetAuthorizationToken", Region: cfg.Region, Caller: "AKIANOBODY"}
	if got := s.Counts()[want]; got != 1 {
		t.Errorf("got %d calls of %v, want 1", got, want)
	}
}
