// Package term runs one task of the leader for a test of that task.
package term

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/test/expect"
)

// Term is one task, or a whole leader, that runs.
type Term struct {
	Registry *prometheus.Registry
	Log      *expect.Log
	Stop     func() // ends the term and waits; safe to repeat
}

// FailedSync is in a line of the log for each Sync that fails.
const FailedSync = `"msg":"sync`

// Main runs the tests of a package that has informers in bubbles of synctest. Kubernetes'
// libraries hold up who reports errors, by the time since the last error of the process:
// after one in real time that is decades in a bubble, whose clock begins in 2000.
func Main(m *testing.M) int {
	runtime.ErrorHandlers = runtime.ErrorHandlers[:1] // those that log
	return m.Run()
}

// Run starts a term in namespace, with the rights of config, that ends with the
// test at the latest. What fails is tried again sooner than by a leader. A test that
// fails shows the task's log.
func Run(t testing.TB, config *rest.Config, namespace string, newTask func(leader.Term) (leader.Task, error)) *Term {
	t.Helper()
	r := &Term{Registry: prometheus.NewRegistry(), Log: &expect.Log{}}
	client, bare := kubernetes.NewForConfigOrDie(config), metadata.NewForConfigOrDie(config)
	log := slog.New(slog.NewJSONHandler(r.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, cancel := context.WithCancel(context.Background())
	recorder, stopEvents := leader.NewRecorder(ctx, client.EventsV1(), namespace, func() {}, log)
	about := leader.Term{
		Config: config, Client: client, Metadata: bare, Namespace: namespace, Events: recorder, Metrics: r.Registry, Log: log,
	}
	var running sync.WaitGroup
	r.Stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		stopEvents()
	})
	t.Cleanup(func() {
		r.Stop()
		if t.Failed() {
			t.Logf("log of the task:\n%s", r.Log)
		}
	})
	task, err := newTask(about)
	expect.OK(t, err)
	running.Go(func() {
		if err := leader.RunTask(ctx, about, task, 50*time.Millisecond, time.Second); err != nil {
			t.Error(err)
		}
	})
	return r
}
