package leader

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	eventsclient "k8s.io/client-go/kubernetes/typed/events/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/reference"
	"k8s.io/client-go/util/flowcontrol"
)

const (
	// A burst covers one round of trouble, such as every registry failing.
	eventBurst     = 25
	eventPerSecond = 1
	eventQueue     = 2 * eventBurst

	// repeatInterval is how long an Event stands for others that say the same.
	// API servers keep one for an hour.
	repeatInterval = 45 * time.Minute
	maxRepeats     = 1000 // remembered; beyond that repetitions are written
)

// recorder writes Events by create alone: client-go's recorder patches those that
// repeat, and whoever may patch Events can read everybody's. It writes what says
// the same about the same object once in 45 minutes.
type recorder struct {
	client   eventsclient.EventsV1Interface
	instance string
	limit    flowcontrol.RateLimiter
	dropped  func()
	log      *slog.Logger
	queue    chan *eventsv1.Event
	done     chan struct{}

	mu     sync.Mutex
	closed bool
	told   map[told]time.Time
}

// told identifies what an Event says.
type told struct {
	regarding                     corev1.ObjectReference
	kind, reason, action, message string
}

// NewRecorder returns the recorder of Term.Events, for a task's tests too. It
// writes through client, in the name of the pod instance, until ctx ends or stop is
// called, which waits for the request under way. dropped is told of every Event
// that is beyond the limit.
func NewRecorder(ctx context.Context, client eventsclient.EventsV1Interface, instance string, dropped func(), log *slog.Logger) (to events.EventRecorder, stop func()) {
	r := &recorder{
		client:   client,
		instance: instance,
		limit:    flowcontrol.NewTokenBucketRateLimiter(eventPerSecond, eventBurst),
		dropped:  dropped,
		log:      log,
		queue:    make(chan *eventsv1.Event, eventQueue),
		done:     make(chan struct{}),
		told:     map[told]time.Time{},
	}
	go r.write(ctx)
	return r, r.stop
}

// Eventf implements events.EventRecorder. It does not block.
func (r *recorder) Eventf(regarding, related runtime.Object, eventtype, reason, action, note string, args ...any) {
	about, err := reference.GetReference(scheme.Scheme, regarding)
	if err != nil {
		r.log.Warn("event about an unknown kind of object", "reason", reason, "err", err)
		return
	}
	event := r.event(about, eventtype, reason, action, fmt.Sprintf(note, args...))
	if related != nil {
		event.Related, err = reference.GetReference(scheme.Scheme, related)
		if err != nil {
			r.log.Warn("event related to an unknown kind of object", "reason", reason, "err", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	said := told{*about, eventtype, reason, action, event.Note}
	said.regarding.ResourceVersion = ""
	if at, ok := r.told[said]; r.closed || (ok && time.Since(at) < repeatInterval) {
		return
	}
	if !r.limit.TryAccept() {
		r.dropped()
		return
	}
	select {
	case r.queue <- event:
		r.remember(said)
	default:
		r.dropped()
	}
}

// remember keeps what was told from being told again soon. The caller holds mu.
func (r *recorder) remember(said told) {
	if len(r.told) >= maxRepeats {
		for old, at := range r.told {
			if time.Since(at) >= repeatInterval {
				delete(r.told, old)
			}
		}
	}
	if len(r.told) < maxRepeats {
		r.told[said] = time.Now()
	}
}

func (r *recorder) event(about *corev1.ObjectReference, eventtype, reason, action, note string) *eventsv1.Event {
	namespace := about.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault // where Events about what is in no namespace go
	}
	return &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{GenerateName: FieldManager + "-", Namespace: namespace},
		EventTime:           metav1.NowMicro(),
		ReportingController: FieldManager,
		ReportingInstance:   r.instance,
		Regarding:           *about,
		Type:                eventtype,
		Reason:              reason,
		Action:              action,
		Note:                note,
	}
}

// write sends what is queued until ctx ends or the queue is closed. An Event that
// is refused is logged, not tried again: what lasts is told again.
func (r *recorder) write(ctx context.Context) {
	defer close(r.done)
	for {
		select {
		case <-ctx.Done():
			return
		case event, more := <-r.queue:
			if !more {
				return
			}
			sending, cancel := context.WithTimeout(ctx, askTimeout)
			_, err := r.client.Events(event.Namespace).Create(sending, event, metav1.CreateOptions{FieldManager: FieldManager})
			cancel()
			if err != nil && ctx.Err() == nil {
				r.log.Warn("write an event", "namespace", event.Namespace, "reason", event.Reason, "err", err)
			}
		}
	}
}

func (r *recorder) stop() {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.queue)
	}
	r.mu.Unlock()
	<-r.done
}
