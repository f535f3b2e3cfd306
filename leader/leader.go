package leader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

// ErrOverrun is wrapped by the error of Run when a task outlived the moment
// another replica could take over. The process must exit: what still runs in
// it is no longer covered by the Lease.
var ErrOverrun = errors.New("a task outlived its lease")

const (
	defaultLeaseDuration = 15 * time.Second
	defaultWorkers       = 8
	defaultSyncTimeout   = time.Minute

	// The admission policy of the Lease bounds leaseDurationSeconds by the same.
	shortestLease = 3 * time.Second
	longestLease  = 5 * time.Minute

	onlyNamespace = "chandler" // of deploy/base/policies.yaml, which cannot take it from a parameter

	candidacyInterval = 10 * time.Minute // labels of nodes hardly ever change
)

// Options is what New needs.
type Options struct {
	// Config reaches the API server with the process's own credentials. The Lease
	// is read and written with it, and the leader's token requested.
	Config *rest.Config
	// Namespace holds the Lease and the leader's ServiceAccount. It is "chandler":
	// the admission policies name it.
	Namespace string
	// Identity is the name of the process's pod, e.g. "chandler-x7k2p". The
	// admission policy lets a pod write no other name.
	Identity string
	// NodeName is the node that the pod runs on; the leader's token is bound to it,
	// and the Lease names it. With a token for the leader's account, it is empty only
	// if the pod's own token names no node.
	NodeName string
	// LeaseDuration has whole seconds, 3s to 5m. Zero means 15s. The renew
	// deadline is two thirds of it, the retry period two fifteenths.
	LeaseDuration time.Duration
	// OwnCredentials makes a leader use Config itself instead of requesting a token
	// for the leader's ServiceAccount: for the split installation.
	OwnCredentials bool
	// Candidate answers whether this replica may lead; if not, it does not look
	// either. It is asked at the start and about every ten minutes. Nil means yes.
	Candidate func(context.Context) (bool, error)
	// Agents counts the replicas that look at the Lease, e.g. CountAgents; the
	// leader asks it every minute. Nil means the Lease carries no count.
	Agents func(context.Context, Term) (int, error)
	// Tasks builds a term's tasks. It does no I/O.
	Tasks func(Term) ([]Task, error)
	// Workers is the number of Syncs that each task runs at once. Zero means 8.
	Workers int
	// SyncTimeout is the deadline of one Sync. Zero means one minute.
	SyncTimeout time.Duration
	Log         *slog.Logger
	Metrics     prometheus.Registerer
}

// Leader takes part in the election and runs the tasks while it leads.
type Leader struct {
	opts      Options
	leases    *leases
	accounts  corev1client.ServiceAccountsGetter
	metrics   *metrics
	pace      pace
	candidacy candidacy
	term      atomic.Pointer[fence] // of the term that runs; nil while following
}

// New validates the options and assembles a Leader. It does no I/O.
func New(opts Options) (*Leader, error) {
	opts.LeaseDuration = orDefault(opts.LeaseDuration, defaultLeaseDuration)
	opts.Workers = orDefault(opts.Workers, defaultWorkers)
	opts.SyncTimeout = orDefault(opts.SyncTimeout, defaultSyncTimeout)
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("leader options: %w", err)
	}
	// Half the renew deadline leaves a hung request time for one more.
	leases, err := newLeases(opts.Config, opts.Namespace, opts.renewDeadline()/2)
	if err != nil {
		return nil, err
	}
	accounts, err := corev1client.NewForConfig(opts.Config)
	if err != nil {
		return nil, fmt.Errorf("client for the leader's token: %w", err)
	}
	metrics, err := newMetrics(opts.Metrics)
	if err != nil {
		return nil, fmt.Errorf("leader metrics: %w", err)
	}
	return &Leader{
		opts:     opts,
		leases:   leases,
		accounts: accounts,
		metrics:  metrics,
		pace:     pace{uncounted: opts.LeaseDuration * 2 / 3},
	}, nil
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

