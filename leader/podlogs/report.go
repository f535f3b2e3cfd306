package podlogs

import (
	"log/slog"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"

	"github.com/chandler-k8s/chandler/leader"
)

// Reasons of Events, for users to search by.
const (
	reasonForeign = "PodLogRoleForeign"
	reasonTaken   = "PodLogRoleNameTaken"
	reasonFull    = "PodLogRoleFull"
	reasonIgnored = "PodLogLabelIgnored"

	eventAction = "GrantPodLogs"
	// maxNote is the API server's limit of an Event's note.
	maxNote = 1000
)

// report tells each problem once, for as long as it stays the same, to users by an
// Event and to operators by the log.
type report struct {
	events events.EventRecorder
	log    *slog.Logger

	mu   sync.Mutex
	told map[string]string // text by what it is about
}

func newReport(term leader.Term) *report {
	return &report{events: term.Events, log: term.Log.With("task", Name), told: map[string]string{}}
}

func (r *report) warn(about string, regarding *corev1.ObjectReference, reason, text string) {
	r.mu.Lock()
	news := r.told[about] != text
	r.told[about] = text
	r.mu.Unlock()
	if !news {
		return
	}
	r.events.Eventf(regarding, nil, corev1.EventTypeWarning, reason, eventAction, "%s", strings.ToValidUTF8(text[:min(len(text), maxNote)], ""))
	r.log.Warn("access to pod logs needs attention", "namespace", regarding.Namespace, "kind", regarding.Kind,
		"name", regarding.Name, "reason", reason, "problem", text)
}

// clear forgets a problem, so that it is told again should it come back.
func (r *report) clear(about string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.told, about)
}

func reference(namespace string, w workload) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: apiVersion(w.kind), Kind: w.kind, Namespace: namespace, Name: w.name, UID: w.uid}
}

// tellRivals tells those workloads that get no Role that another has its name.
func (t *Task) tellRivals(key string, p plan) {
	namespace, _, _ := strings.Cut(key, "/")
	for _, kind := range kinds() {
		about := "taken " + kind + " " + key
		at := slices.IndexFunc(p.losers, func(loser workload) bool { return loser.kind == kind })
		if at < 0 {
			t.report.clear(about)
			continue
		}
		loser := p.losers[at]
		t.report.warn(about, reference(namespace, loser), reasonTaken,
			"Role "+prefix+loser.name+" belongs to "+p.owner.kind+" "+p.owner.name+"; "+kind+" "+loser.name+" needs another name to get one")
	}
}
