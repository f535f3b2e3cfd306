package clusterstatus

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// many returns targets of one kind: so many in each of so many namespaces.
func many(kind string, namespaces, each int) []Target {
	var targets []Target
	for i := range namespaces {
		for j := range each {
			targets = append(targets, Target{Kind: kind, Namespace: fmt.Sprint("n", i), Name: fmt.Sprint("w", j)})
		}
	}
	return targets
}

func selectors(n int) []Target {
	var targets []Target
	for i := range n {
		targets = append(targets, Target{Kind: deployment, Namespace: fmt.Sprint("n", i), Selector: "a=b"})
	}
	return targets
}

// TestPlan has its numbers from docs/clusterstatus.md: up to 4 names of a namespace, up
// to 100 watches of a kind.
func TestPlan(t *testing.T) {
	name, namespace, everything := scope{deployment, "n0", "w0", ""}, scope{deployment, "n0", "", ""}, scope{deployment, "", "", ""}
	for _, test := range []struct {
		name    string
		targets []Target
		first   scope
		count   int // of watches
	}{
		{"4 names", many(deployment, 1, 4), name, 4},
		{"the same 4 names twice", append(many(deployment, 1, 4), many(deployment, 1, 4)...), name, 4},
		{"5 names of a namespace", many(deployment, 1, 5), namespace, 1},
		{"5 names of one, 1 of another", append(many(deployment, 2, 1)[1:], many(deployment, 1, 5)...), scope{deployment, "n1", "w0", ""}, 2},
		{"kinds count by themselves", append(many(deployment, 1, 4), many(daemonSet, 1, 4)...), name, 8},
		{"100 watches", many(deployment, 100, 1), name, 100},
		{"101 watches", many(deployment, 101, 1), everything, 1},
		{"100 watches of 4 names each", many(deployment, 25, 4), name, 100},
		{"104 watches of 4 names each", many(deployment, 26, 4), everything, 1},
		{"500 names in 100 namespaces", many(deployment, 100, 5), namespace, 100},
		{"505 names in 101 namespaces", many(deployment, 101, 5), everything, 1},
		{"101 watches of one kind, few of another", append(many(daemonSet, 1, 1), many(deployment, 101, 1)...), scope{daemonSet, "n0", "w0", ""}, 2},
		{"100 names and 100 selectors", append(many(deployment, 100, 1), selectors(100)...), name, 200},
		{"1 name and 100 selectors", append(many(deployment, 1, 1), selectors(100)...), name, 101},
		{"a selector stays", append(selectors(1), many(deployment, 101, 1)...), scope{deployment, "n0", "", "a=b"}, 2},
		{"a selector among 5 names", append(selectors(1), many(deployment, 1, 5)...), scope{deployment, "n0", "", "a=b"}, 2},
		{"a selector is no name", append(many(deployment, 1, 4), selectors(1)...), name, 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := plan(test.targets)
			watches := map[scope]bool{}
			for _, s := range got {
				watches[s] = true
			}
			if got[0] != test.first || len(watches) != test.count || len(got) != len(test.targets) {
				t.Errorf("got %d watches, the first target's %+v; want %d and %+v", len(watches), got[0], test.count, test.first)
			}
		})
	}
}

