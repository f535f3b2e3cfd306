package clusterstatus

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/test/expect"
)

// lease is renewed every two seconds by whoever holds it.
type lease struct{ renewed time.Time }

// series is a CloudWatch that remembers who sent what.
type series struct {
	mu   sync.Mutex
	data []sent
}

type sent struct {
	writer  int
	at      time.Time // its timestamp
	arrived time.Time
}

// writer is one leader's way to CloudWatch.
type writer struct {
	to *series
	id int
	// late is how long its calls take to arrive. One whose caller gives up before
	// arrives all the same, or is lost.
	late time.Duration
	lost bool
}

func (w *writer) PutMetricData(ctx context.Context, in *cloudwatch.PutMetricDataInput, _ ...func(*cloudwatch.Options)) (*cloudwatch.PutMetricDataOutput, error) {
	arrived := make(chan struct{})
	go func() {
		defer close(arrived)
		time.Sleep(w.late)
		if ctx.Err() != nil && w.lost {
			return
		}
		w.to.mu.Lock()
		defer w.to.mu.Unlock()
		for _, d := range in.MetricData {
			w.to.data = append(w.to.data, sent{w.id, aws.ToTime(d.Timestamp), time.Now()})
		}
	}()
	select {
	case <-arrived:
		return &cloudwatch.PutMetricDataOutput{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// The ends of a term: a release, a kill, and a node that is cut off from the API
// server: it goes on, and the Lease is not renewed.
const (
	released = "released"
	killed   = "killed"
	cutOff   = "cut off"
)

// lead runs one term for so long.
func lead(t *testing.T, l *lease, w *writer, interval, long time.Duration, end string) {
	t.Helper()
	left, own := l.renewed, time.Now()
	l.renewed = own
	p := newPlayer(t, leader.Term{
		Previous: left,
		Renewed:  func() (time.Time, bool) { return own, time.Since(own) < 13*time.Second },
		Wrote:    func(at time.Time) { left = at },
	}, w, interval)
	defer p.stop()
	if end == released {
		time.AfterFunc(long, p.cancel) // in the middle of a Sync too
	}
	p.play(t, long, func() { own = time.Now(); l.renewed = own })
	switch end {
	case released:
		// As leader.Leader does.
		l.renewed = slices.MaxFunc([]time.Time{left, time.Now().Add(-time.Minute)}, time.Time.Compare)
	case cutOff:
		p.play(t, 15*time.Second-time.Since(l.renewed), func() {})
	case killed:
		time.Sleep(15*time.Second - time.Since(l.renewed)) // until another may take it
	}
}

// successions lets one leader follow the other at random moments.
func successions(t *testing.T, interval, latest time.Duration, ends ...string) []sent {
	t.Helper()
	const terms = 200
	random := rand.New(rand.NewPCG(1, uint64(interval)))
	l, got := &lease{}, &series{}
	for id := range terms {
		w := &writer{to: got, id: id, late: time.Duration(random.Int64N(int64(latest))), lost: random.IntN(2) == 0}
		long := time.Duration(random.Int64N(int64(3*max(interval, 30*time.Second)))) + time.Second
		lead(t, l, w, interval, long, ends[random.IntN(len(ends))])
		time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond) // until the next look
	}
	time.Sleep(latest)
	return got.data
}

// TestTakeover looks at what CloudWatch got of many leaders.
func TestTakeover(t *testing.T) {
	for _, interval := range []time.Duration{time.Minute, time.Second, 10 * time.Second, 45 * time.Second, 5 * time.Minute} {
		t.Run(interval.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				data := successions(t, interval, min(3*time.Second, interval/2), released, killed, cutOff)
				check(t, data, interval)
			})
		})
	}
}

// TestReleaseLosesNoMinute: where a leader has not published in a minute, its successor
// does.
func TestReleaseLosesNoMinute(t *testing.T) {
	for _, interval := range []time.Duration{time.Minute, time.Second, 10 * time.Second} {
		t.Run(interval.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				data := successions(t, interval, min(lastMoment, interval/2), released)
				check(t, data, interval)
				minutes := map[time.Time]bool{}
				for _, d := range data {
					minutes[d.at.Truncate(time.Minute)] = true
				}
				for minute := data[0].at.Truncate(time.Minute); minute.Before(data[len(data)-1].at); minute = minute.Add(time.Minute) {
					if !minutes[minute] {
						t.Errorf("minute %s is empty", minute)
					}
				}
			})
		})
	}
}

// check proves that no minute has two writers, and that none waits for long.
func check(t *testing.T, data []sent, interval time.Duration) {
	t.Helper()
	writers, widest := map[time.Time]int{}, time.Duration(0)
	slices.SortFunc(data, func(a, b sent) int { return a.at.Compare(b.at) })
	before := data[0].at
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

// TestOutageIsCounted by the term that follows it, once, and the last datum is not
// said to be of 1970.
func TestOutageIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		previous := time.Now().Add(-time.Hour)
		api := &answers{err: errors.New("not yet")}
		p := newPlayer(t, leader.Term{Previous: previous, Renewed: renewedNow}, api, time.Minute)
		defer p.stop()
		last := func() float64 {
			got, _ := expect.Metric(t, p.registry, "chandler_clusterstatus_last_published_timestamp_seconds")
			return got
		}
		p.play(t, 5*time.Minute, func() {})
		if got := last(); got != float64(previous.Unix()) {
			t.Errorf("got a last datum of %v, want the Lease's time %d", got, previous.Unix())
		}
		api.err = nil
		p.play(t, 5*time.Minute, func() {})
		if got, _ := expect.Metric(t, p.registry, "chandler_clusterstatus_gaps_total", "reason=unled"); got != 59 {
			t.Errorf("got %v ticks without a leader, want 59", got)
		}
		if got, least := last(), time.Now().Add(-2*time.Minute).Unix(); got < float64(least) {
			t.Errorf("got a last datum of %v, want one since %d", got, least)
		}
	})
}
