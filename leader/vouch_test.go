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
