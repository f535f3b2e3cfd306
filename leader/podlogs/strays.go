package podlogs

import (
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// lag is how long a pod belongs to nothing before it is reported: its ReplicaSet or
// Job comes by a watch of its own, and goes before it when a workload is deleted.
const lag = 10 * time.Second

func podKey(pod metav1.Object) string { return pod.GetNamespace() + "/pod/" + pod.GetName() }

// strays are the labelled pods that belong to no workload.
type strays struct {
	mu    sync.Mutex
	byKey map[string]stray
	kin   map[string]map[string]bool // their keys, by controller
}

type stray struct {
	since      time.Time
	controller string // key of it, or of the pod itself if it has none
}

func newStrays() *strays {
	return &strays{byKey: map[string]stray{}, kin: map[string]map[string]bool{}}
}

// add returns since when a pod is known to belong to nothing.
func (s *strays) add(key, controller string) (since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.byKey[key]
	if !ok {
		known = stray{time.Now(), controller}
		s.byKey[key] = known
	}
	if s.kin[controller] == nil {
		s.kin[controller] = map[string]bool{}
	}
	s.kin[controller][key] = true
	return known.since
}

// drop forgets a pod, unless it is one of the controller given, and returns whose it
// was if that was the last.
func (s *strays) drop(key, except string) (controller string, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.byKey[key]
	if !ok || known.controller == except {
		return "", false
	}
	delete(s.byKey, key)
	delete(s.kin[known.controller], key)
	if len(s.kin[known.controller]) > 0 {
		return "", false
	}
	delete(s.kin, known.controller)
	return known.controller, true
}

func (s *strays) has(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.byKey[key]
	return ok
}

// of returns the keys of the pods of a controller.
func (s *strays) of(controller string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.kin[controller]))
}

// count returns how many have been for long enough to be reported.
func (s *strays) count() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, known := range s.byKey {
		if time.Since(known.since) >= lag {
			n++
		}
	}
	return n
}

// syncStray reports a labelled pod that belongs to no workload, once for all of one
// controller: it may make thousands.
func (t *Task) syncStray(key, pod string) time.Duration {
	object := get(t.pods, pod)
	problem := ""
	controller := ""
	if object != nil && object.DeletionTimestamp == nil {
		if _, problem = t.claim(object); problem != "" {
			controller = strayOf(object)
		}
	}
	if before, last := t.strays.drop(key, controller); last {
		t.report.clear("stray " + before)
	}
	if problem == "" {
		return 0
	}
	if wait := lag - time.Since(t.strays.add(key, controller)); wait > 0 {
		return wait
	}
	t.report.warn("stray "+controller, &corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: object.Namespace, Name: object.Name, UID: object.UID,
	}, reasonIgnored, "its logs are not granted to anybody by chandler: "+problem)
	return 0
}

// strayOf returns the key of a pod's controller, or else its own.
func strayOf(pod metav1.Object) string {
	if ref := metav1.GetControllerOfNoCopy(pod); ref != nil {
		return uidKey(pod.GetNamespace(), ref.Kind, ref.UID)
	}
	return uidKey(pod.GetNamespace(), "Pod", pod.GetUID())
}
