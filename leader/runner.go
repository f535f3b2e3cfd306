package leader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
)

const (
	shortestBackoff = 250 * time.Millisecond
	longestBackoff  = 5 * time.Minute
	syncWarning     = 30 * time.Second // how often informers that do not sync are named
	optionalWarning = 10 * time.Minute // and optional ones, after the first time
)

// runner runs one task for one term: one queue, several workers. A key waits
// either in the queue or on one timer, which holds the newest answer of Sync.
type runner struct {
	task    Task
	term    Term
	workers int
	timeout time.Duration
	log     *slog.Logger
	metrics taskMetrics
	queue   workqueue.TypedInterface[string]
	backoff workqueue.TypedRateLimiter[string]

	mu     sync.Mutex
	timers map[string]*time.Timer // by key; nil once the term is over
}

func newRunner(term Term, task Task, metrics *metrics, workers int, timeout time.Duration) *runner {
	return &runner{
		task:    task,
		term:    term,
		workers: workers,
		timeout: timeout,
		log:     term.Log.With("task", task.Name()),
		metrics: metrics.task(task.Name()),
		queue:   workqueue.NewTyped[string](),
		backoff: newBackoff(shortestBackoff, longestBackoff),
		timers:  map[string]*time.Timer{},
	}
}

func newBackoff(shortest, longest time.Duration) workqueue.TypedRateLimiter[string] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[string](shortest, longest)
}

// RunTask runs one task until ctx ends, as a Leader does in a term, but for the time
// between retries: a test of a task waits for less. It returns an error if the metrics
// of the term have those of tasks already.
func RunTask(ctx context.Context, term Term, task Task, shortest, longest time.Duration) error {
	metrics, err := newMetrics(term.Metrics)
	if err != nil {
		return err
	}
	r := newRunner(term, task, metrics, defaultWorkers, defaultSyncTimeout)
	r.backoff = newBackoff(shortest, longest)
	r.run(ctx)
	return nil
}

// run blocks until ctx ends and every worker and informer has ended.
func (r *runner) run(ctx context.Context) {
	in := NewInformers(r.term.Client, r.term.Metadata)
	if err := r.task.Watch(in, r.enqueue); err != nil {
		r.metrics.errors.Inc()
		r.log.Error("watch", "err", err)
		return
	}
	in.Start(ctx)
	defer in.Shutdown()
	var workers sync.WaitGroup
	if r.awaitSync(ctx, in) {
		for range r.workers {
			workers.Go(func() { r.work(ctx) })
		}
		r.awaitOptional(ctx, in)
	}
	<-ctx.Done()
	r.close()
	workers.Wait()
}

// awaitSync waits for the informers, naming those that do not sync, and reports
// whether they did before ctx ended.
func (r *runner) awaitSync(ctx context.Context, in *TermInformers) bool {
	for r.unsynced(ctx, in.Wait, syncWarning, "informers do not sync, the task waits") {
	}
	return ctx.Err() == nil
}

// awaitOptional names the optional informers that do not sync, until all have or
// ctx ends. The workers run meanwhile.
func (r *runner) awaitOptional(ctx context.Context, in *TermInformers) {
	const message = "optional informers do not sync, the task goes on without"
	more := r.unsynced(ctx, in.WaitOptional, syncWarning, message)
	for more {
		more = r.unsynced(ctx, in.WaitOptional, optionalWarning, message)
	}
}

// unsynced waits for informers for so long, and counts and names those that have
// not synced. It reports whether there are any and ctx has not ended. Which
// permission is missing, checkPermissions tells.
func (r *runner) unsynced(ctx context.Context, wait func(context.Context) []string, patience time.Duration, message string) bool {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	missing := wait(waiting)
	r.metrics.unsynced.Set(float64(len(missing)))
	if ctx.Err() != nil || len(missing) == 0 {
		return false
	}
	r.log.Error(message, "resources", missing) //nolint:sloglint // one of two constants
	return true
}

func (r *runner) enqueue(key string) {
	r.queue.Add(key)
	r.metrics.queueDepth.Set(float64(r.queue.Len()))
}

func (r *runner) work(ctx context.Context) {
	for {
		key, shutdown := r.queue.Get()
		if shutdown || ctx.Err() != nil {
			return
		}
		r.metrics.queueDepth.Set(float64(r.queue.Len()))
		start := time.Now()
		again, err := r.sync(ctx, key)
		r.metrics.duration.Observe(time.Since(start).Seconds())
		r.settle(ctx, key, again, err)
		r.queue.Done(key)
	}
}

// sync runs one Sync under its deadline and turns a panic into an error.
func (r *runner) sync(ctx context.Context, key string) (again time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	defer func() {
		if value := recover(); value != nil {
			r.metrics.panics.Inc()
			r.log.Error("panic", "key", key, "value", value, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", value)
		}
	}()
	return r.task.Sync(ctx, key)
}

// settle counts and logs the outcome of a Sync and decides when the key is next
// synced without an event.
func (r *runner) settle(ctx context.Context, key string, again time.Duration, err error) {
	r.metrics.runs.Inc()
	switch {
	case err == nil:
		r.metrics.lastSuccess.SetToCurrentTime()
		r.backoff.Forget(key)
		r.after(key, again)
	case ctx.Err() != nil: // the term is over; what it interrupted is no failure
	case errors.Is(err, ErrPermanent):
		r.metrics.errors.Inc()
		r.log.Error("sync, not retried", "key", key, "err", err)
		r.backoff.Forget(key)
		r.after(key, 0)
	default:
		r.metrics.errors.Inc()
		delay := r.backoff.When(key)
		delay = delay/2 + rand.N(delay/2) // keys that fail together must not retry together
		r.log.Error("sync", "key", key, "err", err, "again", delay)
		r.after(key, delay)
	}
}

// after enqueues key once delay has passed, in place of what was planned for it
// before. Zero plans nothing.
func (r *runner) after(key string, delay time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if planned := r.timers[key]; planned != nil {
		planned.Stop()
		delete(r.timers, key)
	}
	if delay <= 0 || r.timers == nil {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(delay, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.timers[key] == timer { // else replaced while it fired
			delete(r.timers, key)
			r.enqueue(key)
		}
	})
	r.timers[key] = timer
}

// close wakes the workers for good and drops what was planned.
func (r *runner) close() {
	r.queue.ShutDown()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, timer := range r.timers {
		timer.Stop()
	}
	r.timers = nil
}
