package leader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

const (
	leaderAccount = "chandler-leader"

	tokenLife         = 10 * time.Minute // the shortest that the API server grants
	tokenRetry        = 10 * time.Second // after a failed renewal, while the old token is good
	shortestObtain    = 20 * time.Millisecond
	longestObtain     = time.Second
	tokenGranted      = "granted"
	tokenRefused      = "failed"
	authorization     = "Authorization"
	nodeKind          = "Node"
	coreAPIVersion    = "v1"
	redacted          = "[redacted]"
	unlimitedRequests = -1
)

// leaderConfig returns the configuration of this term's clients: the leader's
// credentials, fenced. It blocks until the first token is there.
//
// The clients have no rate limit of their own. Each task has at most Workers
// requests under way, so the load follows what the API server answers; its
// priority and fairness, whose refusals client-go heeds, protects it better
// than a number chosen here, and 500 Secrets need not wait for a token bucket.
//
// Before anything, the policies that guard the Lease and the token are proved to be
// in force; the error wraps ErrUnguarded if one is not.
func (l *Leader) leaderConfig(ctx context.Context, fence *fence) (*rest.Config, error) {
	if l.opts.OwnCredentials {
		if err := l.proveLeasePolicy(ctx); err != nil {
			return nil, err
		}
		config := rest.CopyConfig(l.opts.Config)
		config.QPS = unlimitedRequests
		config.Wrap(fence.wrap)
		return config, nil
	}
	tokens := newTokens(l.guardedToken, l.opts.Log)
	if err := l.obtain(ctx, tokens); err != nil {
		return nil, err
	}
	config := rest.AnonymousClientConfig(l.opts.Config)
	config.Transport = l.opts.Config.Transport
	config.QPS = unlimitedRequests
	config.Wrap(fence.wrap) // innermost: a request may wait for its token
	config.Wrap(tokens.wrap)
	return config, nil
}

// obtain waits for the first token. The admission policy learns of a new holder
// some 10 ms after the Lease is written, so a first refusal means nothing. A
// replica that gets no token for a whole lease duration gives up its term.
func (l *Leader) obtain(ctx context.Context, tokens *tokens) error {
	ctx, cancel := context.WithTimeout(ctx, l.opts.LeaseDuration)
	defer cancel()
	for wait := shortestObtain; ; wait = min(2*wait, longestObtain) {
		_, err := tokens.get(ctx)
		if err == nil || errors.Is(err, ErrUnguarded) {
			return err
		}
		if sleep(ctx, wait) {
			continue
		}
		if RefusedByPolicy(err) {
			err = fmt.Errorf("%w; if that policy or its binding was deleted and made again, the API server has to restart: kubernetes/kubernetes#130887", err)
		}
		return err
	}
}

// guardedToken is requestToken while the policies are in force. They are proved with
// each token, so whoever deletes one leaves the leader without rights within a token's
// life.
func (l *Leader) guardedToken(ctx context.Context) (token, time.Duration, error) {
	if err := l.proveLeasePolicy(ctx); err != nil {
		return "", 0, err
	}
	fresh, life, err := l.requestToken(ctx)
	if err != nil {
		return "", 0, err
	}
	return fresh, life, l.proveTokenPolicy(ctx)
}

// requestToken asks for the leader's token.
func (l *Leader) requestToken(ctx context.Context) (token, time.Duration, error) {
	answer, err := l.createToken(ctx, tokenLife, metav1.CreateOptions{})
	if err != nil {
		l.metrics.tokenRequests.WithLabelValues(tokenRefused).Inc()
		return "", 0, fmt.Errorf("request a token for ServiceAccount %s/%s: %w", l.opts.Namespace, leaderAccount, err)
	}
	l.metrics.tokenRequests.WithLabelValues(tokenGranted).Inc()
	l.metrics.tokenExpiry.Set(float64(answer.Status.ExpirationTimestamp.Unix()))
	life := tokenLife
	// The granted life rather than the expiry: the latter is by another clock.
	if granted := answer.Spec.ExpirationSeconds; granted != nil {
		life = time.Duration(*granted) * time.Second
	}
	return token(answer.Status.Token), life, nil
}