func (o *Options) validate() error {
	var errs []error
	required := func(ok bool, name string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s is required", name))
		}
	}
	required(o.Config != nil, "Config")
	required(o.Namespace != "", "Namespace")
	required(o.Identity != "", "Identity")
	if o.Namespace != "" && o.Namespace != onlyNamespace {
		errs = append(errs, fmt.Errorf("namespace %q: the leader half works in namespace %q alone, which the admission policies of deploy/base name",
			o.Namespace, onlyNamespace))
	}
	required(o.Tasks != nil, "Tasks")
	required(o.Log != nil, "Log")
	required(o.Metrics != nil, "Metrics")
	if d := o.LeaseDuration; d < shortestLease || d > longestLease || d%time.Second != 0 {
		errs = append(errs, fmt.Errorf("LeaseDuration %s: want whole seconds from %s to %s", d, shortestLease, longestLease))
	}
	if o.Workers < 0 || o.SyncTimeout < 0 {
		errs = append(errs, fmt.Errorf("negative Workers %d or SyncTimeout %s", o.Workers, o.SyncTimeout))
	}
	return errors.Join(errs...)
}

// The ratios are those of client-go's stock durations: 15s, 10s and 2s.
func (o *Options) renewDeadline() time.Duration { return o.LeaseDuration * 2 / 3 }
func (o *Options) retryPeriod() time.Duration   { return o.LeaseDuration * 2 / 15 }

// Run looks at the Lease, campaigns when it is vacant and leads when it wins,
// until ctx ends; then it returns nil, with the Lease released. It blocks until
// everything it started has ended, except after ErrOverrun.
func (l *Leader) Run(ctx context.Context) error {
	delay := rand.N(shortestLook) // a whole cluster may be starting
	for sleep(ctx, delay) {
		if !l.isCandidate(ctx) {
			delay = vary(l.opts.LeaseDuration)
			continue
		}
		if l.look(ctx).open() {
			if err := l.campaign(ctx); err != nil {
				return err
			}
		}
		delay = l.pace.next()
		l.metrics.lookInterval.Set(l.pace.interval.Seconds())
	}
	return nil
}

// Check returns an error while the Lease is held without having been renewed for
// two lease durations, which a working process would have noticed and ended.
func (l *Leader) Check() error {
	fence := l.term.Load()
	if fence == nil {
		return nil
	}
	if age := fence.age(); age > 2*l.opts.LeaseDuration {
		return fmt.Errorf("leading although the lease was last renewed %s ago", age.Round(time.Second))
	}
	return nil
}

// look reads the Lease once, learns the number of agents and judges.
func (l *Leader) look(ctx context.Context) verdict {
	lease, now, err := l.leases.look(ctx)
	found := unknown
	switch {
	case apierrors.IsNotFound(err):
		found = absent
	case err == nil:
		found = judge(lease, l.opts.Identity, now)
		l.pace.observe(lease.Annotations[AgentsAnnotation])
		l.metrics.agents.Set(float64(l.pace.agents))
		l.metrics.leaseAge.Set(now.Sub(stamp(lease)).Seconds())
	case ctx.Err() == nil:
		l.opts.Log.Warn("look at the lease", "err", err)
	}
	l.metrics.looks.WithLabelValues(string(found)).Inc()
	l.opts.Log.Debug("looked at the lease", "found", found)
	return found
}

// candidacy is the last answer to whether this replica may lead.
type candidacy struct {
	is  bool
	due time.Time // when to ask again; zero before the first
}

func (l *Leader) isCandidate(ctx context.Context) bool {
	if l.opts.Candidate == nil {
		return true
	}
	if time.Now().Before(l.candidacy.due) {
		return l.candidacy.is
	}
	ctx, cancel := context.WithTimeout(ctx, l.leases.timeout)
	defer cancel()
	is, err := l.opts.Candidate(ctx)
	if err != nil {
		l.opts.Log.Warn("ask whether this node may lead", "err", err)
		l.candidacy.due = time.Now().Add(vary(time.Minute)) // keeps the last answer
		return l.candidacy.is
	}
	l.candidacy = candidacy{is, time.Now().Add(vary(candidacyInterval))}
	return is
}

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}
