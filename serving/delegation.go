package serving

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/kubernetes"
)

const (
	// reviewTimeout bounds one question to the API server.
	reviewTimeout = 10 * time.Second
	// An answer is remembered for a scrape interval or so: the times of
	// kube-rbac-proxy, and a bound on how many tokens are remembered.
	rememberYes = 2 * time.Minute
	rememberNo  = 10 * time.Second
	remembered  = 256
)

// delegation asks the API server who a token belongs to and whether that user may
// get /metrics.
type delegation struct {
	client  kubernetes.Interface
	answers *cache.LRUExpireCache // digest of the token → tokenUser or *refusal
	rights  *cache.LRUExpireCache // the same digest → nil or *refusal
}

func newDelegation(client kubernetes.Interface) *delegation {
	return &delegation{client: client, answers: cache.NewLRUExpireCache(remembered), rights: cache.NewLRUExpireCache(remembered)}
}

// tokenUser is the owner of a token.
type tokenUser struct {
	user
	review authenticationv1.UserInfo
	digest [sha256.Size]byte
}

// authenticate returns whose token it is. A token of nobody is a *refusal; any
// other error means that it could not be asked.
func (d *delegation) authenticate(ctx context.Context, token string) (tokenUser, error) {
	digest := sha256.Sum256([]byte(token))
	switch known, _ := d.answers.Get(digest); known := known.(type) {
	case tokenUser:
		return known, nil
	case *refusal:
		return tokenUser{}, known
	}
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	review, err := d.client.AuthenticationV1().TokenReviews().Create(ctx,
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return tokenUser{}, fmt.Errorf("review token: %w", err)
	}
	if !review.Status.Authenticated {
		refused := &refusal{http.StatusUnauthorized, "token", "the token is not valid"}
		d.answers.Add(digest, refused, rememberNo)
		return tokenUser{}, refused
	}
	who := review.Status.User
	owner := tokenUser{user{who.Username, who.Groups}, who, digest}
	d.answers.Add(digest, owner, rememberYes)
	return owner, nil
}

// authorize returns nil if the API server's authorization lets the user get
// /metrics, a *refusal if not, and another error when it could not be asked.
func (d *delegation) authorize(ctx context.Context, who tokenUser) error {
	if known, ok := d.rights.Get(who.digest); ok {
		if refused, ok := known.(*refusal); ok {
			return refused
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	extra := map[string]authorizationv1.ExtraValue{}
	for key, values := range who.review.Extra {
		extra[key] = authorizationv1.ExtraValue(values)
	}
	review, err := d.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: who.review.Username, UID: who.review.UID, Groups: who.review.Groups, Extra: extra,
			NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/metrics", Verb: "get"},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("review access: %w", err)
	}
	if !review.Status.Allowed {
		refused := &refusal{http.StatusForbidden, "not_allowed", fmt.Sprintf("user %q may not get /metrics", who.name)}
		d.rights.Add(who.digest, refused, rememberNo)
		return refused
	}
	d.rights.Add(who.digest, nil, rememberYes)
	return nil
}
