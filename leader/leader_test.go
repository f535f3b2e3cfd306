package leader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func counting(agents int) func(*Options) {
	return func(o *Options) {
		o.Agents = func(context.Context, Term) (int, error) { return agents, nil }
	}
}

func running(tasks ...Task) func(*Options) {
	return func(o *Options) { o.Tasks = func(Term) ([]Task, error) { return tasks, nil } }
}

// crowd starts so many replicas and returns the function that ends them.
func crowd(t *testing.T, api *fakeAPI, count int, adjust ...func(*Options)) (replicas map[string]*replica, end func()) {
	t.Helper()
	replicas = map[string]*replica{}
	for i := range count {
		pod := fmt.Sprintf("pod-%d", i)
		replicas[pod] = start(t, api, pod, adjust...)
	}
	return replicas, func() {
		for _, r := range replicas {
			r.end(t)
		}
	}
}

// passes waits in the bubble until what holds, and returns how long that took.
func passes(t *testing.T, limit time.Duration, what func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !what() {
		if time.Since(begin) > limit {
			t.Fatalf("got nothing after %s", limit)
		}
		idle(max(time.Millisecond, limit/1000))
	}
	return time.Since(begin)
}

// idle lets the bubble's clock run for d, and then everything else come to rest.
func idle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestFreshClusterElectsOne(t *testing.T) {
	for _, count := range []int{1, 3, 50} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newFakeAPI()
				replicas, end := crowd(t, api, count, counting(count))
				defer end()
				passes(t, time.Second, func() bool { return api.holder() != "" })
				idle(time.Minute)
				leading := 0
				for pod, r := range replicas {
					if got := testutil.ToFloat64(r.metrics.leading); got == 1 {
						leading++
						if pod != api.holder() {
							t.Errorf("%s leads, but the lease names %s", pod, api.holder())
						}
					}
				}
				if leading != 1 {
					t.Errorf("got %d leaders, want 1", leading)
				}
			})
		})
	}
}

func TestRacersThatLoseFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newFakeAPI()
		api.delay = 200 * time.Millisecond // many read before the first has written
		replicas, end := crowd(t, api, 20, counting(20))
		defer end()
		idle(time.Minute)
		lost, terms := 0.0, 0.0
		for _, r := range replicas {
			lost += testutil.ToFloat64(r.metrics.campaigns.WithLabelValues(campaignLost))
			terms += testutil.ToFloat64(r.metrics.terms)
			if got := testutil.ToFloat64(r.metrics.campaigns.WithLabelValues(campaignFailed)); got != 0 {
				t.Errorf("got %v failed campaigns, want a lost race counted as lost", got)
			}
		}
		if lost == 0 || terms != 1 {
			t.Errorf("got %v lost races and %v terms, want some and 1", lost, terms)
		}
	})
}

func TestReleaseAfterAnEdit(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*coordinationv1.Lease)
		want   string
	}{
		{"of a label", func(l *coordinationv1.Lease) { l.Labels = map[string]string{"x": "y"} }, ""},
		{"of the holder", func(l *coordinationv1.Lease) { *l.Spec.HolderIdentity = "other" }, "other"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newFakeAPI()
				r := start(t, api, "pod-0")
				passes(t, 5*time.Second, func() bool { return testutil.ToFloat64(r.metrics.leading) == 1 })
				api.edit(test.change)
				r.end(t)
				if got := api.holder(); got != test.want {
					t.Errorf("got holder %q, want %q", got, test.want)
				}
			})
		})
	}
}

func TestReleasedLeaseIsTakenWithinASecond(t *testing.T) {
	for _, count := range []int{2, 3, 50, 300} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newFakeAPI()
				replicas, end := crowd(t, api, count, counting(count))
				passes(t, 5*time.Second, func() bool { return api.holder() != "" })
				idle(5 * time.Minute) // phases are random by now
				for range min(count-1, 5) {
					first := api.holder()
					replicas[first].end(t)
					delete(replicas, first)
					if got := passes(t, 3*time.Second, func() bool { return api.holder() != "" }); got > 1500*time.Millisecond {
						t.Errorf("got a new leader after %s, want about a second", got)
					}
				}
				end()
			})
		})
	}
}

