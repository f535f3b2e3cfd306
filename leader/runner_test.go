package leader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/chandler-k8s/chandler/test/expect"
)

// permittedTask names two permissions.
type permittedTask struct{ stubTask }

func (*permittedTask) Name() string { return "permitted" }

func (*permittedTask) Permissions() []authorizationv1.ResourceAttributes {
	return []authorizationv1.ResourceAttributes{
		{Verb: "patch", Resource: "secrets"},
		{Verb: "list", Resource: "namespaces"},
	}
}

// syncs records when a key was synced and answers with what is planned.
type syncs struct {
	begin  time.Time
	answer func(n int) (time.Duration, error)

	mu sync.Mutex
	at []time.Duration
}

func (s *syncs) sync(context.Context, string) (time.Duration, error) {
	return s.answer(s.record())
}

func (s *syncs) record() (count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = append(s.at, time.Since(s.begin))
	return len(s.at)
}

func (s *syncs) times() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.at)
}

// lead runs one task alone and returns its replica once it leads.
func lead(t *testing.T, task Task, adjust ...func(*Options)) *replica {
	t.Helper()
	r := start(t, newFakeAPI(), "pod-0", append(adjust, running(task))...)
	passes(t, 5*time.Second, func() bool { return testutil.ToFloat64(r.metrics.leading) == 1 })
	return r
}

func TestSyncOutcomes(t *testing.T) {
	boom := errors.New("boom")
	for _, test := range []struct {
		name                string
		answer              func(n int) (time.Duration, error)
		during              time.Duration
		least, most         int
		errors, panics, yes float64
	}{
		{"events only", func(int) (time.Duration, error) { return 0, nil }, time.Hour, 1, 1, 0, 0, 1},
		{"again every ten minutes", func(int) (time.Duration, error) { return 10 * time.Minute, nil }, time.Hour, 6, 7, 0, 0, 1},
		{"fails twice", func(n int) (time.Duration, error) {
			if n <= 2 {
				return 0, boom
			}
			return 0, nil
		}, time.Hour, 3, 3, 2, 0, 1},
		{"again is ignored with an error", func(n int) (time.Duration, error) {
			if n == 1 {
				return time.Millisecond, boom
			}
			return 0, nil
		}, 100 * time.Millisecond, 1, 1, 1, 0, 0},
		// 250 ms doubling to 5 minutes, each halved at most: at least 12 and at most 32 in an hour after 10 quick ones.
		{"fails forever", func(int) (time.Duration, error) { return 0, boom }, time.Hour, 20, 45, -1, 0, 0},
		{"permanent", func(int) (time.Duration, error) { return time.Minute, fmt.Errorf("bad label: %w", ErrPermanent) }, time.Hour, 1, 1, 1, 0, 0},
		{"panics once", func(n int) (time.Duration, error) {
			if n == 1 {
				panic("nil map")
			}
			return 0, nil
		}, time.Hour, 2, 2, 1, 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &syncs{begin: time.Now(), answer: test.answer}
				r := lead(t, &stubTask{name: "task", keys: []string{"k"}, sync: s.sync})
				idle(test.during)
				if got := len(s.times()); got < test.least || got > test.most {
					t.Errorf("got %d syncs, want %d to %d", got, test.least, test.most)
				}
				want := map[string]float64{"errors": test.errors, "panics": test.panics, "succeeded": test.yes}
				if test.errors < 0 {
					want["errors"] = float64(len(s.times()))
				}
				succeeded := 0.0
				if testutil.ToFloat64(r.metrics.lastSuccess.WithLabelValues("task")) > 0 {
					succeeded = 1
				}
				got := map[string]float64{
					"errors":    testutil.ToFloat64(r.metrics.errors.WithLabelValues("task")),
					"panics":    testutil.ToFloat64(r.metrics.panics.WithLabelValues("task")),
					"succeeded": succeeded,
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("got metrics %v, want %v", got, want)
				}
				r.end(t)
			})
		})
	}
}

// TestNewerAnswerReplacesOlder: an event's Sync moves the next one, it does not
// add one.
func TestNewerAnswerReplacesOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &syncs{begin: time.Now(), answer: func(int) (time.Duration, error) { return time.Hour, nil }}
		task := &eventTask{stubTask: stubTask{name: "task", sync: s.sync}}
		r := lead(t, task)
		for range 3 {
			task.enqueue("k")
			idle(20 * time.Minute)
		}
		// The last event came after 40 minutes, so the next Sync is due at 1 h 40.
		idle(time.Hour - 20*time.Minute - time.Second)
		if got := len(s.times()); got != 3 {
			t.Errorf("before it is due: got syncs at %v, want 3", s.times())
		}
		idle(2 * time.Second)
		if got := len(s.times()); got != 4 {
			t.Errorf("when it is due: got syncs at %v, want 4", s.times())
		}
		r.end(t)
	})
}

