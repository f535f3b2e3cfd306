package clusterstatus

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// numbered is a workload whose controller has seen its newest spec.
func numbered(desired, existing, updated, ready int, change ...func(*workload)) *workload {
	w := &workload{observed: 1, desired: desired, existing: existing, updated: updated, ready: ready}
	w.Name, w.UID, w.Generation = "web", "u", 1
	for _, c := range change {
		c(w)
	}
	return w
}

func isBehind(w *workload) { w.Generation = 2 }

func TestRuns(t *testing.T) {
	hour := func(n int) time.Time { return now.Add(time.Duration(n) * time.Hour) }
	within := 26 * time.Hour
	for _, test := range []struct {
		name   string
		kind   string
		within time.Duration
		run    run
		want   state
	}{
		{"job succeeded", job, 0, run{began: hour(-100), succeeded: hour(-99)}, healthy},
		{"job succeeded in time", job, within, run{began: hour(-27), succeeded: hour(-26)}, healthy},
		{"job succeeded long ago", job, within, run{began: hour(-28), succeeded: hour(-27)}, runOverdue},
		{"job failed", job, within, run{began: hour(-1), failed: hour(0), why: "BackoffLimitExceeded"}, runFailed},
		{"job runs", job, within, run{began: hour(-1), active: true}, notRun},
		{"job has no pod yet", job, 0, run{began: hour(-1)}, notRun},
		{"cron job succeeded", cronJob, within, run{began: hour(-2), succeeded: hour(-1)}, healthy},
		{"cron job runs after a success", cronJob, within, run{began: hour(-1), succeeded: hour(-24), active: true}, healthy},
		{"cron job runs for too long after a success", cronJob, within, run{began: hour(-3), succeeded: hour(-27), active: true}, runOverdue},
		{"cron job failed", cronJob, within, run{began: hour(-1), succeeded: hour(-24)}, runFailed},
		{"cron job has failed from the start", cronJob, within, run{began: hour(-1)}, runFailed},
		{"cron job's first run", cronJob, within, run{began: hour(-1), active: true}, notRun},
		{"cron job not due yet", cronJob, within, run{}, notRun},
		{"cron job suspended long ago", cronJob, within, run{began: hour(-101), succeeded: hour(-100)}, runOverdue},
	} {
		t.Run(test.name, func(t *testing.T) {
			target := Target{Kind: test.kind, Namespace: "shop", Name: "backup", Mode: LastRunSucceeded, Within: test.within}
			got := target.judge([]*workload{{run: test.run}}, nil, now)
			if got.state != test.want {
				t.Errorf("got %+v, want %s", got, test.want)
			}
			if want := map[bool]float64{true: 1}[test.want == healthy]; got.ratio != want {
				t.Errorf("got ratio %v, want %v", got.ratio, want)
			}
		})
	}
}

