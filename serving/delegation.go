package serving

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/kubernetes"
)

const (
	// reviewTimeout bounds what is asked about one token.
	reviewTimeout = 10 * time.Second
	// An answer is remembered for a scrape interval or so: the times of
	// kube-rbac-proxy, and a bound on how many tokens are remembered.
	rememberYes = 2 * time.Minute
	rememberNo  = 10 * time.Second
	remembered  = 256
	// rememberAdmitted is the usual life of a ServiceAccount's token.
	rememberAdmitted = time.Hour
	// One source has at most unknownBurst unknown tokens reviewed at once, and one
	// more each unknownEvery. A scraper shows one, and a new one now and then.
	unknownBurst = 10
	unknownEvery = time.Second
	// All sources together have at most this many. A flood from more addresses than
	// that costs the API server no more, and known tokens nothing.
	allBurst     = 20
	allPerSecond = 10
)

// delegation asks the API server who a token belongs to and whether that user may
// get /metrics. Nothing waits for its turn: more unknown tokens than may be reviewed,
// of one source or of all, are refused. Tokens that were admitted lately count for
// neither, and are few: at most as many as are remembered, each reviewed once at a time.
type delegation struct {
	client   kubernetes.Interface
	listed   func(user) bool       // they need no right to get /metrics
	answers  *cache.LRUExpireCache // digest of a token → nil or *refusal
	admitted *cache.LRUExpireCache // digests of tokens that are reviewed again whatever their source
	reviews  singleflight.Group    // by digest
	all      *rate.Limiter         // of unknown tokens, whatever their source

	mu      sync.Mutex            // guards what sources holds
	sources *cache.LRUExpireCache // source → *rate.Limiter
}

func newDelegation(client kubernetes.Interface, listed func(user) bool) *delegation {
	return &delegation{
		client: client, listed: listed, answers: cache.NewLRUExpireCache(remembered),
		admitted: cache.NewLRUExpireCache(remembered), sources: cache.NewLRUExpireCache(remembered),
		all: rate.NewLimiter(allPerSecond, allBurst),
	}
}

// admit returns nil if the owner of the token may get /metrics, a *refusal if not,
// and another error when the API server could not be asked. source is where the token
// came from.
func (d *delegation) admit(ctx context.Context, source, token string) error {
	digest := sha256.Sum256([]byte(token))
	if known, ok := d.answers.Get(digest); ok {
		refused, _ := known.(error)
		return refused
	}
	if _, lately := d.admitted.Get(digest); !lately {
		if !d.mayAsk(source) {
			return &refusal{http.StatusTooManyRequests, "too_many_tokens", "too many unknown tokens came from " + source}
		}
		if !d.all.Allow() {
			return &refusal{http.StatusTooManyRequests, "too_many_tokens", "too many unknown tokens came from all clients together"}
		}
	}
	// The first client may go away before the answer is there.
	reviewed := d.reviews.DoChan(string(digest[:]), func() (any, error) {
		return nil, d.ask(context.WithoutCancel(ctx), digest, token)
	})
	select {
	case result := <-reviewed:
		return result.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// mayAsk reports whether a source may have one more unknown token reviewed.
func (d *delegation) mayAsk(source string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	known, _ := d.sources.Get(source)
	limiter, ok := known.(*rate.Limiter)
	if !ok {
		limiter = rate.NewLimiter(rate.Every(unknownEvery), unknownBurst)
	}
	d.sources.Add(source, limiter, 2*unknownBurst*unknownEvery) // it is full again then
	return limiter.Allow()
}

// ask has a token reviewed and remembers the answer.
func (d *delegation) ask(ctx context.Context, digest [sha256.Size]byte, token string) error {
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	err := d.review(ctx, token)
	if err == nil {
		d.answers.Add(digest, nil, rememberYes)
		d.admitted.Add(digest, nil, rememberAdmitted)
	} else if refused, ok := errors.AsType[*refusal](err); ok {
		d.answers.Add(digest, refused, rememberNo)
		d.admitted.Remove(digest)
	}
	return err
}

func (d *delegation) review(ctx context.Context, token string) error {
	review, err := d.client.AuthenticationV1().TokenReviews().Create(ctx,
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("review token: %w", err)
	}
	if !review.Status.Authenticated {
		return &refusal{http.StatusUnauthorized, "token", "the token is not valid"}
	}
	who := review.Status.User
	if d.listed(user{who.Username, who.Groups}) {
		return nil
	}
	return d.authorize(ctx, who)
}

// authorize asks whether the API server's authorization lets the user get /metrics.
func (d *delegation) authorize(ctx context.Context, who authenticationv1.UserInfo) error {
	extra := map[string]authorizationv1.ExtraValue{}
	for key, values := range who.Extra {
		extra[key] = authorizationv1.ExtraValue(values)
	}
	review, err := d.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: who.Username, UID: who.UID, Groups: who.Groups, Extra: extra,
			NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/metrics", Verb: "get"},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("review access: %w", err)
	}
	if !review.Status.Allowed {
		return &refusal{http.StatusForbidden, "not_allowed", fmt.Sprintf("user %q may not get /metrics", who.Username)}
	}
	return nil
}
