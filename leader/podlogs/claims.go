package podlogs

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"
)

// Kinds of workloads and of what stands between one and its pods.
const (
	deployment  = "Deployment"
	statefulSet = "StatefulSet"
	daemonSet   = "DaemonSet"
	job         = "Job"
	cronJob     = "CronJob"
	replicaSet  = "ReplicaSet"
)

// kinds are those that a pod can belong to in the end.
func kinds() []string { return []string{deployment, statefulSet, daemonSet, job, cronJob} }

// workload is what a pod belongs to in the end.
type workload struct {
	kind, name string
	uid        types.UID
}

// apiVersion is empty for a kind that is not known.
func apiVersion(kind string) string {
	switch kind {
	case deployment, statefulSet, daemonSet, replicaSet:
		return "apps/v1"
	case job, cronJob:
		return "batch/v1"
	}
	return ""
}

// roleKey is the key of the Role of a workload: those of one name share it.
func roleKey(namespace, name string) string { return namespace + "/" + name }

// uidKey is the key of pods by what controls them. It is bound to the namespace: a
// reference to what is elsewhere must lead nowhere. The kind keeps a reference to a
// Job from leading to a ReplicaSet.
func uidKey(namespace, kind string, uid types.UID) string {
	return namespace + "/" + kind + "/" + string(uid)
}

// referred returns what a reference points to if it is of one of the kinds. A name
// that could not be a Role's is as good as none: references are not validated.
func referred(ref *metav1.OwnerReference, kinds ...string) (workload, bool) {
	if ref == nil || !slices.Contains(kinds, ref.Kind) {
		return workload{}, false
	}
	version, err := schema.ParseGroupVersion(ref.APIVersion)
	group, _, _ := strings.Cut(apiVersion(ref.Kind), "/")
	if err != nil || version.Group != group || len(validation.IsDNS1123Subdomain(prefix+ref.Name)) > 0 {
		return workload{}, false
	}
	return workload{ref.Kind, ref.Name, ref.UID}, true
}

func controller(obj metav1.Object, kinds ...string) (workload, bool) {
	return referred(metav1.GetControllerOfNoCopy(obj), kinds...)
}

// workloadOfReplicaSet returns the Deployment that a ReplicaSet belongs to.
func workloadOfReplicaSet(rs metav1.Object) (workload, bool) { return controller(rs, deployment) }

// workloadOfJob returns the CronJob that a Job belongs to, or the Job itself.
func workloadOfJob(j metav1.Object) (workload, bool) {
	if metav1.GetControllerOfNoCopy(j) != nil {
		return controller(j, cronJob)
	}
	return itself(job, j)
}

// itself returns an object of one of the kinds as a workload.
func itself(kind string, object metav1.Object) (workload, bool) {
	return referred(&metav1.OwnerReference{APIVersion: apiVersion(kind), Kind: kind, Name: object.GetName(), UID: object.GetUID()}, kind)
}

// indexPods is the index of pods by the UID of their ReplicaSet or Job, or by the
// key of their workload.
func indexPods(obj any) ([]string, error) {
	pod, ok := obj.(metav1.Object)
	if !ok {
		return nil, nil
	}
	if owner, ok := controller(pod, replicaSet, job); ok {
		return []string{uidKey(pod.GetNamespace(), owner.kind, owner.uid)}, nil
	}
	if owner, ok := controller(pod, statefulSet, daemonSet); ok {
		return []string{roleKey(pod.GetNamespace(), owner.name)}, nil
	}
	return nil, nil
}

// indexBetween is the index of ReplicaSets or Jobs by the key of their workload.
func indexBetween(workloadOf func(metav1.Object) (workload, bool)) cache.IndexFunc {
	return func(obj any) ([]string, error) {
		between, ok := obj.(metav1.Object)
		if !ok {
			return nil, nil
		}
		if owner, ok := workloadOf(between); ok {
			return []string{roleKey(between.GetNamespace(), owner.name)}, nil
		}
		return nil, nil
	}
}

