package clusterstatus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/chandler-k8s/chandler/leader"
)

// Name is the task's name.
const Name = "clusterstatus"

// theKey is the one key: the work is periodic.
const theKey = "cluster"

// lookAgain is how often a tick is looked at again that cannot have its datum yet.
// It costs no request.
const lookAgain = 250 * time.Millisecond

// renewals is more than the time between two renewals of a stock Lease.
const renewals = 5 * time.Second

// clockSet is how much the clock must have been set for it to matter.
const clockSet = time.Second

// longestSleep bounds the wait for a tick, which is a date: clocks are set.
const longestSleep = time.Minute

// Options is what New needs besides the term.
type Options struct {
	// Interval is the time between two data, in whole seconds. Required.
	Interval time.Duration
	// LeaseDuration is that of the leader, for Alarm: for so long a killed one leaves
	// no datum.
	LeaseDuration time.Duration
	// DryRun logs what would be published, and calls AWS not at all.
	DryRun bool
	// Metric names the metric. Required.
	Metric Metric
	// PerTarget publishes the health of each target besides. Nil does not.
	PerTarget *Series
	// Targets must be healthy, all of them. Required.
	Targets []Target
	// AWS returns the process's own AWS identity and the HTTP client. It is asked
	// again after an error.
	AWS func(context.Context) (aws.Config, error)
	// Region is that of the metric, e.g. "eu-west-1". Empty means that of AWS.
	Region string
	// NodeRegion is asked before a call while neither names a region; it returns none
	// while it is not known. Nil means never.
	NodeRegion func() string
	// Metrics are those of the process. Required.
	Metrics *Metrics
}

// Metric names a CloudWatch metric, within CloudWatch's limits.
type Metric struct {
	Namespace, Name string
	Dimensions      []Dimension
}

// Series names the metrics of single targets.
type Series struct {
	// Kind, Namespace and Name are the dimensions that tell the targets apart.
	Kind, Namespace, Name string
	// Ratio ends the name of the metric of the ready share, e.g. "Ratio". Empty means
	// that there is none.
	Ratio string
}

// Dimension is one CloudWatch dimension.
type Dimension struct{ Name, Value string }

// Task publishes for one term. It implements leader.Task.
type Task struct {
	opts     Options
	log      *slog.Logger
	previous time.Time
	renewed  func() (time.Time, bool)
	wrote    func(time.Time)
	register prometheus.Registerer // of the term
	present  *present
	sources  []*source // by target; several may have the same
	publish  *publisher

	// Only Sync, which never overlaps itself, uses what follows.
	slot     slot
	first    time.Time // when the first slot was due
	gap      string    // why the slot has no datum yet
	failures int       // of the slot
	lags     []lags    // by target
	told     []verdict // by target, as last logged
	doubt    string    // a target that is unknown, and why; empty if none is

	complained string // the reason for a gap that was logged last; empty after a datum
	complainAt time.Time
}

// New builds the task of one term. It does no I/O.
func New(term leader.Term, opts Options) (*Task, error) {
	if opts.Interval < time.Second || len(opts.Targets) == 0 || opts.Metrics == nil || opts.Metric.Namespace == "" || opts.Metric.Name == "" {
		return nil, errors.New("cluster status: Interval, Metric, Targets and Metrics are required")
	}
	for _, t := range opts.Targets {
		if err := t.check(); err != nil {
			return nil, fmt.Errorf("cluster status: %w", err)
		}
	}
	log := term.Log.With("task", Name)
	p := newPresent()
	if !term.Previous.IsZero() {
		p.last.Set(float64(term.Previous.Unix()))
	}
	return &Task{
		opts: opts, log: log, previous: term.Previous, renewed: term.Renewed, wrote: term.Wrote, register: term.Metrics,
		present: p, publish: newPublisher(opts, log), told: make([]verdict, len(opts.Targets)), lags: make([]lags, len(opts.Targets)),
	}, nil
}

// Name implements leader.Task.
func (t *Task) Name() string { return Name }

// Watch implements leader.Task.
func (t *Task) Watch(in leader.Informers, enqueue func(key string)) error {
	made := map[scope]*source{}
	for _, s := range plan(t.opts.Targets) {
		if made[s] == nil {
			watched, err := watchScope(in, s)
			if err != nil {
				return err
			}
			made[s] = watched
		}
		t.sources = append(t.sources, made[s])
	}
	t.present.watches.Set(float64(len(made)))
	if err := t.present.register(t.register); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	enqueue(theKey)
	return nil
}