func TestExpiredLeaseIsTakenWithinTwoLeaseDurations(t *testing.T) {
	for _, test := range []struct {
		name   string
		count  int
		agents string
		skew   time.Duration
	}{
		{"two replicas, never counted", 2, "", 0},
		{"three replicas", 3, "3", 0},
		{"fifty replicas", 50, "50", 0},
		{"the API server's clock is an hour behind", 3, "3", -time.Hour},
		{"the API server's clock is an hour ahead", 3, "3", time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newFakeAPI()
				api.clockSkew = test.skew
				api.store(heldBy("dead", test.agents))
				replicas, end := crowd(t, api, test.count-1)
				defer end()
				got := passes(t, 30*time.Second, func() bool { return api.holder() != "dead" })
				if got <= 15*time.Second {
					t.Errorf("got a new leader after %s, while the lease was good", got)
				}
				for pod, r := range replicas {
					if failed := testutil.ToFloat64(r.metrics.campaigns.WithLabelValues(campaignFailed)); failed != 0 {
						t.Errorf("%s: got %v refused campaigns, want none", pod, failed)
					}
				}
			})
		})
	}
}

func TestRestartedContainerLeadsOnAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newFakeAPI()
		api.store(heldBy("pod-0", "5000"))
		r := start(t, api, "pod-0")
		defer r.end(t)
		passes(t, 1100*time.Millisecond, func() bool { return testutil.ToFloat64(r.metrics.leading) == 1 })
	})
}

func TestSteadyFollowerIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newFakeAPI()
		leader := start(t, api, "leader", counting(5000))
		passes(t, 5*time.Second, func() bool { return api.holder() == "leader" })
		follower := start(t, api, "follower")
		idle(time.Hour)
		api.set(func(f *fakeAPI) {
			if got := f.requests["follower"]; got > 20 {
				t.Errorf("got %d requests in an hour at 5,000 agents, want at most 20", got)
			}
			if got := f.lease.Annotations[AgentsAnnotation]; got != "5000" {
				t.Errorf("got annotation %q, want 5000", got)
			}
		})
		follower.end(t)
		leader.end(t)
	})
}

// TestUnwritableLease: a vacant Lease that nobody may write is the worst case
// for the API server. Each look may cost one read and one write more, no loop.
func TestUnwritableLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newFakeAPI()
		api.readOnly = true
		api.store(heldBy("", "100"))
		replicas, end := crowd(t, api, 100)
		idle(10 * time.Minute)
		total := 0
		api.set(func(f *fakeAPI) {
			for pod := range replicas {
				total += f.requests[pod]
			}
		})
		if got := float64(total) / 600; got > 32 {
			t.Errorf("got %.1f requests a second, want at most 3 for each of 10 looks", got)
		}
		end()
	})
}

func TestShutdownEndsTasksBeforeReleasing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newFakeAPI()
		var atEnd string
		r := start(t, api, "pod-0", running(&stubTask{name: "slow", keys: []string{"k"},
			sync: func(ctx context.Context, _ string) (time.Duration, error) {
				<-ctx.Done()
				time.Sleep(5 * time.Second)
				atEnd = api.holder()
				return 0, ctx.Err()
			}}))
		passes(t, 5*time.Second, func() bool { return testutil.ToFloat64(r.metrics.leading) == 1 })
		idle(30 * time.Second)
		r.end(t)
		if atEnd != "pod-0" {
			t.Errorf("when the task ended the lease named %q, want pod-0", atEnd)
		}
		if got := api.holder(); got != "" {
			t.Errorf("after the shutdown the lease names %q, want nobody", got)
		}
		if got := testutil.ToFloat64(r.metrics.errors.WithLabelValues("slow")); got != 0 {
			t.Errorf("got %v errors counted for a cancelled Sync, want none", got)
		}
	})
}

func TestTaskThatOutlivesItsLease(t *testing.T) {
	for _, test := range []struct {
		name string
		lose func(*fakeAPI, *replica)
	}{
		{"on shutdown", func(_ *fakeAPI, r *replica) { r.stop() }},
		{"on losing the lease", func(api *fakeAPI, _ *replica) { api.set(func(f *fakeAPI) { f.down = true }) }},
		{"on being deposed", func(api *fakeAPI, _ *replica) {
			api.edit(func(l *coordinationv1.Lease) { *l.Spec.HolderIdentity = "other" })
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newFakeAPI()
				hang := make(chan struct{})
				r := start(t, api, "pod-0", running(&stubTask{name: "deaf", keys: []string{"k"},
					sync: func(context.Context, string) (time.Duration, error) { <-hang; return 0, nil }}))
				passes(t, 5*time.Second, func() bool { return testutil.ToFloat64(r.metrics.leading) == 1 })
				api.set(func(f *fakeAPI) { f.writes = nil })
				begin := time.Now()
				test.lose(api, r)
				if err := <-r.result; !errors.Is(err, ErrOverrun) {
					t.Errorf("got %v, want ErrOverrun", err)
				}
				if got := time.Since(begin); got > 16*time.Second {
					t.Errorf("got the error after %s, want it within a lease duration", got)
				}
				api.set(func(f *fakeAPI) {
					if slices.Contains(f.writes, "") {
						t.Error("the lease was released while a task ran")
					}
				})
				close(hang)
			})
		})
	}
}

