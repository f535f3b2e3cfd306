package pullsecrets

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// callTimeout covers the SDK's three attempts and its pauses of up to 6 s.
	callTimeout = 25 * time.Second

	firstRetry   = time.Second
	longestRetry = 5 * time.Minute

	// A quarter of what ECR's troubleshooting page grants: 20 a second, 200 at once.
	callsPerSecond = 5
	callBurst      = 20

	// maxCalls leaves half of the runner's eight workers for Secrets.
	maxCalls  = 4
	busyRetry = 100 * time.Millisecond

	// maxTokenBytes is several times the size of a real token, 2 to 4 kB.
	maxTokenBytes = 8 << 10
	// unknownLife is how soon to renew a token whose expiry has passed when it
	// arrives: then some clock is wrong, and the token is still the best there is.
	unknownLife = 2 * time.Minute
)

// credential is one token. It never changes; a renewal makes another.
type credential struct {
	auth    secretText // base64 of user:password, as ECR returns it
	expires time.Time
	renew   time.Time // half of the life, jittered
}

// expired reports whether the registry no longer accepts it.
func (c *credential) expired(now time.Time) bool { return !now.Before(c.expires) }

// fetch makes one call for a token as one identity.
type fetch func(context.Context) (token secretText, expires time.Time, err error)

// tokens holds one token per identity. Whoever asks gets an answer at once or makes
// the call himself; nobody waits for another's call. So calls that hang can hold up
// no more of the task's workers than there are calls under way.
type tokens struct {
	dial    func(identity) fetch
	limit   *rate.Limiter
	counted func(error) // told the outcome of every call

	mu      sync.Mutex
	calls   int // under way
	entries map[identity]*entry
}

// entry is an identity's token.
type entry struct {
	fetch    fetch
	current  *credential // nil before the first success
	calling  bool
	failures int
	retry    time.Time // no call before this
}

func newTokens(dial func(identity) fetch, counted func(error)) *tokens {
	return &tokens{
		dial:    dial,
		limit:   rate.NewLimiter(callsPerSecond, callBurst),
		counted: counted,
		entries: map[identity]*entry{},
	}
}

// get returns the identity's token, which is nil while there is none, and when to
// ask again. It calls AWS when the token is due, no other call for it is under way
// and none has failed just before. An error means that this very call failed,
// while the token returned beside it may still be good.
func (t *tokens) get(ctx context.Context, id identity) (*credential, time.Duration, error) {
	e, current, again := t.begin(id)
	if e == nil {
		return current, again, nil
	}
	fresh, err := t.call(ctx, e.fetch)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls--
	e.calling = false
	if err != nil {
		e.failures++
		e.retry = time.Now().Add(backoff(e.failures))
		return e.current, 0, err
	}
	e.current, e.failures = fresh, 0
	return fresh, time.Until(fresh.renew), nil
}

// begin returns the entry that the caller must now make a call for; or else nil
// with the identity's token and when to ask again.
func (t *tokens) begin(id identity) (e *entry, current *credential, again time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.entries[id]
	if !ok {
		e = &entry{fetch: t.dial(id)}
		t.entries[id] = e
	}
	now := time.Now()
	switch {
	case e.current != nil && now.Before(e.current.renew):
		return nil, e.current, e.current.renew.Sub(now)
	case now.Before(e.retry):
		return nil, e.current, e.retry.Sub(now)
	case e.calling || t.calls >= maxCalls || !t.limit.AllowN(now, 1):
		return nil, e.current, busyRetry/2 + rand.N(busyRetry)
	}
	e.calling = true
	t.calls++
	return e, nil, 0
}

func (t *tokens) call(ctx context.Context, fetch fetch) (*credential, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	token, expires, err := fetch(ctx)
	if err == nil {
		err = checkToken(token)
	}
	t.counted(err)
	if err != nil {
		return nil, err
	}
	return newCredential(token, expires, time.Now()), nil
}

// newCredential plans the renewal. Expiry is a date, so it is compared with the
// wall clock, whatever the monotonic one says.
func newCredential(token secretText, expires, now time.Time) *credential {
	life := expires.Sub(now.Round(0))
	if life <= 0 {
		life = unknownLife
	}
	half := life / 2
	return &credential{auth: token, expires: expires, renew: now.Round(0).Add(half - rand.N(half/10+1))}
}

// checkToken proves that a token is what a pull secret needs.
func checkToken(token secretText) error {
	text := token.reveal()
	if len(text) > maxTokenBytes {
		return fmt.Errorf("ECR token of %d bytes, want at most %d", len(text), maxTokenBytes)
	}
	decoded, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return errors.New("ECR token is not base64") // the error would quote a part of it
	}
	user, password, ok := strings.Cut(string(decoded), ":")
	if !ok || user == "" || password == "" {
		return errors.New("ECR token is not user:password")
	}
	return nil
}

func backoff(failures int) time.Duration {
	delay := longestRetry
	if shift := failures - 1; shift < 9 {
		delay = min(firstRetry<<shift, longestRetry)
	}
	return delay/2 + rand.N(delay/2)
}

// keep drops the tokens and clients of all identities but those in use.
func (t *tokens) keep(used map[identity]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.entries {
		if !used[id] {
			delete(t.entries, id)
		}
	}
}
