package leader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/test/expect"
)

func TestTokenRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, fail := 0, false
		tokens := newTokens(func(context.Context) (token, time.Duration, error) {
			asked++
			if fail {
				return "", 0, errors.New("API server away")
			}
			return token(fmt.Sprint("t", asked)), 10 * time.Minute, nil
		}, slog.New(slog.DiscardHandler))
		get := func(want token) {
			t.Helper()
			if got, err := tokens.get(t.Context()); string(got) != string(want) || err != nil {
				t.Errorf("got token %q and error %v, want %q", string(got), err, string(want))
			}
		}
		get("t1")
		idle(7*time.Minute - time.Second)
		get("t1")
		idle(time.Minute + time.Second)
		get("t2")

		fail = true
		idle(8 * time.Minute)
		get("t2") // the renewal failed, the old one is good
		before := asked
		for range 100 {
			get("t2")
		}
		if asked != before {
			t.Errorf("got %d requests at once after a failure, want a pause", asked-before)
		}
		idle(2 * time.Minute)
		if got, err := tokens.get(t.Context()); err == nil {
			t.Errorf("got token %q after its life, want an error", string(got))
		}
		fail = false
		get(token(fmt.Sprint("t", asked+1)))
	})
}

// TestSlowRenewalHoldsUpNobody: while one request waits for a new token, others go
// on with the old one; without a good one they wait, and share one request.
func TestSlowRenewalHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		slow := time.Duration(0)
		tokens := newTokens(func(ctx context.Context) (token, time.Duration, error) {
			n := asked.Add(1)
			sleep(ctx, slow)
			return token(fmt.Sprint("t", n)), 10 * time.Minute, nil
		}, slog.New(slog.DiscardHandler))
		get := func() string {
			got, err := tokens.get(t.Context())
			if err != nil {
				t.Error(err)
			}
			return string(got)
		}
		get()
		slow = 10 * time.Second
		idle(9 * time.Minute)
		go get()
		synctest.Wait()
		begin := time.Now()
		if got := get(); got != "t1" || time.Since(begin) != 0 {
			t.Errorf("got token %q after %s, want the old one at once", got, time.Since(begin))
		}
		idle(time.Hour) // the token has expired
		var crowd sync.WaitGroup
		for range 20 {
			crowd.Go(func() {
				if got := get(); got != "t3" {
					t.Errorf("got token %q, want the third", got)
				}
			})
		}
		crowd.Wait()
		if got := asked.Load(); got != 3 {
			t.Errorf("got %d requests, want 3", got)
		}
	})
}

func TestRefusedTokenIsReplaced(t *testing.T) {
	asked := 0
	tokens := newTokens(func(context.Context) (token, time.Duration, error) {
		asked++
		return token(fmt.Sprint("t", asked)), 10 * time.Minute, nil
	}, slog.New(slog.DiscardHandler))
	transport := tokens.wrap(roundTripper(func(req *http.Request) (*http.Response, error) {
		code := http.StatusOK
		if req.Header.Get("Authorization") == "Bearer t1" {
			code = http.StatusUnauthorized
		}
		return &http.Response{StatusCode: code, Body: http.NoBody}, nil
	}))
	for _, want := range []int{http.StatusUnauthorized, http.StatusOK, http.StatusOK} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://fake/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil || resp.StatusCode != want {
			t.Errorf("got %v and error %v, want %d", resp, err, want)
		}
		if got := req.Header.Get("Authorization"); got != "" {
			t.Error("the caller's request was changed")
		}
	}
	if asked != 2 {
		t.Errorf("got %d tokens, want 2", asked)
	}
}

func TestTokenIsNeverPrinted(t *testing.T) {
	secret := token("hush")
	var out bytes.Buffer
	timeless := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{} // its digits may be those of the token
		}
		return a
	}}
	slog.New(slog.NewJSONHandler(&out, timeless)).Info("m", "token", secret, "in", []any{secret})
	slog.New(slog.NewTextHandler(&out, timeless)).Info("m", "token", secret, "in", struct{ T token }{secret})
	for _, verb := range []string{"%s", "%v", "%+v", "%#v", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb, secret)
		fmt.Fprintf(&out, verb, struct{ T token }{secret})
	}
	for _, bad := range []string{"hush", "68757368", "104"} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("got %q in %s", bad, out.String())
		}
	}
}

// TestTermUsesTheLeadersToken runs a term with everything logged: the leader's
// client carries the leader's token and never the pod's, and no log shows either.
func TestTermUsesTheLeadersToken(t *testing.T) {
	for _, test := range []struct {
		name string
		own  bool
		want string
	}{
		{"leader's account", false, "leader-token-1"},
		{"split installation", true, "pod-0-secret"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newFakeAPI()
				var logs expect.Log
				read := func(ctx context.Context, term Term) {
					_, err := term.Client.CoreV1().Namespaces().Get(ctx, "x", metav1.GetOptions{})
					term.Log.Debug("read", "err", err)
				}
				r := start(t, api, "pod-0-secret", func(o *Options) {
					o.OwnCredentials = test.own
					o.Log = slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
					o.Tasks = func(term Term) ([]Task, error) {
						return []Task{&stubTask{name: "task", keys: []string{"k"}, sync: func(ctx context.Context, _ string) (time.Duration, error) {
							read(ctx, term)
							return time.Second, nil
						}}}, nil
					}
				})
				passes(t, 5*time.Second, func() bool { return testutil.ToFloat64(r.metrics.leading) == 1 })
				idle(time.Minute)
				api.set(func(f *fakeAPI) {
					if got := f.requests[test.want]; got < 50 {
						t.Errorf("got %d requests as %s, want one a second", got, test.want)
					}
				})
				r.end(t)
				if strings.Contains(logs.String(), "leader-token") {
					t.Errorf("the logs show a token: %s", logs.String())
				}
			})
		})
	}
}

// TestFirstRefusalsMeanNothing: the admission policy lags behind the Lease.
func TestFirstRefusalsMeanNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newFakeAPI()
		api.noTokens = true
		r := start(t, api, "pod-0", counting(3))
		passes(t, 2*time.Second, func() bool { return api.holder() == "pod-0" })
		idle(50 * time.Millisecond)
		api.set(func(f *fakeAPI) { f.noTokens = false })
		passes(t, 200*time.Millisecond, func() bool { return testutil.ToFloat64(r.metrics.agents) == 3 })
		r.end(t)
	})
}
