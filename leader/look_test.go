package leader

import (
	"container/heap"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestLookInterval(t *testing.T) {
	for _, test := range []struct {
		name   string
		agents int
		want   time.Duration
	}{
		{"one", 1, time.Second},
		{"where the floor ends", 10, time.Second},
		{"small", 25, 2500 * time.Millisecond},
		{"large", 5000, 500 * time.Second},
		{"where the ceiling begins", 6000, 10 * time.Minute},
		{"hostile", 1 << 62, 10 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := lookInterval(test.agents); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestPaceUsesTheLastGoodCount(t *testing.T) {
	for _, test := range []struct {
		name        string
		annotations []string
		want        time.Duration
	}{
		{"never counted", []string{""}, 10 * time.Second},
		{"counted", []string{"5000"}, 500 * time.Second},
		{"lost again", []string{"5000", ""}, 500 * time.Second},
		{"not a number", []string{"200", "many"}, 20 * time.Second},
		{"zero", []string{"200", "0"}, 20 * time.Second},
		{"negative", []string{"200", "-7"}, 20 * time.Second},
		{"beyond any integer", []string{"200", "99999999999999999999"}, 20 * time.Second},
		{"hostile", []string{"200", "999999"}, 40 * time.Second},
		{"hostile, in a small cluster", []string{"3", "999999"}, 10 * time.Second},
		{"hostile, seen by a replica that has just started", []string{"999999"}, 10 * time.Minute},
		{"hostile, for ten minutes", []string{"3", "999999", "999999", "999999", "999999", "999999", "999999", "999999"}, 10 * time.Minute},
		{"mended", []string{"3", "999999", "999999", "3"}, time.Second},
		{"grown by half", []string{"1000", "1500"}, 150 * time.Second},
		{"a fraction", []string{"1.5"}, 10 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := pace{uncounted: 10 * time.Second}
			for _, annotation := range test.annotations {
				p.observe(annotation)
			}
			p.next()
			if got := p.interval; got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			for range 1000 {
				if got := p.next(); got < test.want*9/10 || got > test.want*11/10 {
					t.Fatalf("got a look after %s, want within a tenth of %s", got, test.want)
				}
			}
		})
	}
}

// FuzzPace: whatever the annotation says, a follower looks neither all the time
// nor never.
func FuzzPace(f *testing.F) {
	for _, seed := range []string{"", "0", "3", "5000", "-1", "999999", "1e9", "9223372036854775807", "١٢", "+7", "0x10"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, annotation string) {
		p := pace{uncounted: 10 * time.Second}
		p.observe(annotation)
		p.next()
		if got := p.next(); got < shortestLook*9/10 || got > longestLook*11/10 {
			t.Errorf("got a look after %s", got)
		}
	})
}

func TestPaceRests(t *testing.T) {
	p := pace{uncounted: time.Second}
	p.rest(time.Minute)
	if got := p.next(); got < time.Minute {
		t.Errorf("first: got %s, want at least a minute", got)
	}
	if got := p.next(); got > 2*time.Second {
		t.Errorf("second: got %s, want about a second", got)
	}
}

// lookTimes orders followers by their next look.
type lookTimes []struct {
	at   time.Duration
	pace *pace
}

func (l lookTimes) Len() int           { return len(l) }
func (l lookTimes) Less(i, j int) bool { return l[i].at < l[j].at }
func (l lookTimes) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l lookTimes) Push(any)           {}
func (l lookTimes) Pop() any           { return nil }

// TestCrowd plays an hour of every follower's looks, all started in the same second.
func TestCrowd(t *testing.T) {
	for _, test := range []struct {
		name    string
		agents  int
		most    float64       // looks a second, on average
		longest time.Duration // without any look, once phases are random
	}{
		{"2", 2, 2.1, 1200 * time.Millisecond},
		{"10", 10, 10.1, time.Second},
		{"50", 50, 10.1, 2 * time.Second},
		{"1,000", 1000, 10.2, 3 * time.Second},
		{"5,000", 5000, 12, 3 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			const hour = time.Hour
			followers := make(lookTimes, test.agents-1)
			for i := range followers {
				followers[i].pace = &pace{agents: test.agents}
				followers[i].at = followers[i].pace.next()
			}
			heap.Init(&followers)
			looks, last, gap := 0, time.Duration(0), time.Duration(0)
			for followers[0].at < hour {
				next := &followers[0]
				if next.at > 10*time.Second { // the first phase of a small crowd is not its steady state
					gap = max(gap, next.at-last)
				}
				last = next.at
				next.at += next.pace.next()
				looks++
				heap.Fix(&followers, 0)
			}
			if got := float64(looks) / hour.Seconds(); got > test.most {
				t.Errorf("got %.2f looks a second, want at most %.2f", got, test.most)
			}
			if gap > test.longest {
				t.Errorf("got %s without a look, want at most %s", gap, test.longest)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 20, 0, time.UTC)
	stamped := func(manager string, age time.Duration) []metav1.ManagedFieldsEntry {
		at := metav1.NewTime(now.Add(-age))
		return []metav1.ManagedFieldsEntry{
			{Manager: "kubectl-edit", Time: &metav1.Time{Time: now}},
			{Manager: manager, Time: &at},
		}
	}
	for _, test := range []struct {
		name   string
		holder string
		change func(*coordinationv1.Lease)
		want   verdict
	}{
		{"nobody", "", func(*coordinationv1.Lease) {}, released},
		{"no holder field", "x", func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = nil }, released},
		{"ourselves", "me", func(*coordinationv1.Lease) {}, own},
		{"renewed now", "other", func(l *coordinationv1.Lease) { l.ManagedFields = stamped(FieldManager, 0) }, held},
		{"just good", "other", func(l *coordinationv1.Lease) { l.ManagedFields = stamped(FieldManager, 15*time.Second) }, held},
		{"expired", "other", func(l *coordinationv1.Lease) { l.ManagedFields = stamped(FieldManager, 16*time.Second) }, expired},
		{"renewTime to come does not help", "other", func(l *coordinationv1.Lease) {
			l.ManagedFields = stamped(FieldManager, time.Hour)
			l.Spec.RenewTime = &metav1.MicroTime{Time: now.Add(time.Hour)}
		}, expired},
		{"renewTime long past does not hurt", "other", func(l *coordinationv1.Lease) {
			l.ManagedFields = stamped(FieldManager, time.Second)
			l.Spec.RenewTime = &metav1.MicroTime{}
		}, held},
		{"its own duration", "other", func(l *coordinationv1.Lease) {
			*l.Spec.LeaseDurationSeconds = 60
			l.ManagedFields = stamped(FieldManager, 59*time.Second)
		}, held},
		{"no duration means 15 s", "other", func(l *coordinationv1.Lease) {
			l.Spec.LeaseDurationSeconds = nil
			l.ManagedFields = stamped(FieldManager, 16*time.Second)
		}, expired},
		{"no stamp of ours, just made", "other", func(l *coordinationv1.Lease) {
			l.CreationTimestamp = metav1.NewTime(now)
		}, held},
		{"no stamp of ours, long made", "other", func(l *coordinationv1.Lease) {
			l.CreationTimestamp = metav1.NewTime(now.Add(-time.Hour))
			l.ManagedFields = stamped("other-manager", 0)
		}, expired},
	} {
		t.Run(test.name, func(t *testing.T) {
			lease := heldBy(test.holder, "")
			test.change(lease)
			if got := judge(lease, "me", now); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestAnnotate(t *testing.T) {
	for _, test := range []struct {
		name   string
		old    string
		agents int
		want   string
	}{
		{"first", "", 3, "3"},
		{"not counted yet", "3", 0, "3"},
		{"never counted", "", 0, ""},
		{"unchanged", "3", 3, "3"},
		{"small step of a small cluster", "3", 4, "4"},
		{"within a tenth", "1000", 1100, "1000"},
		{"beyond a tenth", "1000", 1101, "1101"},
		{"shrunk", "1000", 899, "899"},
		{"unusable", "many", 5, "5"},
		{"hostile", "999999", 3, "3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := annotate(test.old, test.agents); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
