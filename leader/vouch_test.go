package leader

import (
	"testing"
	"testing/synctest"
	"time"
)

// terms hands out the terms that a replica begins.
func terms(into chan<- Term) func(*Options) {
	return func(o *Options) {
		o.Tasks = func(term Term) ([]Task, error) {
			into <- term
			return nil, nil
		}
	}
}

// renewTime is the one on the Lease.
func renewTime(api *fakeAPI) (at time.Time) {
	api.set(func(f *fakeAPI) { at = f.lease.Spec.RenewTime.Time })
	return at
}

// TestTermTellsOfTheLease is what a task goes by that writes elsewhere than to
// the API server: until when its predecessor may have written, and whether it may
// itself.
func TestTermTellsOfTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, begun := newFakeAPI(), make(chan Term, 1)
		a := start(t, api, "a", terms(begun))
		first := <-begun
		if got := first.Previous; !got.IsZero() {
			t.Errorf("the first leader of all has a predecessor that wrote at %s", got)
		}
		idle(time.Minute)
		asked := time.Now()
		idle(3 * time.Second)
		renewed, ours := first.Renewed()
		if !ours || renewed.Before(asked) || renewed.After(time.Now()) {
			t.Errorf("got a renewal at %s, ours %v; want one since %s", renewed, ours, asked)
		}
		if got := renewTime(api); !got.Equal(renewed.Truncate(time.Microsecond)) {
			t.Errorf("the lease says %s and the term %s", got, renewed)
		}

		a.end(t)
		released := renewTime(api)
		if _, ours := first.Renewed(); ours {
			t.Error("a term that is over says that the lease is its own")
		}
		b := start(t, api, "b", terms(begun))
		second := <-begun
		if got := second.Previous; !got.Equal(released) {
			t.Errorf("got a predecessor that wrote at %s, want %s", got, released)
		}

		api.set(func(f *fakeAPI) { f.down = true })
		before, _ := second.Renewed()
		idle(20 * time.Second)
		if after, ours := second.Renewed(); ours || after.After(before.Add(3*time.Second)) {
			t.Errorf("20 s after the API server went: renewed at %s (was %s), ours %v", after, before, ours)
		}
		b.end(t)
	})
}

// TestReleaseLeavesWhatWasWritten: not the time of the release, but that of the newest
// write elsewhere, which may be a predecessor's.
func TestReleaseLeavesWhatWasWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, begun := newFakeAPI(), make(chan Term, 1)
		next := func(name string) (*replica, Term) {
			r := start(t, api, name, terms(begun))
			return r, <-begun
		}
		a, first := next("a")
		idle(3 * time.Minute)
		renewed, _ := first.Renewed()
		first.Wrote(renewed)
		first.Wrote(renewed.Add(-time.Second)) // not the newest
		idle(5 * time.Second)
		a.end(t)

		b, second := next("b")
		if got, want := second.Previous, renewed.Truncate(time.Microsecond); !got.Equal(want) {
			t.Errorf("got a predecessor that wrote at %s, want %s", got, want)
		}
		b.end(t) // and has written nothing
		c, third := next("c")
		if got, want := third.Previous, renewed.Truncate(time.Microsecond); !got.Equal(want) {
			t.Errorf("got a predecessor's predecessor that wrote at %s, want %s", got, want)
		}
		idle(5 * time.Minute)
		released := time.Now()
		c.end(t)
		d, fourth := next("d")
		if got, want := fourth.Previous, released.Add(-time.Minute).Truncate(time.Microsecond); got.Before(want) || got.After(want.Add(5*time.Second)) {
			t.Errorf("got a predecessor that wrote at %s, want about %s: the API server takes none of long ago", got, want)
		}
		last, _ := fourth.Renewed()
		fourth.Wrote(last)
		d.end(t)
		if got := renewTime(api); !got.After(last.Truncate(time.Microsecond)) || got.Sub(last) > time.Microsecond {
			t.Errorf("the lease says %s after a write of %s: it must change, and only just", got, last)
		}
	})
}