// createToken asks for a token of the leader's ServiceAccount, bound to this node:
// it dies with the Node, and audit logs show where each write came from. It cannot
// be bound to the pod, since the pod runs as another ServiceAccount.
func (l *Leader) createToken(ctx context.Context, life time.Duration, options metav1.CreateOptions) (*authenticationv1.TokenRequest, error) {
	ctx, cancel := context.WithTimeout(ctx, l.leases.timeout)
	defer cancel()
	seconds := int64(life / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	if l.opts.NodeName != "" {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{
			Kind: nodeKind, APIVersion: coreAPIVersion, Name: l.opts.NodeName,
		}
	}
	return l.accounts.ServiceAccounts(l.opts.Namespace).CreateToken(ctx, leaderAccount, request, options)
}

// token is a bearer token. No way of printing it shows it.
type token string

// LogValue implements slog.LogValuer.
func (token) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler, which encoding/json heeds.
func (token) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format implements fmt.Formatter.
func (token) Format(state fmt.State, _ rune) { _, _ = state.Write([]byte(redacted)) } // a broken writer is fmt's concern

// tokens holds the current token of a term. It renews it lazily, at about three
// quarters of its life, so an idle leader asks for none. While one request renews
// it, others go on with the old token.
type tokens struct {
	request func(context.Context) (token, time.Duration, error)
	log     *slog.Logger

	renewing chan struct{} // held during a request for a token; see newTokens

	mu      sync.Mutex
	current token     // empty if there is none
	renew   time.Time // when to ask for the next
	expire  time.Time // when current is worthless
}

func newTokens(request func(context.Context) (token, time.Duration, error), log *slog.Logger) *tokens {
	return &tokens{request: request, log: log, renewing: make(chan struct{}, 1)}
}

// get returns a token that is good now. While a renewal is under way or has failed
// and the old one is still good, it returns the old one.
func (t *tokens) get(ctx context.Context) (token, error) {
	current, due, good := t.look()
	if good && !due {
		return current, nil
	}
	if good {
		select {
		case t.renewing <- struct{}{}:
		default:
			return current, nil
		}
	} else {
		select {
		case t.renewing <- struct{}{}:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	defer func() { <-t.renewing }()
	if current, due, good = t.look(); good && !due {
		return current, nil // renewed by whoever held the turn
	}
	return t.obtain(ctx)
}

// look returns the current token, whether it is due for renewal, and whether it is
// still good.
func (t *tokens) look() (current token, due, good bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	return t.current, !now.Before(t.renew), t.current != "" && now.Before(t.expire)
}

// obtain makes the request. The caller holds the turn.
func (t *tokens) obtain(ctx context.Context) (token, error) {
	asked := time.Now()
	fresh, life, err := t.request(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.current, t.expire = fresh, asked.Add(life)
		t.renew = asked.Add(life*7/10 + rand.N(life/10))
		return fresh, nil
	}
	if t.current == "" || !time.Now().Before(t.expire) {
		return "", err
	}
	t.renew = time.Now().Add(vary(tokenRetry))
	t.log.Warn("renew the leader's token, the old one is still good", "err", err)
	return t.current, nil
}

// forget drops a token that the API server no longer accepts.
func (t *tokens) forget(used token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current == used {
		t.current = ""
	}
}

// wrap returns a transport that authenticates each request.
func (t *tokens) wrap(base http.RoundTripper) http.RoundTripper {
	return &tokenTransport{base: base, tokens: t}
}

type tokenTransport struct {
	base   http.RoundTripper
	tokens *tokens
}

// RoundTrip implements http.RoundTripper.
func (t *tokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	bearer, err := t.tokens.get(req.Context())
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close() // a RoundTripper closes the body; the request fails with a better reason
		}
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Header.Set(authorization, "Bearer "+string(bearer))
	resp, err := t.base.RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		t.tokens.forget(bearer)
	}
	return resp, err
}

// WrappedRoundTripper lets client-go reach the transport below.
func (t *tokenTransport) WrappedRoundTripper() http.RoundTripper { return t.base }
