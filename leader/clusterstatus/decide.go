package clusterstatus

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// longestLag is how long a controller may take to look at a new spec. Until then
// the numbers that it gave before count, against the new spec's; a controller that
// stays behind for longer does not work, and its numbers are history. A restart of
// kube-controller-manager takes half a minute, its lease included.
const longestLag = 2 * time.Minute

// state is what a target is found to be. The first is the healthy one; the last
// says nothing about the target.
type state string

const (
	healthy     state = "healthy"
	noneReady   state = "none_ready"    // pods exist and none is ready
	tooFewReady state = "too_few_ready" // some are
	uncreated   state = "pods_missing"  // fewer pods exist than desired: quota, admission, no room
	rollingOut  state = "rolling_out"   // too few are ready, and not all are of the newest spec
	stalled     state = "stalled"       // a rollout exceeded its progress deadline
	unobserved  state = "unobserved"    // its controller has not looked at its spec
	runFailed   state = "run_failed"    // the last run did
	runOverdue  state = "run_overdue"   // no success within the time
	notRun      state = "not_run"       // no run has ended yet
	deleting    state = "being_deleted" // it is about to go
	missing     state = "missing"       // there is none, or none that the selector matches
	forbidden   state = "forbidden"     // RBAC does not let us watch it
	unknown     state = "unknown"       // its watch is not current
)

// states lists every state once, for metrics.
func states() []state {
	return []state{
		healthy, noneReady, tooFewReady, uncreated, rollingOut, stalled, unobserved,
		runFailed, runOverdue, notRun, deleting, missing, forbidden, unknown,
	}
}

// verdict is the judgement of one target.
type verdict struct {
	state  state
	reason string  // for people, without anything that changes from tick to tick by itself
	ratio  float64 // the ready share of what is desired, 0 to 1; that of an unknown target means nothing
}

func unhealthy(s state, format string, args ...any) verdict {
	return verdict{state: s, reason: fmt.Sprintf(format, args...)}
}

// lags says since when a workload's numbers are not about its newest spec.
type lags map[types.UID]lag

type lag struct {
	observed int64 // the generation that the numbers are about
	since    time.Time
}

// next carries the lags over to what is found now. What has caught up or has gone
// begins anew, and so does what has got newer numbers: its controller works. Another
// spec alone changes nothing.
func (l lags) next(found []*workload, now time.Time) lags {
	following := lags{}
	for _, w := range found {
		if w.observed >= w.Generation {
			continue
		}
		before, known := l[w.UID]
		if !known || before.observed != w.observed {
			before = lag{w.observed, now}
		}
		following[w.UID] = before
	}
	return following
}

// judge says what a target is whose watch is current and has shown the given
// workloads, which it may reorder.
func (t Target) judge(found []*workload, behind lags, now time.Time) verdict {
	if len(found) == 0 {
		if t.AllowEmpty {
			return verdict{healthy, "there is none, as is allowed", 1}
		}
		return unhealthy(missing, "there is none")
	}
	if t.Kind == job {
		found = []*workload{lastRun(found)}
	}
	slices.SortFunc(found, func(a, b *workload) int { return cmp.Compare(a.Name, b.Name) })
	result := verdict{state: healthy}
	var desired, ready, bad int
	for i, w := range found {
		v := t.judgeOne(w, behind, now)
		desired, ready = desired+w.desired, ready+min(w.ready, w.desired)
		if v.state != healthy {
			bad++
		}
		if i == 0 || bad == 1 && result.state == healthy && v.state != healthy {
			result = v
			if t.Name == "" {
				result.reason = w.Name + ": " + v.reason
			}
		}
	}
	if len(found) > 1 {
		result.reason = fmt.Sprintf("%s (%d of %d unhealthy)", result.reason, bad, len(found))
	}
	result.ratio = share(ready, desired, result.state)
	return result
}

// share is the ratio of what is ready. Where nothing is desired, Jobs and
// CronJobs included, it is all or nothing.
func share(ready, desired int, s state) float64 {
	switch {
	case desired > 0:
		return float64(ready) / float64(desired)
	case s == healthy:
		return 1
	}
	return 0
}