func TestDoubt(t *testing.T) {
	denied := apierrors.NewForbidden(schema.GroupResource{Resource: "deployments"}, "", errors.New("no"))
	open := &following{}
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, test := range []struct {
		name   string
		stream *stream
		synced bool
		want   state // healthy: no doubt
	}{
		{"just begun", &stream{}, false, unknown},
		{"first answers under way", &stream{current: open, heard: now}, false, unknown},
		{"open", &stream{current: open, heard: ago(time.Second)}, true, healthy},
		{"open, never had bookmarks", &stream{current: open, heard: ago(time.Hour)}, true, healthy},
		{"open, bookmarks came lately", &stream{current: open, heard: ago(2 * time.Minute), marks: true}, true, healthy},
		{"open, bookmarks stay away", &stream{current: open, heard: ago(silence + time.Second), marks: true}, true, unknown},
		{"ended in good order just now", &stream{heard: ago(time.Second)}, true, healthy},
		{"ended in good order, not opened again", &stream{heard: ago(reopening + time.Second)}, true, unknown},
		{"cannot be opened again", &stream{heard: ago(time.Second), refused: errors.New("connection refused")}, true, unknown},
		{"never could be opened", &stream{refused: errors.New("connection refused")}, false, unknown},
		{"forbidden from the start", &stream{refused: denied}, false, forbidden},
		{"forbidden later", &stream{heard: ago(time.Second), refused: denied}, true, forbidden},
		{"forbidden before, open now", &stream{current: open, heard: now}, true, healthy},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := test.stream.doubt(test.synced, now)
			switch {
			case got == nil && test.want != healthy:
				t.Errorf("got no doubt, want %s", test.want)
			case got != nil && (got.state != test.want || got.reason == ""):
				t.Errorf("got %+v, want %s with a reason", *got, test.want)
			}
		})
	}
}

func TestStreamLooksOn(t *testing.T) {
	s, api := &stream{}, watch.NewFake()
	w := s.follow(api, false)
	mark := func(annotations map[string]string) watch.Event {
		return watch.Event{Type: watch.Bookmark, Object: &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Annotations: annotations}}}
	}
	pass := func(event watch.Event) {
		t.Helper()
		go api.Action(event.Type, event.Object)
		if diff := cmp.Diff(<-w.ResultChan(), event); diff != "" {
			t.Errorf("passed on (-got +want):\n%s", diff)
		}
	}
	pass(mark(map[string]string{metav1.InitialEventsAnnotationKey: "true"}))
	if s.marks {
		t.Error("the bookmark that ends the first events counts as a periodic one")
	}
	pass(mark(nil))
	if !s.marks {
		t.Error("a periodic bookmark was not noticed")
	}
	gone := apierrors.NewResourceExpired("too old").ErrStatus
	pass(watch.Event{Type: watch.Error, Object: &gone})
	api.Stop()
	if _, ok := <-w.ResultChan(); ok {
		t.Error("the watch goes on after the API's has ended")
	}
	w.Stop()
	if got := s.doubt(true, time.Now()); got == nil || got.state != unknown {
		t.Errorf("got %+v after an error, want unknown", got)
	}
	again := s.follow(watch.NewFake(), false)
	defer again.Stop()
	if got := s.doubt(true, time.Now().Add(settling)); got != nil {
		t.Errorf("got %+v with a new watch, want no doubt", got)
	}
}

// silent is a stream whose watch fell silent and then ended.
func silent() *stream {
	s := &stream{marks: true, heard: time.Now().Add(-silence - time.Second), current: &following{}}
	s.ended(s.current)
	return s
}

// TestReopenedWatchSettles: what happened while it was closed for long comes after it
// has opened.
func TestReopenedWatchSettles(t *testing.T) {
	for _, test := range []struct {
		name    string
		before  *stream
		settles bool
	}{
		{"the first", &stream{}, false},
		{"the first, after a refusal", &stream{refused: errors.New("connection refused")}, false},
		{"ended in good order just now", &stream{heard: time.Now()}, false},
		{"ended for long", &stream{heard: time.Now().Add(-reopening - time.Second)}, true},
		{"ended after it had fallen silent", silent(), true},
		{"refused meanwhile", &stream{heard: time.Now(), refused: errors.New("connection refused")}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := test.before
			defer s.follow(watch.NewFake(), false).Stop()
			opened := s.heard
			if got := s.doubt(true, opened.Add(settling-time.Millisecond)); (got != nil) != test.settles {
				t.Errorf("at first: got %+v, want doubt: %v", got, test.settles)
			}
			if got := s.doubt(true, opened.Add(settling)); got != nil {
				t.Errorf("then: got %+v, want no doubt", *got)
			}
		})
	}
}
