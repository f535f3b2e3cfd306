package leader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/klog/v2"
)

// campaign is one run of client-go's elector: one attempt to take the Lease, and
// the renewals that follow if it succeeds.
type campaign struct {
	lock  *lock
	fence *fence
	stop  context.CancelCauseFunc // ends the election, saying why
	cause func() error            // why the election ended
	won   chan context.Context    // receives the leading context, at most once
	ended chan struct{}           // closed when the elector has ended
}

// campaign tries once for the Lease and leads if it wins. Not winning is no
// error; the only one is ErrOverrun.
func (l *Leader) campaign(ctx context.Context) error {
	c, err := l.startCampaign(ctx)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-c.ended:
		l.missed(ctx, c.cause())
	case leading := <-c.won:
		l.metrics.campaigns.WithLabelValues(campaignWon).Inc()
		if err := l.lead(ctx, leading, c); err != nil {
			c.stop(err) // the Lease is not released, it must expire
			return err
		}
	}
	c.stop(nil)
	<-c.ended
	c.fence.close()
	if c.lock.held {
		l.release(ctx, c.lock)
	}
	return nil
}

// startCampaign starts an elector whose context outlives ctx.
func (l *Leader) startCampaign(ctx context.Context) (*campaign, error) {
	electing, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	c := &campaign{
		stop:  stop,
		cause: func() error { return context.Cause(electing) },
		won:   make(chan context.Context, 1),
		ended: make(chan struct{}),
		fence: &fence{
			// Closed one retry before anyone could take the Lease, so that a write let
			// through at the last moment has that long to arrive.
			lifetime: l.opts.LeaseDuration - l.opts.retryPeriod(),
			refused:  l.metrics.refusedWrites.Inc,
		},
	}
	c.lock = &lock{leases: l.leases, identity: l.opts.Identity, node: l.opts.NodeName, fence: c.fence, log: l.opts.Log, lost: stop}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock:          c.lock,
		Name:          leaseName,
		LeaseDuration: l.opts.LeaseDuration,
		RenewDeadline: l.opts.renewDeadline(),
		RetryPeriod:   l.opts.retryPeriod(),
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) { c.won <- leading },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		stop(nil)
		return nil, fmt.Errorf("campaign for the lease: %w", err)
	}
	go func() {
		defer close(c.ended)
		// The elector logs ordinary outcomes as errors; we log what matters.
		elector.Run(klog.NewContext(electing, logr.Discard()))
	}()
	return c, nil
}

// lead runs a term until it ends by itself, ctx ends or the elector loses the
// Lease, and waits until the tasks have ended.
func (l *Leader) lead(ctx, leading context.Context, c *campaign) error {
	term, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(leading, cancel)()
	l.term.Store(c.fence)
	defer l.term.Store(nil)
	l.metrics.terms.Inc()
	l.metrics.leading.Set(1)
	defer l.metrics.leading.Set(0)
	l.opts.Log.Info("leading", "name", l.opts.Identity)

	done := make(chan error, 1)
	go func() { done <- l.serve(term, c) }()
	var err error
	select {
	case err = <-done:
	case <-term.Done():
		select {
		case err = <-done:
		case <-time.After(l.grace(leading, c.fence)):
			c.fence.close()
			return fmt.Errorf("end the term: %w", ErrOverrun)
		}
	}
	l.termEnded(ctx, leading, c.cause(), err)
	return nil
}

// grace returns how long tasks may take to end. After the Lease was lost that is
// until another may take it, or a moment if another already has; on shutdown the
// Lease is still being renewed.
func (l *Leader) grace(leading context.Context, f *fence) time.Duration {
	if leading.Err() == nil {
		return l.opts.LeaseDuration
	}
	return max(l.opts.LeaseDuration-f.age(), l.opts.retryPeriod())
}

// termEnded logs why a term ended: a shutdown, the Lease lost for the given cause
// (nil if the elector gave up), or the term's own failure err, after which others
// go first.
func (l *Leader) termEnded(ctx, leading context.Context, lost, err error) {
	switch {
	case ctx.Err() != nil:
		l.opts.Log.Info("stopped leading", "name", l.opts.Identity)
	case leading.Err() != nil:
		if lost == nil {
			lost = errNotRenewed
		}
		l.opts.Log.Warn("lost the lease", "name", l.opts.Identity, "err", lost)
	default:
		l.opts.Log.Error("end the term, let another replica try", "err", err)
		l.pace.rest(2 * l.opts.LeaseDuration)
	}
}

// missed counts a campaign that did not win.
func (l *Leader) missed(ctx context.Context, cause error) {
	switch {
	case ctx.Err() != nil:
	case errors.Is(cause, errHeld), apierrors.IsConflict(cause), apierrors.IsAlreadyExists(cause):
		l.metrics.campaigns.WithLabelValues(campaignLost).Inc()
		l.opts.Log.Debug("campaign lost", "err", cause)
	default:
		l.metrics.campaigns.WithLabelValues(campaignFailed).Inc()
		l.opts.Log.Warn("campaign for the lease", "err", cause)
	}
}

func (l *Leader) release(ctx context.Context, lock *lock) {
	if err := lock.release(context.WithoutCancel(ctx)); err != nil {
		l.opts.Log.Warn("release the lease, it will expire", "err", err)
	}
}
