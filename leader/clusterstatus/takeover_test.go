package clusterstatus

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/chandler-k8s/chandler/leader"
)

// lease is renewed every two seconds by whoever holds it.
type lease struct{ renewed time.Time }

// series is a CloudWatch that remembers who sent what.
type series struct{ data []sent }

type sent struct {
	writer  int
	at      time.Time // its timestamp
	arrived time.Time
}

// writer is one leader's way to CloudWatch.
type writer struct {
	to *series
	id int
	// late is how long its calls take to arrive, whatever becomes of the caller.
	late time.Duration
}

func (w *writer) PutMetricData(_ context.Context, in *cloudwatch.PutMetricDataInput, _ ...func(*cloudwatch.Options)) (*cloudwatch.PutMetricDataOutput, error) {
	time.Sleep(w.late)
	for _, d := range in.MetricData {
		w.to.data = append(w.to.data, sent{w.id, aws.ToTime(d.Timestamp), time.Now()})
	}
	return &cloudwatch.PutMetricDataOutput{}, nil
}

// lead runs one term for so long, and ends it as a release, as a kill or as a node
// that is cut off from the API server: it goes on, and the Lease is not renewed.
func lead(t *testing.T, l *lease, w *writer, interval, long time.Duration, end string) {
	t.Helper()
	reg := prometheus.NewRegistry()
	counters, err := NewMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	previous, own, cut := l.renewed, time.Now(), false
	l.renewed = own
	client := fake.NewSimpleClientset(&appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"}, Status: appsv1.DeploymentStatus{ObservedGeneration: 1, ReadyReplicas: 1, Replicas: 1, UpdatedReplicas: 1},
	})
	task, err := New(leader.Term{
		Client: client, Previous: previous, Log: slog.New(slog.DiscardHandler), Metrics: reg,
		Renewed: func() (time.Time, bool) { return own, time.Since(own) < 13*time.Second },
	}, Options{
		Interval: interval, Metric: Metric{Namespace: "N", Name: "M"}, Metrics: counters,
		Targets: []Target{{Kind: deployment, Namespace: "shop", Name: "cart", Mode: AllOfThem}},
	})
	if err != nil {
		t.Fatal(err)
	}
	task.publish.client = w
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	in := leader.NewInformers(client, nil)
	if err := task.Watch(in, func(string) {}); err != nil {
		t.Fatal(err)
	}
	in.Start(ctx)
	defer in.Shutdown()
	defer stop()
	over, renewal, next := time.After(long), time.NewTicker(2*time.Second), time.After(0)
	defer renewal.Stop()
	for {
		select {
		case <-over:
			switch {
			case end == "released":
				l.renewed = time.Now()
				return
			case end == "killed" || cut:
				time.Sleep(15*time.Second - time.Since(l.renewed)) // until another may take it
				return
			}
			cut, over = true, time.After(15*time.Second-time.Since(l.renewed))
		case <-renewal.C:
			if !cut {
				own = time.Now()
				l.renewed = own
			}
		case <-next:
			again, err := task.Sync(ctx, theKey)
			if err != nil || again <= 0 {
				t.Fatalf("got again %s, %v", again, err)
			}
			next = time.After(again)
		}
	}
}

// TestTakeover lets one leader follow the other at random moments, and looks at
// what CloudWatch got.
func TestTakeover(t *testing.T) {
	const terms = 200
	for _, interval := range []time.Duration{time.Minute, time.Second, 10 * time.Second, 45 * time.Second, 5 * time.Minute} {
		t.Run(interval.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(1, uint64(interval)))
				l, got := &lease{}, &series{}
				for id := range terms {
					end := []string{"released", "killed", "cut off"}[random.IntN(3)]
					w := &writer{to: got, id: id, late: min(time.Duration(random.IntN(3000))*time.Millisecond, interval/2)}
					lead(t, l, w, interval, time.Duration(random.Int64N(int64(3*max(interval, 30*time.Second))))+time.Second, end)
					time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond) // until the next look
				}
				check(t, got.data, interval)
			})
		})
	}
}

// check proves that no minute has two writers, and that none waits for long.
func check(t *testing.T, data []sent, interval time.Duration) {
	t.Helper()
	writers, widest, before := map[time.Time]int{}, time.Duration(0), data[0].at
	for i, d := range data {
		minute := d.at.Truncate(time.Minute)
		if first, ok := writers[minute]; ok && first != d.writer {
			t.Errorf("minute %s: data of leaders %d and %d", minute, first, d.writer)
		}
		writers[minute] = d.writer
		if d.at.After(d.arrived) {
			t.Errorf("datum %d of the future: %s at %s", i, d.at, d.arrived)
		}
		widest, before = max(widest, d.at.Sub(before)), d.at
	}
	if len(writers) < 20 {
		t.Errorf("got data of %d minutes only", len(writers))
	}
	// A tick that nobody lived to see, a lease that expires, the rest of a minute.
	if limit := interval + 3*time.Minute; widest > limit {
		t.Errorf("got a gap of %s, want less than %s", widest, limit)
	}
	t.Logf("%d data, widest gap %s", len(data), widest)
}
