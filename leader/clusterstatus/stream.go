package clusterstatus

import (
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// reopening is how long a watch may be closed before what it showed is out of
	// date. The API server ends each after 5 to 10 minutes, and the next opens at
	// once.
	reopening = 10 * time.Second
	// silence is how long an open watch may say nothing once it has sent bookmarks.
	// The API server sends one a minute.
	silence = 3 * time.Minute
	// settling is how long a list that replaces an earlier one may take from the
	// reflector into the store, which nothing tells of, and so may the events of the
	// time for which a watch was closed.
	settling = time.Second
)

// stream looks on while a reflector opens one watch after the other.
type stream struct {
	mu      sync.Mutex
	current *following // the open watch; nil if none is
	heard   time.Time  // last sign of an open watch; zero before the first
	marks   bool       // periodic bookmarks have come
	refused error      // why the last attempt to list or watch failed; nil after a success
	listing bool       // a list by watch has begun and is not complete
	lists   int        // that were complete
	listed  time.Time  // when the last was
	resumed time.Time  // when a watch last opened that had been closed for too long
}

// doubt says why what the reflector has stored means nothing now: the target is
// forbidden to us, or nobody knows. It is nil if it does mean something.
func (s *stream) doubt(synced bool, now time.Time) *verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	closed := s.current == nil
	switch {
	case closed && apierrors.IsForbidden(s.refused):
		return &verdict{state: forbidden, reason: s.refused.Error()}
	case !synced && s.refused != nil:
		return &verdict{state: unknown, reason: s.refused.Error()}
	case !synced:
		return &verdict{state: unknown, reason: "the API server has not answered yet"}
	case closed && s.outOfDate(now):
		return &verdict{state: unknown, reason: "its watch has ended: " + text(s.refused)}
	case s.listing || s.lists > 1 && now.Sub(s.listed) < settling:
		// Until then the store has what the list before has shown.
		return &verdict{state: unknown, reason: "it is being listed anew"}
	case now.Sub(s.resumed) < settling:
		return &verdict{state: unknown, reason: "its watch has only just opened again"}
	case s.silent(now):
		return &verdict{state: unknown, reason: "its watch has fallen silent"}
	}
	return nil
}

// silent reports whether bookmarks stay away. The caller holds mu.
func (s *stream) silent(now time.Time) bool { return s.marks && now.Sub(s.heard) > silence }

// outOfDate reports whether what a closed watch has shown counts no more. The caller
// holds mu.
func (s *stream) outOfDate(now time.Time) bool {
	return s.refused != nil || now.Sub(s.heard) > reopening
}

func text(err error) string {
	if err == nil {
		return "no reason given"
	}
	return err.Error()
}

// refuse notes that a list or watch failed.
func (s *stream) refuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = err
}

// list notes that a list is complete. The caller holds mu.
func (s *stream) list() {
	s.listing, s.listed = false, time.Now()
	s.lists++
}

// follow returns a watch that passes events on and notes each. lists tells that it
// begins with everything there is, and then a bookmark.
func (s *stream) follow(events watch.Interface, lists bool) watch.Interface {
	f := &following{Interface: events, events: make(chan watch.Event), stopped: make(chan struct{})}
	s.mu.Lock()
	now := time.Now()
	if !s.heard.IsZero() && s.current == nil && s.outOfDate(now) {
		s.resumed = now
	}
	s.current, s.heard, s.refused = f, now, nil
	s.listing = s.listing || lists
	s.mu.Unlock()
	go func() {
		defer close(f.events)
		defer s.ended(f)
		for event := range events.ResultChan() {
			s.hear(event)
			select {
			case f.events <- event:
			case <-f.stopped:
				return
			}
		}
	}()
	return f
}

func (s *stream) hear(event watch.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = time.Now()
	if mark, ok := event.Object.(metav1.Object); ok && event.Type == watch.Bookmark {
		// The one that ends the first events does not promise more.
		if mark.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "" {
			s.list()
		} else {
			s.marks = true
		}
	}
	if event.Type == watch.Error {
		s.refused = apierrors.FromObject(event.Object)
	}
}

func (s *stream) ended(f *following) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != f {
		return
	}
	s.current = nil
	if now := time.Now(); !s.silent(now) {
		s.heard = now
	}
}

// following is one watch.
type following struct {
	watch.Interface // the API's

	events  chan watch.Event
	stopped chan struct{}
	once    sync.Once
}

// ResultChan implements watch.Interface.
func (f *following) ResultChan() <-chan watch.Event { return f.events }

// Stop implements watch.Interface.
func (f *following) Stop() {
	f.once.Do(func() { close(f.stopped) })
	f.Interface.Stop()
}
