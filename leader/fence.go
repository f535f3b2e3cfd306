package leader

import (
	"errors"
	"net/http"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ErrFenced is wrapped by the error of every write that the leader's client
// refuses because the Lease may by now be another's. Reads are never refused.
var ErrFenced = errors.New("write refused: the lease was not renewed in time")

// fence bars writes once the last renewal of a term is too old. A closed fence
// never opens again; each term has its own.
type fence struct {
	lifetime time.Duration // how long one renewal keeps it open
	refused  func()        // counts refused writes

	mu      sync.Mutex
	renewed time.Time // when the last successful renewal was sent; zero before the first
	stamp   time.Time // the renewTime that it wrote
	before  time.Time // the renewTime that the first one replaced; zero if there was none
	told    time.Time // the newest renewTime that a write elsewhere carries; zero if none does
	closed  bool
}

// renew records that a renewal sent at the given time succeeded.
func (f *fence) renew(sent time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.renewed = sent
}

// record keeps the renewTime that a successful renewal wrote, and of the first
// the one that it replaced.
func (f *fence) record(replaced, written *metav1.MicroTime) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stamp.IsZero() && replaced != nil {
		f.before = replaced.Time
	}
	if written != nil {
		f.stamp = written.Time
	}
}

// previous is Term.Previous.
func (f *fence) previous() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.before
}

// vouch is Term.Renewed.
func (f *fence) vouch() (renewTime time.Time, ours bool) {
	ours = f.open()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stamp, ours
}

// tell is Term.Wrote.
func (f *fence) tell(renewTime time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if renewTime.After(f.told) {
		f.told = renewTime
	}
}

// handOver returns the renewTime that a release leaves on the Lease instead of last,
// which must differ: the newest that a write elsewhere carries, be it ours or of a
// predecessor; or, since the API server takes none of long ago, that of a minute ago.
func (f *fence) handOver(last *metav1.MicroTime, now time.Time) *metav1.MicroTime {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := now.Add(-time.Minute)
	for _, used := range []time.Time{f.before, f.told} {
		if used.After(at) {
			at = used
		}
	}
	at = at.Truncate(time.Microsecond) // as the API server keeps it
	if last != nil && at.Equal(last.Truncate(time.Microsecond)) {
		at = at.Add(time.Microsecond)
	}
	return &metav1.MicroTime{Time: at}
}

func (f *fence) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// age returns the time since the last renewal was sent.
func (f *fence) age() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return elapsed(f.renewed, time.Now())
}

func (f *fence) open() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.closed && !f.renewed.IsZero() && elapsed(f.renewed, time.Now()) < f.lifetime
}

// elapsed measures by both clocks and returns the longer time: the monotonic
// clock stands still while a machine is suspended, the wall clock can be set back.
func elapsed(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}

// wrap returns a transport that asks the fence before each write.
func (f *fence) wrap(base http.RoundTripper) http.RoundTripper {
	return &fencedTransport{base: base, fence: f}
}

type fencedTransport struct {
	base  http.RoundTripper
	fence *fence
}

// RoundTrip implements http.RoundTripper.
func (t *fencedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	reads := req.Method == http.MethodGet || req.Method == http.MethodHead
	if reads || t.fence.open() {
		return t.base.RoundTrip(req)
	}
	if req.Body != nil {
		_ = req.Body.Close() // a RoundTripper closes the body; the request fails with a better reason
	}
	t.fence.refused()
	return nil, ErrFenced
}

// WrappedRoundTripper lets client-go reach the transport below.
func (t *fencedTransport) WrappedRoundTripper() http.RoundTripper { return t.base }
