package pullsecrets

import (
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"

	"github.com/chandler-k8s/chandler/leader"
)

// Reasons of Events, for users to search by.
const (
	reasonLabel   = "PullSecretLabelIgnored"
	reasonForeign = "PullSecretForeign"
	reasonToken   = "RegistryTokenFailed"
	reasonRegion  = "RegistryRegionDiffers"
	reasonAccount = "ServiceAccountNotChanged"

	eventAction = "RenewPullSecret"
	// maxNote is the API server's limit of an Event's note.
	maxNote = 1000

	// eventInterval is when a problem that lasts is told again: API servers keep
	// an Event for an hour.
	eventInterval = 45 * time.Minute
	// remindInterval and remindMost spread what is told again: the leader writes
	// an Event a second at most.
	remindInterval = time.Minute
	remindMost     = 20
)

// report tells each problem when it appears and every 45 minutes while it lasts.
type report struct {
	events events.EventRecorder
	log    *slog.Logger

	mu   sync.Mutex
	told map[string]*problem // by what it is about
}

type problem struct {
	regarding    *corev1.ObjectReference
	reason, text string
	told         time.Time
}

func newReport(term leader.Term) *report {
	return &report{events: term.Events, log: term.Log.With("task", Name), told: map[string]*problem{}}
}

// warn tells users by an Event and operators by the log.
func (r *report) warn(about string, regarding *corev1.ObjectReference, reason, text string) {
	if r.event(about, regarding, reason, text) {
		r.log.Warn("pull secret needs attention", "namespace", regarding.Namespace, "reason", reason, "problem", text)
	}
}

// event tells users by an Event and reports whether it was news.
func (r *report) event(about string, regarding *corev1.ObjectReference, reason, text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.told[about]; known != nil && known.text == text {
		return false
	}
	r.told[about] = &problem{regarding: regarding, reason: reason, text: text}
	r.tell(r.told[about])
	return true
}

// tell writes the Event. The caller holds mu.
func (r *report) tell(p *problem) {
	p.told = time.Now()
	r.events.Eventf(p.regarding, nil, corev1.EventTypeWarning, p.reason, eventAction, "%s", strings.ToValidUTF8(p.text[:min(len(p.text), maxNote)], ""))
}

// remind tells again what was told long ago and lasts, a part of it at a time.
func (r *report) remind() {
	r.mu.Lock()
	defer r.mu.Unlock()
	reminded := 0
	for _, p := range r.told {
		if reminded < remindMost && time.Since(p.told) >= eventInterval {
			r.tell(p)
			reminded++
		}
	}
}

// clear forgets a problem, so that it is told again should it come back.
func (r *report) clear(about string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.told, about)
}

// namespaceReference names a namespace. The Event goes into it, where those who
// may read nothing but their namespace can see it.
func namespaceReference(name string) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Name: name, Namespace: name}
}

func keysReference(namespace, name string) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Secret", Name: name, Namespace: namespace}
}

// keysOrNamespace names the Secret with a registry's keys, or the host namespace
// if there is none.
func (t *Task) keysOrNamespace(host string) *corev1.ObjectReference {
	if _, err := t.keys.Get(t.keysName(host)); err != nil {
		return namespaceReference(t.opts.HostNamespace)
	}
	return keysReference(t.opts.HostNamespace, t.keysName(host))
}
