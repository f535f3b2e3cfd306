package podlogs

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// lag is how long a pod belongs to nothing before it is reported: its ReplicaSet or
// Job comes by a watch of its own, and goes before it when a workload is deleted.
const lag = 10 * time.Second

func podKey(pod metav1.Object) string { return pod.GetNamespace() + "/pod/" + pod.GetName() }

// syncStray reports a labelled pod that belongs to no workload, once for each of
// its kind: a controller may make thousands.
func (t *Task) syncStray(key, pod string) time.Duration {
	object := get(t.pods, pod)
	problem := ""
	if object != nil && object.DeletionTimestamp == nil {
		_, problem = t.claim(object)
	}
	if problem == "" {
		t.mu.Lock()
		delete(t.stray, key)
		t.mu.Unlock()
		return 0
	}
	if wait := lag - time.Since(t.straySince(key)); wait > 0 {
		return wait
	}
	about := object.UID
	if ref := metav1.GetControllerOfNoCopy(object); ref != nil {
		about = ref.UID
	}
	t.report.warn("stray "+string(about), &corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: object.Namespace, Name: object.Name, UID: object.UID,
	}, reasonIgnored, "its logs are not granted to anybody by chandler: "+problem)
	return 0
}

// straySince returns when a pod was first found to belong to nothing.
func (t *Task) straySince(key string) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	since, known := t.stray[key]
	if !known {
		since = time.Now()
		t.stray[key] = since
	}
	return since
}