// slim keeps of an object what its claims need: there are tens of thousands.
func slim(obj any) (any, error) {
	object, ok := obj.(*metav1.PartialObjectMetadata)
	if !ok {
		return obj, nil
	}
	kept := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: object.Namespace, Name: object.Name, UID: object.UID,
		ResourceVersion: object.ResourceVersion, DeletionTimestamp: object.DeletionTimestamp,
	}}
	if ref := metav1.GetControllerOf(object); ref != nil {
		kept.OwnerReferences = []metav1.OwnerReference{*ref}
	}
	return kept, nil
}

// members returns the names of the pods of each workload that shares a key.
func (t *Task) members(key string) map[workload][]string {
	namespace, _, _ := strings.Cut(key, "/")
	found := map[workload][]string{}
	for _, pod := range indexed(t.pods, key) {
		if owner, ok := controller(pod, statefulSet, daemonSet); ok {
			found[owner] = append(found[owner], pod.GetName())
		}
	}
	for _, between := range []struct {
		kind       string
		indexer    cache.Indexer
		workloadOf func(metav1.Object) (workload, bool)
	}{{replicaSet, t.replicaSets, workloadOfReplicaSet}, {job, t.jobs, workloadOfJob}} {
		for _, object := range indexed(between.indexer, key) {
			owner, ok := between.workloadOf(object)
			if !ok {
				continue
			}
			for _, pod := range indexed(t.pods, uidKey(namespace, between.kind, object.GetUID())) {
				found[owner] = append(found[owner], pod.GetName())
			}
		}
	}
	for owner, names := range found {
		slices.Sort(names)
		found[owner] = slices.Compact(names)
	}
	return found
}

// claim returns the key of the Role that a pod belongs to, or else what keeps it
// from having one.
func (t *Task) claim(pod metav1.Object) (key, problem string) {
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil {
		return "", "it has no controller; only pods of a Deployment, StatefulSet, DaemonSet, Job or CronJob get a Role"
	}
	if owner, ok := referred(ref, statefulSet, daemonSet); ok {
		return roleKey(pod.GetNamespace(), owner.name), ""
	}
	between, ok := referred(ref, replicaSet, job)
	if !ok {
		return "", "its controller " + ref.Kind + " " + ref.Name + " (" + ref.APIVersion + ") is of a kind, or has a name, that gets no Role"
	}
	indexer, workloadOf := t.replicaSets, workloadOfReplicaSet
	if between.kind == job {
		indexer, workloadOf = t.jobs, workloadOfJob
	}
	object := get(indexer, pod.GetNamespace()+"/"+between.name)
	if object == nil || object.GetUID() != between.uid {
		return "", "its " + between.kind + " " + between.name + " lacks the label " + selection + "; put it into the pod template, and for a CronJob into spec.jobTemplate.metadata too"
	}
	owner, ok := workloadOf(object)
	if !ok {
		return "", "its " + between.kind + " " + between.name + " belongs to no Deployment or CronJob"
	}
	return roleKey(pod.GetNamespace(), owner.name), ""
}

func indexed(indexer cache.Indexer, value string) []metav1.Object {
	objects, err := indexer.ByIndex(byOwner, value)
	if err != nil {
		return nil // only an index that does not exist is an error
	}
	found := make([]metav1.Object, 0, len(objects))
	for _, obj := range objects {
		if object, ok := obj.(metav1.Object); ok {
			found = append(found, object)
		}
	}
	return found
}

// get returns nil if there is no such object.
func get(indexer cache.Indexer, key string) *metav1.PartialObjectMetadata {
	obj, exists, err := indexer.GetByKey(key)
	if err != nil || !exists {
		return nil // the store never returns an error
	}
	object, _ := obj.(*metav1.PartialObjectMetadata)
	return object
}
