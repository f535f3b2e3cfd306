package scrapercert

import (
	"context"
	"errors"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certsv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
)

// watchFor bounds one watch. After it the request is read anew, in case a
// connection died in silence.
const watchFor = 5 * time.Minute

// steadyWatch is how long a watch lives that works.
const steadyWatch = 30 * time.Second

// mostPatience is the longest time between two reports of the same wait.
const mostPatience = 10 * time.Minute

// requester is who made a request.
type requester struct{ username, node string }

func (r *Renewer) whoAmI(ctx context.Context) (*requester, error) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	review, err := r.Client.AuthenticationV1().SelfSubjectReviews().
		Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("ask the API server who we are: %w", err)
	}
	user := review.Status.UserInfo
	return &requester{user.Username, claim(user.Extra[claimNode])}, nil
}

// decided reports whether a request was approved, denied or refused.
func decided(c *certsv1.CertificateSigningRequest) bool { return len(c.Status.Conditions) > 0 }

// finished reports whether a request has its certificate or will never have one.
func finished(c *certsv1.CertificateSigningRequest) bool {
	return len(c.Status.Certificate) > 0 || condition(c, certsv1.CertificateDenied) != nil || condition(c, certsv1.CertificateFailed) != nil
}

func condition(c *certsv1.CertificateSigningRequest, t certsv1.RequestConditionType) *certsv1.CertificateSigningRequestCondition {
	for i := range c.Status.Conditions {
		if c.Status.Conditions[i].Type == t {
			return &c.Status.Conditions[i]
		}
	}
	return nil
}

// outcome is the certificate of a finished request, or why there is none.
func outcome(c *certsv1.CertificateSigningRequest) ([]byte, error) {
	if denied := condition(c, certsv1.CertificateDenied); denied != nil {
		return nil, conditionError(ErrDenied, *denied)
	}
	if failed := condition(c, certsv1.CertificateFailed); failed != nil {
		return nil, conditionError(ErrFailed, *failed)
	}
	return c.Status.Certificate, nil
}

func isVanished(err error) bool { return errors.Is(err, ErrVanished) }

// follow blocks until a request is as wanted and returns it. It survives an API
// server that goes away, and reports when nothing happens for long. Errors are
// ctx's, or wrap ErrVanished or ErrRefused.
func (r *Renewer) follow(ctx context.Context, c *certsv1.CertificateSigningRequest, wanted func(*certsv1.CertificateSigningRequest) bool) (*certsv1.CertificateSigningRequest, error) {
	late := r.newLateness(c)
	defer late.timer.Stop()
	for failures := 0; ; {
		begin := time.Now()
		next, err := r.watchOnce(ctx, c, wanted, late)
		if err != nil {
			return nil, err
		}
		if wanted(next) {
			return next, nil
		}
		// Also after a watch that simply ended: never two at once. One that ends
		// early and shows nothing counts as a failure, whatever reading says.
		failures++
		if time.Since(begin) >= steadyWatch || next.ResourceVersion != c.ResourceVersion {
			failures = 0
		}
		k := kindOf(nil)
		if !pause(ctx, k.pause(failures+1)) {
			return nil, ctx.Err()
		}
		late.check()
		current, err := r.get(ctx, next)
		switch {
		case err == nil:
			c = current
		case isVanished(err), errors.Is(err, ErrRefused):
			return nil, err
		default:
			c = next
			r.report(err)
		}
	}
}

// watchOnce watches a request until it is as wanted or the watch ends, and returns
// its last state.
func (r *Renewer) watchOnce(ctx context.Context, c *certsv1.CertificateSigningRequest, wanted func(*certsv1.CertificateSigningRequest) bool, late *lateness) (*certsv1.CertificateSigningRequest, error) {
	if wanted(c) {
		return c, nil
	}
	seconds := int64(watchFor / time.Second)
	watcher, err := r.requests().Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector("metadata.name", c.Name).String(),
		ResourceVersion: c.ResourceVersion, TimeoutSeconds: &seconds,
	})
	if apierrors.IsForbidden(err) {
		return nil, apiError("watch certificate request "+c.Name, err)
	}
	if err != nil {
		return c, ctx.Err() // reading the request will meet and tell the same
	}
	defer watcher.Stop()
	for !wanted(c) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-late.timer.C:
			late.tell()
		case event, ok := <-watcher.ResultChan():
			changed, isRequest := event.Object.(*certsv1.CertificateSigningRequest)
			switch {
			case !ok || !isRequest:
				return c, nil
			case changed.UID != c.UID:
			case event.Type == watch.Deleted:
				return nil, vanished(c)
			default:
				c = changed
				late.seen(c)
			}
		}
	}
	return c, nil
}

func (r *Renewer) get(ctx context.Context, c *certsv1.CertificateSigningRequest) (*certsv1.CertificateSigningRequest, error) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	current, err := r.requests().Get(ctx, c.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && current.UID != c.UID {
		return nil, vanished(c)
	}
	if err != nil {
		return nil, apiError("read certificate request "+c.Name, err)
	}
	return current, nil
}

func vanished(c *certsv1.CertificateSigningRequest) error {
	return fmt.Errorf("certificate request %s: %w", c.Name, ErrVanished)
}

// lateness tells of a request for which nothing happens, at growing intervals.
type lateness struct {
	renewer *Renewer
	name    string
	stage   error // ErrNotApproved or ErrNotIssued
	since   time.Time
	wait    time.Duration
	timer   *time.Timer
}

func (r *Renewer) newLateness(c *certsv1.CertificateSigningRequest) *lateness {
	l := &lateness{renewer: r, name: c.Name, timer: time.NewTimer(r.Patience)}
	l.seen(c)
	return l
}

// seen begins to count anew when the request has come further.
func (l *lateness) seen(c *certsv1.CertificateSigningRequest) {
	stage := ErrNotApproved
	if decided(c) {
		stage = ErrNotIssued
	}
	if !errors.Is(stage, l.stage) {
		l.stage, l.since, l.wait = stage, time.Now(), l.renewer.Patience
		l.timer.Reset(l.wait)
	}
}

func (l *lateness) tell() {
	l.renewer.report(fmt.Errorf("certificate request %s: %w for %s: %s",
		l.name, l.stage, time.Since(l.since).Round(time.Second), l.renewer.remedy(l.stage)))
	l.wait = min(2*l.wait, mostPatience)
	l.timer.Reset(l.wait)
}

// check tells if it is time, for loops that do not wait for the timer.
func (l *lateness) check() {
	select {
	case <-l.timer.C:
		l.tell()
	default:
	}
}

// remedy says what to do about a request that waits.
func (r *Renewer) remedy(stage error) string {
	switch {
	case errors.Is(stage, ErrNotApproved):
		return "is an agent with leader.enabled leading, and are its scraper settings the same as here?"
	case r.SignerName == certsv1.KubeAPIServerClientSignerName:
		return fmt.Sprintf("this control plane may not sign client certificates, as managed EKS does not: set scraper.signerName: %s", r.OwnSigner)
	case r.SignerName == r.OwnSigner:
		return "is an agent with leader.enabled leading, and is its scraper.signerName the same as here?"
	default:
		return fmt.Sprintf("does anything sign for %s in this cluster? If not, set scraper.signerName: %s", r.SignerName, r.OwnSigner)
	}
}
