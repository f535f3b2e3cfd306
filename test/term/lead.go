package term

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/test/expect"
)

// Lead runs a whole leader, election and all, that ends with the test at the latest.
// It has a log and metrics of its own, which tasks may use before the first term.
func Lead(t testing.TB, o leader.Options, tasks func(prometheus.Registerer) func(leader.Term) ([]leader.Task, error)) *Term {
	t.Helper()
	r := &Term{Registry: prometheus.NewRegistry(), Log: &expect.Log{}}
	o.Log = slog.New(slog.NewTextHandler(r.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o.Metrics, o.Tasks = r.Registry, tasks(r.Registry)
	lead, err := leader.New(o)
	expect.OK(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- lead.Run(ctx) }()
	r.Stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("leader: %v", err)
		}
	})
	t.Cleanup(func() {
		r.Stop()
		if t.Failed() {
			t.Logf("log of the leader:\n%s", r.Log)
		}
	})
	return r
}
