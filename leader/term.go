package leader

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
)

const (
	countInterval = time.Minute
	askTimeout    = 10 * time.Second // of one question to the API server outside of Syncs
)

// Term is what tasks are built from: clients that carry the leader's
// credentials and refuse writes once the Lease may be another's. It ends with
// the leadership; nothing of it may be kept longer.
type Term struct {
	// Config is for further clients, such as dynamic ones.
	Config   *rest.Config
	Client   kubernetes.Interface
	Metadata metadata.Interface
	// Events writes events.k8s.io/v1 Events, at most one a second after a burst of
	// 25; what exceeds that is dropped and counted. What says the same about the
	// same object is written once in 45 minutes.
	Events events.EventRecorder
	// Metrics holds collectors for as long as the term lasts, so that a former
	// leader does not go on showing, say, expiry times that another now renews.
	Metrics prometheus.Registerer
	Log     *slog.Logger
	// Namespace is the one of the Lease, e.g. "chandler".
	Namespace string
	// Previous is the renewTime that the Lease carried before this term, by the
	// clock of whoever wrote it: no write of a predecessor carries a later one. Zero
	// if there was none.
	Previous time.Time
	// Renewed returns the renewTime of this term's newest renewal that succeeded, by
	// our clock with its monotonic reading, and whether the Lease is surely still
	// ours. It is for writes that do not go through the clients above, which ask by
	// themselves: those to AWS. A renewal has gone to the API server and back, so it
	// also tells how long ago that was last reached.
	Renewed func() (renewTime time.Time, ours bool)
	// Wrote is told of a renewTime before a write elsewhere carries it. A release
	// leaves the newest of them as the next term's Previous, and not the time of the
	// release: so a successor goes on at once where we did not begin.
	Wrote func(renewTime time.Time)
}

// serve runs one term until ctx ends. It returns an error if the term could not
// begin.
func (l *Leader) serve(ctx context.Context, c *campaign) error {
	config, err := l.leaderConfig(ctx, c.fence)
	if err != nil {
		return err
	}
	term, end, err := l.newTerm(ctx, config, c.fence)
	if err != nil {
		return err
	}
	defer end()
	tasks, err := l.opts.Tasks(term)
	if err != nil {
		return fmt.Errorf("build tasks: %w", err)
	}
	if err := distinct(tasks); err != nil {
		return err
	}
	defer l.metrics.forget(tasks)
	var running sync.WaitGroup
	defer running.Wait()
	for _, task := range tasks {
		runner := newRunner(term, task, l.metrics, l.opts.Workers, l.opts.SyncTimeout)
		running.Go(func() { runner.run(ctx) })
	}
	running.Go(func() { (&permissions{leader: l, term: term, told: map[permission]time.Time{}}).check(ctx, tasks) })
	running.Go(func() { l.countAgents(ctx, term, c.lock) })
	<-ctx.Done()
	return nil
}

// newTerm builds the clients of a term. end stops what it started and removes
// the term's metrics.
func (l *Leader) newTerm(ctx context.Context, config *rest.Config, fence *fence) (term Term, end func(), err error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return Term{}, nil, fmt.Errorf("leader's client: %w", err)
	}
	bare, err := metadata.NewForConfig(config)
	if err != nil {
		return Term{}, nil, fmt.Errorf("leader's metadata client: %w", err)
	}
	recorder, stop := NewRecorder(ctx, client.EventsV1(), l.opts.Identity, l.metrics.droppedEvents.Inc, l.opts.Log)
	registerer := &termRegisterer{Registerer: l.opts.Metrics}
	term = Term{
		Config:    config,
		Client:    client,
		Metadata:  bare,
		Events:    recorder,
		Metrics:   registerer,
		Log:       l.opts.Log,
		Namespace: l.opts.Namespace,
		Previous:  fence.previous(),
		Renewed:   fence.vouch,
		Wrote:     fence.tell,
	}
	return term, func() {
		stop()
		registerer.clear()
		l.metrics.tokenExpiry.Set(0)
	}, nil
}

func distinct(tasks []Task) error {
	seen := map[string]bool{}
	for _, task := range tasks {
		if name := task.Name(); name == "" || seen[name] {
			return fmt.Errorf("build tasks: name %q is empty or taken", name)
		}
		seen[task.Name()] = true
	}
	return nil
}

// countAgents keeps the number of agents current until ctx ends. The lock
// writes it with a renewal, when it has changed by more than a tenth.
func (l *Leader) countAgents(ctx context.Context, term Term, lock *lock) {
	if l.opts.Agents == nil {
		return
	}
	for ok := true; ok; ok = sleep(ctx, countInterval) {
		counting, cancel := context.WithTimeout(ctx, askTimeout)
		agents, err := l.opts.Agents(counting, term)
		cancel()
		switch {
		case err == nil:
			lock.agents.Store(int64(agents))
			l.metrics.agents.Set(float64(agents))
		case ctx.Err() == nil:
			l.opts.Log.Warn("count agents", "err", err)
		}
	}
}
