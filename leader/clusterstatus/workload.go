package clusterstatus

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// progressDeadlineExceeded is the reason that the Deployment controller gives:
// k8s.io/kubernetes/pkg/controller/deployment/util.TimedOutReason.
const progressDeadlineExceeded = "ProgressDeadlineExceeded"

// rolledOut is the reason that it gives once every pod is of the newest spec, and
// from then on: its NewRSAvailableReason.
const rolledOut = "NewReplicaSetAvailable"

// workload is all that is kept of an object: what it is judged by. Of its metadata
// there are name, namespace, UID, resource version, generation and deletion.
type workload struct {
	metav1.ObjectMeta

	observed int64 // the generation that the numbers are about; zero before any
	desired  int
	existing int // pods that there are, of whatever generation
	updated  int // of these, the ones of the newest
	ready    int // of these, the ready ones of whatever generation
	stalled  bool
	// replacing: between the old pods, all of which go first, and the new ones.
	replacing bool

	run run
}

// run is what is known of a Job's or CronJob's runs.
type run struct {
	active    bool
	began     time.Time // creation of the Job; last time that the CronJob was due
	succeeded time.Time // zero if never
	failed    time.Time // of a Job; zero if it has not
	why       string    // it failed
}

// trim is the informers' transform. Objects of other types stay as they are: it
// may be called twice.
func trim(obj any) (any, error) {
	switch o := obj.(type) {
	case *appsv1.Deployment:
		w := kept(&o.ObjectMeta)
		w.observed, w.desired = o.Status.ObservedGeneration, replicas(o.Spec.Replicas)
		w.existing, w.updated, w.ready = int(o.Status.Replicas), int(o.Status.UpdatedReplicas), int(o.Status.ReadyReplicas)
		w.stalled, w.replacing = rollout(o)
		return w, nil
	case *appsv1.StatefulSet:
		w := kept(&o.ObjectMeta)
		w.observed, w.desired = o.Status.ObservedGeneration, replicas(o.Spec.Replicas)
		w.existing, w.updated, w.ready = int(o.Status.Replicas), int(o.Status.UpdatedReplicas), int(o.Status.ReadyReplicas)
		return w, nil
	case *appsv1.DaemonSet:
		w := kept(&o.ObjectMeta)
		w.observed, w.desired = o.Status.ObservedGeneration, int(o.Status.DesiredNumberScheduled)
		w.existing, w.updated, w.ready = int(o.Status.CurrentNumberScheduled), int(o.Status.UpdatedNumberScheduled), int(o.Status.NumberReady)
		return w, nil
	case *batchv1.Job:
		w := kept(&o.ObjectMeta)
		w.run = runOfJob(o)
		return w, nil
	case *batchv1.CronJob:
		w := kept(&o.ObjectMeta)
		w.run.active = len(o.Status.Active) > 0
		w.run.began, w.run.succeeded = at(o.Status.LastScheduleTime), at(o.Status.LastSuccessfulTime)
		return w, nil
	}
	return obj, nil
}

// rollout reads a Deployment's conditions. One that may not make pods is not replacing
// them, whatever its progress.
func rollout(o *appsv1.Deployment) (stalled, replacing bool) {
	refused := false
	for _, c := range o.Status.Conditions {
		switch c.Type {
		case appsv1.DeploymentProgressing:
			stalled = c.Status == corev1.ConditionFalse && c.Reason == progressDeadlineExceeded
			replacing = c.Status == corev1.ConditionTrue && c.Reason != rolledOut
		case appsv1.DeploymentReplicaFailure:
			refused = c.Status == corev1.ConditionTrue
		}
	}
	return stalled, replacing && !refused && o.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType
}

func kept(from *metav1.ObjectMeta) *workload {
	return &workload{ObjectMeta: metav1.ObjectMeta{
		Name: from.Name, Namespace: from.Namespace, UID: from.UID, ResourceVersion: from.ResourceVersion,
		Generation: from.Generation, DeletionTimestamp: from.DeletionTimestamp,
	}}
}

// replicas of a spec: absent means one, though the API server fills it in.
func replicas(n *int32) int {
	if n == nil {
		return 1
	}
	return int(*n)
}

func runOfJob(o *batchv1.Job) run {
	r := run{began: o.CreationTimestamp.Time, active: o.Status.Active > 0}
	for _, c := range o.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Type {
		case batchv1.JobComplete:
			r.succeeded = c.LastTransitionTime.Time
			if o.Status.CompletionTime != nil {
				r.succeeded = o.Status.CompletionTime.Time
			}
		case batchv1.JobFailed:
			r.failed, r.why = c.LastTransitionTime.Time, c.Reason
		}
	}
	return r
}

func at(t *metav1.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}
