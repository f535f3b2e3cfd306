// Package term runs one task of the leader for a test of that task.
package term

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/test/expect"
)

// Term is one task that runs as the leader's runner runs it, but with quicker
// retries.
type Term struct {
	Registry *prometheus.Registry
	Log      *expect.Log
	Stop     func() // ends the term and waits; safe to repeat

	queue workqueue.TypedInterface[string]

	mu     sync.Mutex
	timers map[string]*time.Timer // by key; nil once the term is over
}

// Run starts a term in namespace, with the rights of config, that ends with the
// test at the latest. A test that fails shows the task's log.
func Run(t testing.TB, config *rest.Config, namespace string, newTask func(leader.Term) (leader.Task, error)) *Term {
	t.Helper()
	r := &Term{Registry: prometheus.NewRegistry(), Log: &expect.Log{}, queue: workqueue.NewTyped[string](), timers: map[string]*time.Timer{}}
	client, bare := kubernetes.NewForConfigOrDie(config), metadata.NewForConfigOrDie(config)
	log := slog.New(slog.NewJSONHandler(r.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, cancel := context.WithCancel(context.Background())
	recorder, stopEvents := leader.NewRecorder(ctx, client.EventsV1(), namespace, func() {}, log)
	var running sync.WaitGroup
	r.Stop = sync.OnceFunc(func() {
		cancel()
		r.close()
		running.Wait()
		stopEvents()
	})
	t.Cleanup(func() {
		r.Stop()
		if t.Failed() {
			t.Logf("log of the task:\n%s", r.Log)
		}
	})
	task, err := newTask(leader.Term{
		Config: config, Client: client, Metadata: bare, Namespace: namespace, Events: recorder, Metrics: r.Registry, Log: log,
	})
	expect.OK(t, err)
	running.Go(func() { r.work(ctx, task, leader.NewInformers(client, bare)) })
	return r
}

func (r *Term) work(ctx context.Context, task leader.Task, in *leader.TermInformers) {
	if err := task.Watch(in, r.queue.Add); err != nil {
		r.println("watch:", err)
		return
	}
	in.Start(ctx)
	defer in.Shutdown()
	for len(in.Wait(ctx)) > 0 {
		if ctx.Err() != nil {
			return
		}
	}
	backoff := workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, time.Second)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for {
				key, shutdown := r.queue.Get()
				if shutdown {
					return
				}
				r.after(key, r.sync(ctx, task, key, backoff))
				r.queue.Done(key)
			}
		})
	}
	workers.Wait()
}

// sync returns when the key is due again, zero for not without an event.
func (r *Term) sync(ctx context.Context, task leader.Task, key string, backoff workqueue.TypedRateLimiter[string]) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	again, err := task.Sync(ctx, key)
	if err == nil {
		backoff.Forget(key)
		return again
	}
	r.println("sync of", key, err)
	if errors.Is(err, leader.ErrPermanent) {
		return 0
	}
	return backoff.When(key)
}

// after plans the next Sync of a key in place of what was planned before.
func (r *Term) after(key string, delay time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if planned := r.timers[key]; planned != nil {
		planned.Stop()
		delete(r.timers, key)
	}
	if delay > 0 && r.timers != nil {
		r.timers[key] = time.AfterFunc(delay, func() { r.queue.Add(key) })
	}
}

func (r *Term) close() {
	r.queue.ShutDown()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, timer := range r.timers {
		timer.Stop()
	}
	r.timers = nil
}

func (r *Term) println(args ...any) {
	_, _ = fmt.Fprintln(r.Log, args...) // it takes everything
}
