package pullsecrets

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// issuer answers calls for tokens.
type issuer struct {
	calls   atomic.Int64
	latency time.Duration
	life    time.Duration
	mu      sync.Mutex
	err     error
}

func (i *issuer) fail(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.err = err
}

func (i *issuer) dial(identity) fetch {
	return func(ctx context.Context) (secretText, time.Time, error) {
		n := i.calls.Add(1)
		select {
		case <-time.After(i.latency):
		case <-ctx.Done():
			return secretText{}, time.Time{}, ctx.Err()
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		return tokenText(n), time.Now().Add(i.life), i.err
	}
}

func tokenText(n int64) secretText {
	return secret(base64.StdEncoding.EncodeToString([]byte("AWS:password" + strings.Repeat("x", int(n)))))
}

func (i *issuer) tokens() *tokens { return newTokens(i.dial, func(error) {}) }

// await asks again as it is told to until there is a token.
func await(t *testing.T, tokens *tokens, id identity) *credential {
	for {
		token, again, err := tokens.get(t.Context(), id)
		if err != nil {
			t.Error(err)
		}
		if token != nil || err != nil {
			return token
		}
		time.Sleep(again)
	}
}

func TestOneCallAtATimePerIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{latency: time.Second, life: 12 * time.Hour}
		tokens := i.tokens()
		var wg sync.WaitGroup
		for n := range 40 {
			wg.Go(func() { await(t, tokens, identity{region: []string{"eu-west-1", "us-east-1"}[n%2]}) })
		}
		wg.Wait()
		if got := i.calls.Load(); got != 2 {
			t.Errorf("got %d calls for 2 identities, want 2", got)
		}
	})
}

func TestRenewalAtHalfOfTheLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{life: 12 * time.Hour}
		tokens := i.tokens()
		first, again, err := tokens.get(t.Context(), identity{})
		if err != nil {
			t.Fatal(err)
		}
		if again < 6*time.Hour*9/10 || again > 6*time.Hour {
			t.Errorf("got renewal after %s, want 5h24m to 6h", again)
		}
		time.Sleep(again - time.Second)
		if same, _, _ := tokens.get(t.Context(), identity{}); same != first {
			t.Error("got another token before the renewal is due")
		}
		time.Sleep(2 * time.Second)
		if next, _, _ := tokens.get(t.Context(), identity{}); next == first || i.calls.Load() != 2 {
			t.Errorf("got the same token when the renewal is due, after %d calls", i.calls.Load())
		}
	})
}

func TestFailuresBackOffPerIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{life: 12 * time.Hour}
		tokens := i.tokens()
		good, again, err := tokens.get(t.Context(), identity{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(again + time.Second)
		i.fail(errors.New("down"))
		kept, _, err := tokens.get(t.Context(), identity{})
		if err == nil || kept != good {
			t.Fatalf("got %p, %v, want the old token and an error", kept, err)
		}
		// Whoever asks meanwhile makes no call and no failure of its own.
		for range 500 {
			kept, again, err := tokens.get(t.Context(), identity{})
			if err != nil || kept != good || again <= 0 || again > firstRetry {
				t.Fatalf("got %p, %s, %v, want the old token and the time of the retry", kept, again, err)
			}
		}
		if got := i.calls.Load(); got != 2 {
			t.Errorf("got %d calls, want 2", got)
		}
		for deadline := time.Now().Add(24 * time.Hour); time.Now().Before(deadline); {
			_, again, err := tokens.get(t.Context(), identity{})
			if err == nil {
				time.Sleep(again)
			}
		}
		if got := i.calls.Load(); got < 288 || got > 620 {
			t.Errorf("got %d calls in a day of failures, want one every 2.5 to 5 minutes", got)
		}
		i.fail(nil)
		time.Sleep(longestRetry)
		if fresh, _, err := tokens.get(t.Context(), identity{}); err != nil || fresh == good {
			t.Errorf("got %p, %v, want a new token", fresh, err)
		}
	})
}

func TestHungCallEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{latency: time.Hour, life: time.Hour}
		start := time.Now()
		_, _, err := i.tokens().get(t.Context(), identity{})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > callTimeout {
			t.Errorf("got %v after %s, want a deadline after %s", err, time.Since(start), callTimeout)
		}
	})
}

func TestHungCallsHoldUpNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{latency: 20 * time.Second, life: time.Hour}
		tokens := i.tokens()
		var wg sync.WaitGroup
		defer wg.Wait()
		for n := range 3 * maxCalls {
			wg.Go(func() { _, _, _ = tokens.get(t.Context(), identity{region: string(rune('a' + n))}) })
		}
		synctest.Wait()
		if got := i.calls.Load(); got != maxCalls {
			t.Errorf("got %d calls under way, want %d", got, maxCalls)
		}
		start := time.Now()
		for n := range 3 * maxCalls {
			token, again, err := tokens.get(t.Context(), identity{region: string(rune('a' + n))})
			if token != nil || err != nil || again <= 0 {
				t.Errorf("got %v, %s, %v, want to be told to ask again", token, again, err)
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("asking took %s, want no time", took)
		}
	})
}

func TestCallsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{life: time.Hour}
		tokens := i.tokens()
		start := time.Now()
		var wg sync.WaitGroup
		for n := range 70 {
			wg.Go(func() { await(t, tokens, identity{region: string(rune('a' + n))}) })
		}
		wg.Wait()
		if took := time.Since(start); took < 10*time.Second || took > 12*time.Second {
			t.Errorf("70 identities took %s, want 20 at once and 5 a second from then on", took)
		}
	})
}

func TestKeepDropsTheRest(t *testing.T) {
	i := &issuer{life: time.Hour}
	tokens := i.tokens()
	for _, region := range []string{"a", "b"} {
		if _, _, err := tokens.get(t.Context(), identity{region: region}); err != nil {
			t.Fatal(err)
		}
	}
	tokens.keep(map[identity]bool{{region: "b"}: true})
	if got := len(tokens.entries); got != 1 {
		t.Errorf("got %d identities, want 1", got)
	}
}

func TestNewCredential(t *testing.T) {
	now := time.Now()
	tests := map[string]struct {
		expires        time.Duration
		least, most    time.Duration // until the renewal
		alreadyExpired bool
	}{
		"ECR's twelve hours":     {12 * time.Hour, 5*time.Hour + 24*time.Minute, 6 * time.Hour, false},
		"a short life":           {10 * time.Second, 4500 * time.Millisecond, 5 * time.Second, false},
		"our clock runs ahead":   {-time.Hour, 54 * time.Second, time.Minute, true},
		"expires this very time": {0, 54 * time.Second, time.Minute, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := newCredential(secret("token"), now.Add(test.expires), now)
			if due := got.renew.Sub(now.Round(0)); due < test.least || due > test.most {
				t.Errorf("got renewal after %s, want %s to %s", due, test.least, test.most)
			}
			if got.expired(now) != test.alreadyExpired {
				t.Errorf("got expired %t, want %t", got.expired(now), test.alreadyExpired)
			}
		})
	}
}

func TestCheckToken(t *testing.T) {
	encode := func(text string) secretText { return secret(base64.StdEncoding.EncodeToString([]byte(text))) }
	tests := map[string]struct {
		token secretText
		want  string
	}{
		"as ECR gives it": {encode("AWS:" + strings.Repeat("eyJ", 600)), ""},
		"empty":           {secretText{}, "not user:password"},
		"not base64":      {secret("AWS:hunter2"), "not base64"},
		"no colon":        {encode("AWS"), "not user:password"},
		"no user":         {encode(":hunter2"), "not user:password"},
		"no password":     {encode("AWS:"), "not user:password"},
		"enormous":        {encode("AWS:" + strings.Repeat("x", maxTokenBytes)), "at most"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := checkToken(test.token)
			if (err == nil) != (test.want == "") || (err != nil && !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Error("the error shows the password")
			}
		})
	}
}