func (t Target) judgeOne(w *workload, behind lags, now time.Time) verdict {
	switch {
	case w.DeletionTimestamp != nil:
		return unhealthy(deleting, "is being deleted")
	case t.Kind == job:
		return t.judgeJob(w.run, now)
	case t.Kind == cronJob:
		return t.judgeCronJob(w.run, now)
	}
	return t.judgeReplicas(w, behind, now)
}

func (t Target) judgeReplicas(w *workload, behind lags, now time.Time) verdict {
	if w.observed == 0 {
		return unhealthy(unobserved, "its controller has not looked at it yet")
	}
	if lag, ok := behind[w.UID]; ok && now.Sub(lag.since) >= longestLag {
		return unhealthy(unobserved, "its controller is still at generation %d, not %d", w.observed, w.Generation)
	}
	// Pods beyond what is desired are on their way out.
	ready := min(w.ready, w.desired)
	numbers := fmt.Sprintf("%d of %d desired ready, %d exist, %d of them updated", ready, w.desired, w.existing, w.updated)
	if !t.enough(ready, w.desired) {
		return unhealthy(w.shortage(ready), "%s", numbers)
	}
	if w.stalled && t.Mode == AllOfThem {
		return unhealthy(stalled, "its rollout exceeded the progress deadline: %s", numbers)
	}
	return verdict{state: healthy, reason: numbers}
}

// enough applies the mode. None desired is enough for what asks for a share.
func (t Target) enough(ready, desired int) bool {
	switch t.Mode {
	case AllOfThem:
		return ready >= desired
	case AtLeastOne:
		return ready >= 1
	case AtLeast:
		return ready >= t.Count
	case Percentage:
		return ready*100 >= t.Percentage*desired
	}
	return false
}

// shortage names why too few are ready, of those desired.
func (w *workload) shortage(ready int) state {
	switch {
	case w.existing < w.desired && !w.replacing:
		return uncreated
	case w.updated < w.desired && w.stalled:
		return stalled
	case w.updated < w.desired:
		return rollingOut
	case ready == 0:
		return noneReady
	}
	return tooFewReady
}

// lastRun picks, among Jobs that a selector matches, the newest that has ended,
// or else the newest: together they are the runs of one thing.
func lastRun(found []*workload) *workload {
	return slices.MaxFunc(found, func(a, b *workload) int {
		if ended := a.run.ended() - b.run.ended(); ended != 0 {
			return ended
		}
		return cmp.Or(a.run.began.Compare(b.run.began), cmp.Compare(a.Name, b.Name))
	})
}

func (r run) ended() int {
	if r.succeeded.IsZero() && r.failed.IsZero() {
		return 0
	}
	return 1
}

func (t Target) judgeJob(r run, now time.Time) verdict {
	switch {
	case !r.failed.IsZero():
		return unhealthy(runFailed, "failed at %s: %s", stamp(r.failed), r.why)
	case r.succeeded.IsZero():
		return unhealthy(notRun, "has not ended")
	}
	return t.judgeAge(r.succeeded, now)
}

// judgeCronJob does not judge a run that is under way; until it ends, the last
// success counts.
func (t Target) judgeCronJob(r run, now time.Time) verdict {
	switch {
	case !r.active && r.began.After(r.succeeded):
		return unhealthy(runFailed, "the run of %s did not succeed", stamp(r.began))
	case r.succeeded.IsZero():
		return unhealthy(notRun, "no run has succeeded yet")
	}
	return t.judgeAge(r.succeeded, now)
}

func (t Target) judgeAge(succeeded, now time.Time) verdict {
	if t.Within > 0 && now.Sub(succeeded) > t.Within {
		return unhealthy(runOverdue, "last succeeded at %s, which is more than %s ago", stamp(succeeded), t.Within)
	}
	return verdict{state: healthy, reason: "last succeeded at " + stamp(succeeded)}
}

func stamp(at time.Time) string { return at.UTC().Format(time.RFC3339) }
