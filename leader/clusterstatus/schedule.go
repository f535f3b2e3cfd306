package clusterstatus

import "time"

// slot is the time in which one datum is due: from due, mostly a tick, until the
// next tick. Ticks are the multiples of the interval since the zero time, hence
// the same for every replica.
type slot struct{ due, end time.Time }

// longestWait bounds what a wrong clock of the predecessor's can delay. The policy of
// the Lease lets each leader's clock be five minutes away from the API server's. The
// last minute is the rest of that in which the predecessor may have published.
const longestWait = 10*time.Minute + time.Minute

// clockBack is how far ahead the next tick may be of a clock that was set back.
const clockBack = 2 * time.Minute

// firstSlot is due at once, but not in the last minute, nor before it, that a
// predecessor may have published in: that of previous, zero if there was none.
func firstSlot(previous, now time.Time, interval time.Duration) slot {
	if previous.IsZero() || previous.Truncate(time.Minute).Before(now.Truncate(time.Minute)) {
		// Not before the minute of now: the renewal that took the Lease will do.
		return slot{now.Truncate(time.Minute), nextTick(now, interval)}
	}
	due := previous.Truncate(time.Minute).Add(time.Minute)
	if latest := now.Round(0).Add(longestWait); due.After(latest) {
		due = latest
	}
	return slot{due, nextTick(due, interval)}
}

// next returns the slot that follows once s is done with, and how many went by
// while nobody looked.
func (s slot) next(now time.Time, interval time.Duration) (following slot, missed int) {
	due := s.end
	if tick := now.Truncate(interval); tick.After(due) {
		due = tick
	}
	return slot{due, nextTick(due, interval)}, int(due.Sub(s.end) / interval)
}

// unled returns how many ticks had passed since previous, when a predecessor was last
// seen, by the one that the first slot of the next term is for. None are known of if
// there was none.
func (s slot) unled(previous time.Time, interval time.Duration) int {
	if previous.IsZero() {
		return 0
	}
	return int(max(0, s.end.Add(-interval).Sub(nextTick(previous, interval))/interval))
}

// ahead reports a slot that only a clock set back can have made. The first of a term
// may wait.
func (s slot) ahead(now time.Time, first bool, interval time.Duration) bool {
	if first {
		return s.due.Sub(now) > longestWait
	}
	return s.due.Sub(now) > max(interval, clockBack)
}

// nextTick returns the first tick after t.
func nextTick(t time.Time, interval time.Duration) time.Time {
	return t.Truncate(interval).Add(interval)
}
