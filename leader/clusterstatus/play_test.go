package clusterstatus

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/chandler-k8s/chandler/leader"
)

// player runs the task of one term in a bubble of synctest, with one target, which is
// healthy.
type player struct {
	task     *Task
	registry *prometheus.Registry
	ctx      context.Context
	cancel   func() // ends the term, and waits for nothing
	stop     func() // ends it and waits
}

func newPlayer(t *testing.T, about leader.Term, api metricAPI, interval time.Duration) *player {
	t.Helper()
	p := &player{registry: prometheus.NewRegistry()}
	counters, err := NewMetrics(p.registry)
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewSimpleClientset(&appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"}, Status: appsv1.DeploymentStatus{ObservedGeneration: 1, ReadyReplicas: 1, Replicas: 1, UpdatedReplicas: 1},
	})
	about.Client, about.Metrics = client, p.registry
	if about.Log == nil {
		about.Log = slog.New(slog.DiscardHandler)
	}
	if about.Wrote == nil {
		about.Wrote = func(time.Time) {}
	}
	p.task, err = New(about, Options{
		Interval: interval, Metric: Metric{Namespace: "N", Name: "M"}, Metrics: counters,
		Targets: []Target{{Kind: deployment, Namespace: "shop", Name: "cart", Mode: AllOfThem}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.task.publish.client = api
	p.ctx, p.cancel = context.WithCancel(t.Context())
	in := leader.NewInformers(client, nil)
	if err := p.task.Watch(in, func(string) {}); err != nil {
		t.Fatal(err)
	}
	in.Start(p.ctx)
	p.stop = func() { p.cancel(); in.Shutdown() }
	return p
}

// play runs Syncs as the runner does, and renew every two seconds, for so long.
func (p *player) play(t *testing.T, long time.Duration, renew func()) {
	t.Helper()
	over, renewal, next := time.After(long), time.NewTicker(2*time.Second), time.After(0)
	defer renewal.Stop()
	for {
		select {
		case <-over:
			return
		case <-p.ctx.Done():
			return
		case <-renewal.C:
			renew()
		case <-next:
			again, err := p.task.Sync(p.ctx, theKey)
			if err != nil || again <= 0 {
				t.Fatalf("got again %s, %v", again, err)
			}
			next = time.After(again)
		}
	}
}
