package podlogs

import (
	"time"
)

const (
	// A Role that exists is written once nothing has changed for quiet, and at the
	// latest after patience.
	quiet    = 50 * time.Millisecond
	patience = 100 * time.Millisecond
	// One that is still to be made waits for its workload's first pods.
	quietNew    = 250 * time.Millisecond
	patienceNew = 2 * time.Second
	// While changes go on, writes of one Role are first shortestGap apart, then twice
	// as long each time. After a pause of burst they begin anew.
	shortestGap = 100 * time.Millisecond
	longestGap  = 2 * time.Second
	burst       = 5 * time.Second
)

// pace says when to write the changes of one Role, and to read for them, so that a
// burst of them becomes a few writes and a single one is written at once. The zero
// value is that of a Role that nothing has been written for.
type pace struct {
	pending     uint64    // what is not written yet, as a hash
	tried       uint64    // what was pending when the last attempt failed
	first, last time.Time // when that began to differ, and last changed; zero if nothing is pending
	written     time.Time
	gap         time.Duration // the least time from written to the next write
}

// wait returns how long to put off the write of what is pending, zero if it is due.
func (p *pace) wait(pending uint64, isNew bool, now time.Time) time.Duration {
	if p.first.IsZero() {
		p.first = now
	}
	if p.pending != pending || p.last.IsZero() {
		p.pending, p.last = pending, now
	}
	settle, limit := quiet, patience
	if isNew {
		settle, limit = quietNew, patienceNew
	}
	due := p.last.Add(settle)
	if latest := p.first.Add(limit); latest.Before(due) {
		due = latest
	}
	if next := p.written.Add(p.gap); next.After(due) && pending != p.tried {
		due = next
	}
	return max(0, due.Sub(now))
}

// wrote starts the gap to the next write, or after a read for one.
func (p *pace) wrote(now time.Time) {
	p.space(now)
	p.calm()
}

// failed starts the gap for changes that come after a failure. The same is tried again
// without: that has its own backoff, which a Sync without error would reset.
func (p *pace) failed(now time.Time) {
	p.space(now)
	p.tried = p.pending
}

func (p *pace) space(now time.Time) {
	p.gap = min(p.gap*2, longestGap)
	if p.gap == 0 || now.Sub(p.written) > burst {
		p.gap = shortestGap
	}
	p.written = now
}

// calm says that nothing is pending.
func (p *pace) calm() { p.first, p.last, p.tried = time.Time{}, time.Time{}, 0 }