// eventTask lets a test enqueue.
type eventTask struct {
	stubTask
	enqueue func(string)
}

func (e *eventTask) Watch(_ Informers, enqueue func(string)) error {
	e.enqueue = enqueue
	return nil
}

func TestSyncHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &syncs{begin: time.Now()}
		r := lead(t, &stubTask{name: "task", keys: []string{"k"}, sync: func(ctx context.Context, key string) (time.Duration, error) {
			if len(s.times()) > 0 {
				return 0, nil
			}
			<-ctx.Done()
			s.record()
			return 0, ctx.Err()
		}}, func(o *Options) { o.SyncTimeout = 7 * time.Second })
		idle(time.Minute)
		if len(s.times()) != 1 || s.times()[0] > 9*time.Second {
			t.Errorf("got the end of the first sync at %v, want once after 7 s", s.times())
		}
		if got := testutil.ToFloat64(r.metrics.errors.WithLabelValues("task")); got != 1 {
			t.Errorf("got %v errors, want the overrun counted", got)
		}
		r.end(t)
	})
}

func TestOneTaskDoesNotHoldUpAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := &stubTask{name: "bad", keys: []string{"a", "b", "c", "d", "e", "f", "g", "h", "i"},
			sync: func(ctx context.Context, _ string) (time.Duration, error) { <-ctx.Done(); return 0, ctx.Err() }}
		good := &syncs{begin: time.Now(), answer: func(int) (time.Duration, error) { return time.Second, nil }}
		r := start(t, newFakeAPI(), "pod-0", running(&unwatchable{}, bad, &stubTask{name: "good", keys: []string{"k"}, sync: good.sync}))
		passes(t, 5*time.Second, func() bool { return testutil.ToFloat64(r.metrics.leading) == 1 })
		idle(10 * time.Second)
		if got := len(good.times()); got < 9 {
			t.Errorf("got %d syncs of the good task, want one a second", got)
		}
		if got := testutil.ToFloat64(r.metrics.queueDepth.WithLabelValues("bad")); got != 1 {
			t.Errorf("got queue depth %v of the bad task, want 1 of 9 beside 8 workers", got)
		}
		r.end(t)
	})
}

// TestOptionalInformersHoldUpNothing: an informer that never syncs.
func TestOptionalInformersHoldUpNothing(t *testing.T) {
	for _, test := range []struct {
		name     string
		optional bool
		syncs    int
	}{
		{"optional", true, 1},
		{"required", false, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &syncs{begin: time.Now(), answer: func(int) (time.Duration, error) { return 0, nil }}
				task := &watcher{stubTask{name: "task", keys: []string{"k"}, sync: s.sync}, test.optional}
				var logs expect.Log
				api := newFakeAPI()
				api.silent = "/namespaces/ci-cd/secrets"
				r := start(t, api, "pod-0", running(task), func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&logs, nil)) })
				passes(t, 5*time.Second, func() bool { return testutil.ToFloat64(r.metrics.leading) == 1 })
				idle(time.Minute)
				if got := len(s.times()); got != test.syncs {
					t.Errorf("got %d syncs, want %d", got, test.syncs)
				}
				if got := testutil.ToFloat64(r.metrics.unsynced.WithLabelValues("task")); got != 1 {
					t.Errorf("got %v unsynced informers, want 1", got)
				}
				if !strings.Contains(logs.String(), "do not sync") || !strings.Contains(logs.String(), "secrets in ci-cd") {
					t.Errorf("the log does not name what does not sync:\n%s", logs.String())
				}
				r.end(t)
			})
		})
	}
}

// watcher is a task with one informer.
type watcher struct {
	stubTask
	optional bool
}

func (w *watcher) Watch(in Informers, enqueue func(string)) error {
	in.Metadata(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, Selection{Namespace: "ci-cd", Optional: w.optional})
	return w.stubTask.Watch(in, enqueue)
}

// unwatchable is a task whose Watch fails.
type unwatchable struct{ stubTask }

func (*unwatchable) Name() string { return "unwatchable" }

func (*unwatchable) Watch(Informers, func(string)) error { return errors.New("no such index") }

func TestTermsMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := lead(t, &stubTask{name: "task", keys: []string{"k"}, sync: func(context.Context, string) (time.Duration, error) { return 0, nil }})
		idle(time.Second)
		if got := testutil.CollectAndCount(r.metrics.lastSuccess); got != 1 {
			t.Errorf("leading: got %d success times, want 1", got)
		}
		r.end(t)
		if got := testutil.CollectAndCount(r.metrics.lastSuccess); got != 0 {
			t.Errorf("after the term: got %d success times, want none", got)
		}
		if got := testutil.ToFloat64(r.metrics.runs.WithLabelValues("task")); got != 1 {
			t.Errorf("after the term: got %v runs, want 1", got)
		}
	})
}
