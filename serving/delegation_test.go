package serving

import (
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

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/chandler-k8s/chandler/test/expect"
)

// reviewer is an API server to which tokens that begin with "good" are known. It
// counts reviews, and answers none of them before answer is closed.
type reviewer struct {
	*fake.Clientset
	answer chan struct{}
	asked  atomic.Int32
}

func newReviewer() *reviewer {
	r := &reviewer{Clientset: fake.NewClientset(), answer: make(chan struct{})}
	r.PrependReactor("create", "tokenreviews", func(action clienttesting.Action) (bool, runtime.Object, error) {
		r.asked.Add(1)
		<-r.answer
		review := action.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenReview)
		review.Status.Authenticated = strings.HasPrefix(review.Spec.Token, "good")
		return true, review, nil
	})
	return r
}

func everybody(user) bool { return true }

func TestTokenIsReviewedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newReviewer()
		d := newDelegation(api, everybody)
		var requests sync.WaitGroup
		for range 8 {
			requests.Go(func() {
				if err := d.admit(t.Context(), "10.0.0.1", "good"); err != nil {
					t.Errorf("got %v, want the token admitted", err)
				}
			})
		}
		synctest.Wait() // all of them wait for the answer
		close(api.answer)
		requests.Wait()
		if got := api.asked.Load(); got != 1 {
			t.Errorf("8 requests at once: got %d reviews, want 1", got)
		}
	})
}

// TestReviewsAreBoundedBySource: what one source asks for takes nothing from others.
func TestReviewsAreBoundedBySource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const flooder, scraper = "10.0.0.1", "10.0.0.2"
		api := newReviewer()
		close(api.answer)
		d := newDelegation(api, everybody)
		want := func(when, source, token string, status int) {
			t.Helper()
			err := d.admit(t.Context(), source, token)
			got := http.StatusOK
			if refused, ok := errors.AsType[*refusal](err); ok {
				got = refused.status
			}
			if got != status {
				t.Errorf("%s: got %d (%v), want %d", when, got, err, status)
			}
		}
		want("a scraper", flooder, "good, behind the flooder's address", http.StatusOK)
		for n := range unknownBurst - 1 {
			want("unknown tokens", flooder, fmt.Sprint(n), http.StatusUnauthorized)
		}
		want("one too many", flooder, "another", http.StatusTooManyRequests)
		want("one that is remembered", flooder, "0", http.StatusUnauthorized)
		want("a new token of another source", scraper, "good", http.StatusOK)
		want("a good token that is remembered", flooder, "good", http.StatusOK)
		time.Sleep(unknownEvery)
		want("a moment later", flooder, "another", http.StatusUnauthorized)
		time.Sleep(rememberYes)
		for n := range 2 * unknownBurst {
			_ = d.admit(t.Context(), flooder, fmt.Sprint("more ", n))
		}
		before := api.asked.Load()
		want("a token that was good lately", flooder, "good, behind the flooder's address", http.StatusOK)
		if got := api.asked.Load() - before; got != 1 {
			t.Errorf("it was reviewed %d times, want 1", got)
		}
	})
}

// TestReviewsAreBoundedInAll has unknown tokens come from many sources: none waits, and
// a scraper whose token was good lately notices nothing.
func TestReviewsAreBoundedInAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newReviewer()
		close(api.answer)
		d := newDelegation(api, everybody)
		if err := d.admit(t.Context(), "10.0.0.1", "good"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rememberYes)
		before, begun := api.asked.Load(), time.Now()
		for n := range 50 {
			_ = d.admit(t.Context(), fmt.Sprint("10.0.1.", n), fmt.Sprint(n))
		}
		if got := api.asked.Load() - before; got != 20 {
			t.Errorf("unknown tokens of 50 sources: got %d reviews, want %d", got, 20)
		}
		err := d.admit(t.Context(), "10.0.2.1", "another")
		if refused, ok := errors.AsType[*refusal](err); !ok || refused.status != http.StatusTooManyRequests {
			t.Errorf("one more: got %v, want it refused with 429", err)
		}
		if err := d.admit(t.Context(), "10.0.0.1", "good"); err != nil {
			t.Errorf("a token that was good lately: got %v", err)
		}
		if waited := time.Since(begun); waited != 0 { // by the clock of the test
			t.Errorf("they waited for %s", waited)
		}
		time.Sleep(time.Second)
		if err := d.admit(t.Context(), "10.0.2.1", "good, another"); err != nil {
			t.Errorf("a new token a second later: got %v", err)
		}
	})
}

func TestSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs expect.Log
		s := &seldom{log: slog.New(slog.NewTextHandler(&logs, nil))}
		warn := func(times int) {
			for range times {
				if log := s.mayLog(); log != nil {
					log.Warn("refused")
				}
			}
		}
		warn(100)
		time.Sleep(seldomInterval)
		warn(1)
		if got := logs.String(); strings.Count(got, "refused") != 2 || !strings.Contains(got, "omitted=99") {
			t.Errorf("101 warnings in a little more than a minute: got\n%swant two, the second with omitted=99", got)
		}
	})
}
