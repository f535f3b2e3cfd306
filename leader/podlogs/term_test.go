package podlogs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/podlogs"
	"github.com/chandler-k8s/chandler/test/expect"
)

// term runs one task as the leader's runner does, with quicker retries.
type term struct {
	registry *prometheus.Registry
	log      *expect.Log
	queue    workqueue.TypedInterface[string]
	stop     func() // ends the term; safe to repeat

	mu     sync.Mutex
	timers map[string]*time.Timer
}

// run starts a term with the given options on top of the usual ones.
func (s *scene) run(t testing.TB, change ...func(*podlogs.Options)) *term {
	t.Helper()
	return s.runAs(t, s.leader(t), change...)
}

func (s *scene) runAs(t testing.TB, config *rest.Config, change ...func(*podlogs.Options)) *term {
	t.Helper()
	r := &term{registry: prometheus.NewRegistry(), log: &expect.Log{}, queue: workqueue.NewTyped[string](), timers: map[string]*time.Timer{}}
	counters, err := podlogs.NewMetrics(r.registry)
	expect.OK(t, err)
	opts := podlogs.Options{CreateServiceAccounts: true, ListPods: true, Metrics: counters}
	for _, c := range change {
		c(&opts)
	}
	client, bare := kubernetes.NewForConfigOrDie(config), metadata.NewForConfigOrDie(config)
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	ctx, cancel := context.WithCancel(context.Background())
	expect.OK(t, broadcaster.StartRecordingToSinkWithContext(ctx))
	task, err := podlogs.New(leader.Term{
		Config: config, Client: client, Metadata: bare, Namespace: home,
		Events: broadcaster.NewRecorder(scheme.Scheme, home), Metrics: r.registry,
		Log: slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, opts)
	expect.OK(t, err)
	var running sync.WaitGroup
	running.Go(func() { r.work(ctx, task, leader.NewInformers(client, bare)) })
	r.stop = sync.OnceFunc(func() {
		cancel()
		r.queue.ShutDown()
		running.Wait()
		broadcaster.Shutdown()
	})
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Logf("log of the task:\n%s", r.log)
		}
	})
	return r
}

func (r *term) work(ctx context.Context, task leader.Task, in *leader.TermInformers) {
	if err := task.Watch(in, r.queue.Add); err != nil {
		_, _ = fmt.Fprintln(r.log, "watch:", err)
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

func (r *term) sync(ctx context.Context, task leader.Task, key string, backoff workqueue.TypedRateLimiter[string]) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	again, err := task.Sync(ctx, key)
	if err == nil {
		backoff.Forget(key)
		return again
	}
	_, _ = fmt.Fprintln(r.log, "sync of", key, err)
	if errors.Is(err, leader.ErrPermanent) {
		return 0
	}
	return backoff.When(key)
}

// after plans the next Sync of a key in place of what was planned before.
func (r *term) after(key string, delay time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if planned := r.timers[key]; planned != nil {
		planned.Stop()
	}
	delete(r.timers, key)
	if delay > 0 {
		r.timers[key] = time.AfterFunc(delay, func() { r.queue.Add(key) })
	}
}

// metric returns the sum of a metric's series that carry all the labels given as
// name=value.
func (r *term) metric(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	families, err := r.registry.Gather()
	expect.OK(t, err)
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			has := map[string]bool{}
			for _, label := range metric.GetLabel() {
				has[label.GetName()+"="+label.GetValue()] = true
			}
			if !slices.ContainsFunc(labels, func(l string) bool { return !has[l] }) {
				sum += metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func (r *term) wantMetric(t testing.TB, want float64, name string, labels ...string) {
	t.Helper()
	eventually(t, func() error {
		if got := r.metric(t, name, labels...); got != want {
			return fmt.Errorf("metric %s%v: got %v, want %v", name, labels, got, want)
		}
		return nil
	})
}