func TestLostLeaseEndsTasksBeforeItCanBeTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newFakeAPI()
		var cancelled time.Time
		r := start(t, api, "pod-0", running(&stubTask{name: "task", keys: []string{"k"},
			sync: func(ctx context.Context, _ string) (time.Duration, error) {
				<-ctx.Done()
				cancelled = time.Now()
				return 0, ctx.Err()
			}}), func(o *Options) { o.SyncTimeout = time.Hour })
		passes(t, 5*time.Second, func() bool { return testutil.ToFloat64(r.metrics.leading) == 1 })
		idle(time.Minute)
		api.set(func(f *fakeAPI) { f.down = true })
		passes(t, 15*time.Second, func() bool { return testutil.ToFloat64(r.metrics.leading) == 0 })
		if got := cancelled.Sub(stamp(api.lease)); got > 15*time.Second {
			t.Errorf("got tasks cancelled %s after the last renewal, want less than 15 s", got)
		}
		api.set(func(f *fakeAPI) { f.down = false })
		passes(t, 30*time.Second, func() bool { return testutil.ToFloat64(r.metrics.leading) == 1 })
		if got := testutil.ToFloat64(r.metrics.terms); got != 2 {
			t.Errorf("got %v terms, want 2", got)
		}
		r.end(t)
	})
}

func TestDeposedLeaderStopsAtTheNextRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newFakeAPI()
		r := start(t, api, "pod-0")
		defer r.end(t)
		passes(t, 5*time.Second, func() bool { return testutil.ToFloat64(r.metrics.leading) == 1 })
		api.edit(func(l *coordinationv1.Lease) { *l.Spec.HolderIdentity = "other" })
		passes(t, 2500*time.Millisecond, func() bool { return testutil.ToFloat64(r.metrics.leading) == 0 })
	})
}

func TestAdministratorsMetadataIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newFakeAPI()
		r := start(t, api, "pod-0", counting(7))
		defer r.end(t)
		passes(t, 5*time.Second, func() bool { return api.holder() == "pod-0" })
		api.edit(func(l *coordinationv1.Lease) {
			l.Labels = map[string]string{"team": "infra"}
			metav1.SetMetaDataAnnotation(&l.ObjectMeta, "note", "hands off")
		})
		idle(10 * time.Second)
		api.set(func(f *fakeAPI) {
			got := fmt.Sprint(f.lease.Labels, f.lease.Annotations)
			if want := "map[team:infra] map[chandler.dev/agents:7 note:hands off]"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	})
}

func TestTermThatCannotBeginIsHandedOn(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(*fakeAPI, *Options)
	}{
		{"no token", func(f *fakeAPI, _ *Options) { f.noTokens = true }},
		{"tasks cannot be built", func(_ *fakeAPI, o *Options) {
			o.Tasks = func(Term) ([]Task, error) { return nil, errors.New("no such region") }
		}},
		{"two tasks of one name", func(_ *fakeAPI, o *Options) {
			running(&stubTask{name: "a"}, &stubTask{name: "a"})(o)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newFakeAPI()
				_, end := crowd(t, api, 2, func(o *Options) { test.spoil(api, o) })
				idle(10 * time.Minute)
				taken := map[string]int{}
				api.set(func(f *fakeAPI) {
					for _, holder := range f.writes {
						taken[holder]++
					}
				})
				if taken["pod-0"] == 0 || taken["pod-1"] == 0 {
					t.Errorf("got terms %v, want both replicas to try", taken)
				}
				if got := taken[""]; got > 45 {
					t.Errorf("got %d releases in ten minutes, want a pause between them", got)
				}
				end()
			})
		})
	}
}