// Sync implements leader.Task. A datum that cannot be published is no error of it:
// the runner's backoff would carry it past the next tick.
func (t *Task) Sync(ctx context.Context, _ string) (again time.Duration, err error) {
	now := time.Now()
	t.advance(now)
	if wait := t.slot.due.Sub(now); wait > 0 { // of dates, as all of a slot's
		return min(wait, longestSleep), nil
	}
	vouched, ours := t.renewed()
	if !ours || vouched.Before(t.earliest()) || drift(vouched, now).Abs() > clockSet {
		t.gap = gapUnvouched
		return lookAgain, nil
	}
	found := t.look(now)
	if !found.known {
		t.gap = gapUnknown
		return lookAgain, nil
	}
	if outcome := t.put(ctx, found, vouched); outcome != putAccepted {
		t.gap = outcome
		t.failures++
		return atLeast(min(t.publish.pause(outcome, t.failures), time.Until(t.slot.end))), nil
	}
	t.slot, _ = t.slot.next(now, t.opts.Interval)
	t.gap, t.failures, t.complained = gapMissed, 0, ""
	return atLeast(min(time.Until(t.slot.due), longestSleep)), nil
}

// drift is by how much the clock was set between two times, both with a monotonic
// reading: a renewal of before that cannot be held against a tick.
func drift(from, to time.Time) time.Duration {
	return to.Round(0).Sub(from.Round(0)) - to.Sub(from)
}

// atLeast keeps a time that has passed from meaning never.
func atLeast(again time.Duration) time.Duration { return max(again, time.Millisecond) }

// earliest is the renewal that a datum of the slot needs at least. Ticks that follow
// each other more quickly than renewals, every two seconds, make do with an older
// one, but not with one of the predecessor's minute.
func (t *Task) earliest() time.Time {
	earliest := t.slot.due.Add(min(0, t.opts.Interval-renewals))
	if earliest.Before(t.first) {
		return t.first
	}
	return earliest
}

// advance moves on to the slot of now, and counts those that ended without a
// datum.
func (t *Task) advance(now time.Time) {
	begins := t.slot.end.IsZero()
	switch {
	case begins || t.slot.ahead(now, t.slot.due.Equal(t.first), t.opts.Interval):
		t.slot, t.gap = firstSlot(t.previous, now, t.opts.Interval), gapMissed
		t.first = t.slot.due
		if unled := t.slot.unled(t.previous, t.opts.Interval); begins && unled > 0 {
			t.opts.Metrics.gaps.WithLabelValues(gapUnled).Add(float64(unled))
			t.log.Warn("ticks without a leader", "count", unled, "since", t.previous)
		}
		return
	case now.Before(t.slot.end):
		return
	}
	var missed int
	t.opts.Metrics.gaps.WithLabelValues(t.gap).Inc()
	t.complain(now)
	t.slot, missed = t.slot.next(now, t.opts.Interval)
	t.opts.Metrics.gaps.WithLabelValues(gapMissed).Add(float64(missed))
	t.gap, t.failures = gapMissed, 0
}

// complain logs a tick without a datum when its reason is new, and now and then.
func (t *Task) complain(now time.Time) {
	if t.gap == t.complained && now.Before(t.complainAt) {
		return
	}
	t.complained, t.complainAt = t.gap, now.Add(complainAgain)
	t.log.Warn("a tick passed without a datum", "tick", t.slot.due, "reason", t.gap, "doubt", t.doubt)
}

// put publishes, unless this is a dry run, and returns how that ended.
func (t *Task) put(term context.Context, found finding, vouched time.Time) string {
	data := t.publish.data(t.opts.Targets, found, vouched)
	if t.opts.DryRun {
		t.log.Info("dry run, would publish", "value", found.value, "data", len(data), "timestamp", vouched)
		t.present.value.Set(found.value)
		return putAccepted
	}
	if t.publish.rests() {
		return putDenied
	}
	t.wrote(vouched)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(term), min(longestPut, max(time.Until(t.slot.end), shortestPut)))
	defer cancel()
	// A successor leaves the minute to this call, so it gets a moment to arrive.
	defer context.AfterFunc(term, func() { time.AfterFunc(lastMoment, cancel) })()
	outcome := t.publish.put(ctx, data)
	if term.Err() != nil && outcome != putAccepted {
		return outcome // nothing failed but the term
	}
	t.opts.Metrics.puts.WithLabelValues(outcome).Inc()
	if outcome == putAccepted {
		t.present.value.Set(found.value)
		t.present.last.Set(float64(vouched.Unix()))
	}
	return outcome
}
