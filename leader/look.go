package leader

import (
	"math/rand/v2"
	"strconv"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// AgentsAnnotation is the Lease's annotation with the number of replicas that
// look at it, e.g. "5000". The leader writes it; followers derive their look
// interval from it.
const AgentsAnnotation = "chandler.dev/agents"

// NodeAnnotation is the Lease's annotation with the node that its holder runs on.
// An admission policy refuses writes with a leader's token that is bound to another.
const NodeAnnotation = "chandler.dev/node"

// FieldManager is the field manager of every write to the Lease. The admission
// policy judges expiry by its entry in managedFields.
const FieldManager = "chandler"

// The package comment derives these.
const (
	looksPerSecond = 10
	shortestLook   = time.Second
	longestLook    = 10 * time.Minute
	credibleAgents = 100
)

// verdict is what a look at the Lease found.
type verdict string

const (
	held     verdict = "held"     // by another replica, renewed in time
	absent   verdict = "absent"   // there is no Lease
	released verdict = "released" // it names nobody
	expired  verdict = "expired"  // its holder has not renewed it
	own      verdict = "own"      // it names us: this container was restarted
	unknown  verdict = "error"    // the look failed
)

// verdicts lists every value, for the metrics.
func verdicts() []verdict {
	return []verdict{held, absent, released, expired, own, unknown}
}

// open reports whether the Lease may be taken.
func (v verdict) open() bool { return v != held && v != unknown }

// judge decides who holds the lease at the API server's time now.
func judge(lease *coordinationv1.Lease, identity string, now time.Time) verdict {
	holder := lease.Spec.HolderIdentity
	switch {
	case holder == nil || *holder == "":
		return released
	case *holder == identity:
		return own
	case now.Sub(stamp(lease)) > leaseDuration(lease):
		return expired
	default:
		return held
	}
}

// stamp returns when the API server last saw a replica write the lease, with
// whole seconds. Without a trace of one, that is when it made the lease.
func stamp(lease *coordinationv1.Lease) time.Time {
	for _, entry := range lease.ManagedFields {
		if entry.Manager == FieldManager && entry.Time != nil {
			return entry.Time.Time
		}
	}
	return lease.CreationTimestamp.Time
}

// leaseDuration returns the lease's own duration, as the admission policy takes it.
func leaseDuration(lease *coordinationv1.Lease) time.Duration {
	if seconds := lease.Spec.LeaseDurationSeconds; seconds != nil {
		return time.Duration(*seconds) * time.Second
	}
	return defaultLeaseDuration
}

// pace says when to look next. It is used by one goroutine.
type pace struct {
	uncounted time.Duration // interval before any count is known
	agents    int           // last usable count; zero if none yet
	interval  time.Duration // the one in force; zero before the first
	pause     time.Duration // the least time until the next look, once
}

// observe takes the count from a Lease's annotation. What is absent or unusable
// leaves the last good count in force. Beyond a hundred, whose looks are ten seconds
// apart, a count no more than doubles from look to look, so that a false one slows
// the looks down no longer than it has stood.
func (p *pace) observe(annotation string) {
	count, err := strconv.Atoi(annotation)
	if err != nil || count <= 0 {
		return
	}
	if p.agents > 0 {
		count = min(count, max(credibleAgents, 2*p.agents))
	}
	p.agents = count
}

// next returns the time until the next look. A changed interval starts at a
// random phase, so that replicas that learn of it together do not stay together.
func (p *pace) next() time.Duration {
	interval := p.uncounted
	if p.agents > 0 {
		interval = lookInterval(p.agents)
	}
	pause := p.pause
	p.pause = 0
	if interval != p.interval {
		p.interval = interval
		return max(pause, rand.N(interval))
	}
	return max(pause, vary(interval))
}

// rest puts the next look off by at least d.
func (p *pace) rest(d time.Duration) { p.pause = d }

// lookInterval returns how often each of so many agents looks.
func lookInterval(agents int) time.Duration {
	// Compared as a count first: a hostile one would overflow the multiplication.
	if agents >= int(longestLook/time.Second)*looksPerSecond {
		return longestLook
	}
	return max(shortestLook, time.Duration(agents)*time.Second/looksPerSecond)
}

// vary returns a random duration within a tenth of d.
func vary(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5)
}

// annotate returns the annotation to write for the counted agents: the old one
// as long as it is within a tenth, so that a Lease under renewal does not wobble.
func annotate(old string, agents int) string {
	count, err := strconv.Atoi(old)
	if agents <= 0 || (err == nil && count > 0 && abs(agents-count) <= count/10) {
		return old
	}
	return strconv.Itoa(agents)
}

func abs(n int) int { return max(n, -n) }