func TestSelectors(t *testing.T) {
	named := func(name string, w *workload) *workload {
		w.Name, w.UID = name, types.UID(name)
		return w
	}
	ran := func(name string, r run) *workload { return named(name, &workload{run: r}) }
	hour := func(n int) time.Time { return now.Add(time.Duration(n) * time.Hour) }
	for _, test := range []struct {
		name   string
		target Target
		found  []*workload
		want   verdict
	}{
		{"nothing matches", Target{Kind: deployment, Mode: AllOfThem}, nil, verdict{missing, "there is none", 0}},
		{"nothing matches, as is allowed", Target{Kind: deployment, Mode: AllOfThem, AllowEmpty: true}, nil, verdict{healthy, "there is none, as is allowed", 1}},
		{
			"all healthy", Target{Kind: deployment, Mode: AllOfThem},
			[]*workload{named("b", numbered(1, 1, 1, 1)), named("a", numbered(3, 3, 3, 3))},
			verdict{healthy, "a: 3 of 3 desired ready, 3 exist, 3 of them updated (0 of 2 unhealthy)", 1},
		},
		{
			"two of three unhealthy", Target{Kind: deployment, Mode: AllOfThem},
			[]*workload{named("c", numbered(1, 1, 1, 0)), named("b", numbered(2, 2, 2, 1)), named("a", numbered(1, 2, 1, 2))},
			verdict{tooFewReady, "b: 1 of 2 desired ready, 2 exist, 2 of them updated (2 of 3 unhealthy)", 0.5},
		},
		{
			"each counts by itself", Target{Kind: deployment, Mode: AtLeastOne},
			[]*workload{named("a", numbered(3, 3, 3, 3)), named("b", numbered(1, 1, 1, 0))},
			verdict{noneReady, "b: 0 of 1 desired ready, 1 exist, 1 of them updated (1 of 2 unhealthy)", 0.75},
		},
		{
			"of Jobs the last that ended", Target{Kind: job, Mode: LastRunSucceeded},
			[]*workload{
				ran("1", run{began: hour(-3), failed: hour(-3)}), ran("2", run{began: hour(-2), succeeded: hour(-2)}), ran("3", run{began: hour(-1), active: true}),
			},
			verdict{healthy, "2: last succeeded at 2026-03-01T10:00:00Z", 1},
		},
		{
			"no Job has ended", Target{Kind: job, Mode: LastRunSucceeded},
			[]*workload{ran("1", run{began: hour(-3)}), ran("2", run{began: hour(-2)})},
			verdict{notRun, "2: has not ended", 0},
		},
		{
			"a CronJob failed", Target{Kind: cronJob, Mode: LastRunSucceeded, Within: time.Hour},
			[]*workload{ran("1", run{began: hour(-1), succeeded: hour(0)}), ran("2", run{began: hour(-1)})},
			verdict{runFailed, "2: the run of 2026-03-01T11:00:00Z did not succeed (1 of 2 unhealthy)", 0},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.target.Namespace, test.target.Selector = "shop", "tier=front"
			got := test.target.judge(test.found, nil, now)
			if diff := cmp.Diff(got, test.want, cmp.AllowUnexported(verdict{})); diff != "" {
				t.Errorf("-got +want:\n%s", diff)
			}
		})
	}
}

func TestConclusion(t *testing.T) {
	for _, test := range []struct {
		name   string
		states []state
		value  float64
		known  bool
	}{
		{"all healthy", []state{healthy, healthy}, 1, true},
		{"one unknown", []state{healthy, unknown}, 1, false},
		{"one unhealthy", []state{healthy, missing}, 0, true},
		{"one unhealthy settles it", []state{unknown, forbidden, healthy}, 0, true},
		{"all unknown", []state{unknown}, 1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var verdicts []verdict
			for _, s := range test.states {
				verdicts = append(verdicts, verdict{state: s})
			}
			got := conclude(verdicts)
			if got.known != test.known || got.known && got.value != test.value {
				t.Errorf("got %v, known %v; want %v, known %v", got.value, got.known, test.value, test.known)
			}
		})
	}
}

func TestLags(t *testing.T) {
	later := now.Add(time.Minute)
	behind := numbered(1, 1, 1, 1, isBehind)
	first := lags(nil).next([]*workload{behind, numbered(1, 1, 1, 1)}, now)
	if diff := cmp.Diff(first, lags{"u": {1, now}}, cmp.AllowUnexported(lag{})); diff != "" {
		t.Fatalf("first look (-got +want):\n%s", diff)
	}
	another := numbered(1, 1, 1, 1, isBehind)
	another.Generation = 3
	newer := numbered(1, 1, 1, 1, isBehind)
	newer.Generation, newer.observed = 3, 2
	for _, test := range []struct {
		name  string
		found []*workload
		want  lags
	}{
		{"still behind", []*workload{behind}, lags{"u": {1, now}}},
		{"another spec, the same numbers", []*workload{another}, lags{"u": {1, now}}},
		{"another spec, newer numbers", []*workload{newer}, lags{"u": {2, later}}},
		{"caught up", []*workload{numbered(1, 1, 1, 1)}, lags{}},
		{"gone", nil, lags{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := first.next(test.found, later)
			if diff := cmp.Diff(got, test.want, cmp.AllowUnexported(lag{})); diff != "" {
				t.Errorf("-got +want:\n%s", diff)
			}
		})
	}
}
