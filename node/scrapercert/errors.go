package scrapercert

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	certsv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// The ways in which a request ends without a certificate, or waits for long.
var (
	// ErrDenied says that an approver denied the request.
	ErrDenied = errors.New("the request was denied")
	// ErrFailed says that the signer refused to sign the request.
	ErrFailed = errors.New("the signer refused the request")
	// ErrNotApproved says that nobody has decided about the request yet.
	ErrNotApproved = errors.New("the request is not approved")
	// ErrNotIssued says that the request is approved and nobody signs it.
	ErrNotIssued = errors.New("the request is approved and not signed")
	// ErrPending says that a request of an earlier run, whose key is lost, is
	// undecided.
	ErrPending = errors.New("a request of an earlier run is undecided")
	// ErrVanished says that the request was deleted.
	ErrVanished = errors.New("the request was deleted")
	// ErrInvalid says that a certificate is not the one that was asked for.
	ErrInvalid = errors.New("the certificate is not what was asked for")
	// ErrExpired says that a certificate is past its NotAfter by this node's clock.
	ErrExpired = errors.New("the certificate has expired")
	// ErrRefused says that the API server does not let us make or read requests.
	ErrRefused = errors.New("the API server refuses the request")
)

// The results as the metrics call them.
const (
	resultIssued      = "issued"
	resultUnreachable = "unreachable"
)

// kind is what becomes of one sort of error.
type kind struct {
	err     error
	result  string
	message string // of the log
	level   slog.Level
	// first and most bound the pauses before the next attempt. Where a repetition
	// leaves another denied request behind, they are long.
	first, most time.Duration
}

// kinds lists every sort of error; the last stands for all others: the API server
// is down, overloaded, or answers nonsense.
func kinds() []kind {
	const soon, often, seldom = time.Second, 5 * time.Minute, time.Hour
	return []kind{
		{ErrDenied, "denied", "scraper certificate denied", slog.LevelError, time.Minute, seldom},
		{ErrFailed, "failed", "scraper certificate refused by its signer", slog.LevelError, time.Minute, seldom},
		{ErrNotApproved, "not_approved", "scraper certificate not approved", slog.LevelError, soon, often},
		{ErrNotIssued, "not_issued", "scraper certificate approved and not signed", slog.LevelError, soon, often},
		{ErrPending, "pending", "scraper certificate waits for an earlier request", slog.LevelWarn, soon, often},
		{ErrVanished, "vanished", "scraper certificate request deleted", slog.LevelWarn, soon, often},
		{ErrExpired, "expired", "scraper certificate expired", slog.LevelError, time.Minute, seldom},
		{ErrInvalid, "invalid", "scraper certificate unusable", slog.LevelError, time.Minute, seldom},
		{ErrRefused, "refused", "scraper certificate may not be requested", slog.LevelError, 10 * time.Second, often},
		{nil, resultUnreachable, "scraper certificate not requested", slog.LevelWarn, soon, time.Minute},
	}
}

func kindOf(err error) kind {
	all := kinds()
	for _, k := range all[:len(all)-1] {
		if errors.Is(err, k.err) {
			return k
		}
	}
	return all[len(all)-1]
}

// pause is the jittered wait after the given number of failures in a row, from 1.
func (k kind) pause(failures int) time.Duration {
	wait := k.first
	for range failures - 1 {
		wait = min(2*wait, k.most)
	}
	return wait/2 + rand.N(wait/2)
}

// apiError tells a refusal from a server that cannot answer now.
func apiError(operation string, err error) error {
	if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
		return fmt.Errorf("%s: %w: apply deploy/base/scrapercert.yaml, and policies made by `chandler policy` for this configuration: %w",
			operation, ErrRefused, err)
	}
	return fmt.Errorf("%s: %w", operation, err)
}

// conditionError is what a denied or failed request says of itself. Its texts are
// another's, so they are quoted and cut.
func conditionError(err error, c certsv1.CertificateSigningRequestCondition) error {
	return fmt.Errorf("%w: reason %.100q, message %.500q", err, c.Reason, c.Message)
}

// sleep waits until a time by the wall clock, which may be set meanwhile, and
// reports whether it came before ctx ended.
func sleep(ctx context.Context, until time.Time) bool {
	const lookAgain = time.Minute
	for ctx.Err() == nil {
		// Round drops the monotonic reading: a set clock counts.
		left := until.Sub(time.Now().Round(0))
		if left <= 0 {
			return true
		}
		pause(ctx, min(left, lookAgain))
	}
	return false
}

// pause waits for a time, whatever the wall clock does, and reports whether it
// passed before ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
