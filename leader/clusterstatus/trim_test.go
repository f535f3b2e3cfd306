package clusterstatus

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// trimmed is one object and what must be left of it. Every number of a status is
// another, so that no two can be mistaken.
type trimmed struct {
	name   string
	object any
	want   workload
}

var (
	wholeMeta = metav1.ObjectMeta{
		Name: "n", Namespace: "ns", UID: "u", ResourceVersion: "7", Generation: 12, DeletionTimestamp: &metav1.Time{Time: now},
		CreationTimestamp: metav1.NewTime(now.Add(-1)), Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"},
	}
	keptMeta = metav1.ObjectMeta{Name: "n", Namespace: "ns", UID: "u", ResourceVersion: "7", Generation: 12, DeletionTimestamp: &metav1.Time{Time: now}}
	seven    = int32(7)
	then     = metav1.NewTime(now)
)

func trimmedReplicas() []trimmed {
	full := appsv1.DeploymentStatus{
		ObservedGeneration: 11, Replicas: 6, UpdatedReplicas: 5, ReadyReplicas: 4, AvailableReplicas: 3, UnavailableReplicas: 2, TerminatingReplicas: new(int32),
	}
	return []trimmed{
		{
			"Deployment", &appsv1.Deployment{ObjectMeta: wholeMeta, Spec: appsv1.DeploymentSpec{Replicas: &seven}, Status: full},
			workload{observed: 11, desired: 7, existing: 6, updated: 5, ready: 4},
		},
		{"Deployment without replicas", &appsv1.Deployment{ObjectMeta: wholeMeta}, workload{desired: 1}},
		{"Deployment of zero", &appsv1.Deployment{ObjectMeta: wholeMeta, Spec: appsv1.DeploymentSpec{Replicas: new(int32)}}, workload{}},
		{
			"StatefulSet", &appsv1.StatefulSet{ObjectMeta: wholeMeta, Spec: appsv1.StatefulSetSpec{Replicas: &seven}, Status: appsv1.StatefulSetStatus{
				ObservedGeneration: 11, Replicas: 6, UpdatedReplicas: 5, ReadyReplicas: 4, AvailableReplicas: 3, CurrentReplicas: 2,
			}},
			workload{observed: 11, desired: 7, existing: 6, updated: 5, ready: 4},
		},
		{"StatefulSet without replicas", &appsv1.StatefulSet{ObjectMeta: wholeMeta}, workload{desired: 1}},
		{
			"DaemonSet", &appsv1.DaemonSet{ObjectMeta: wholeMeta, Status: appsv1.DaemonSetStatus{
				ObservedGeneration: 11, DesiredNumberScheduled: 7, CurrentNumberScheduled: 6, UpdatedNumberScheduled: 5, NumberReady: 4,
				NumberAvailable: 3, NumberUnavailable: 2, NumberMisscheduled: 1,
			}},
			workload{observed: 11, desired: 7, existing: 6, updated: 5, ready: 4},
		},
		{"DaemonSet of no node", &appsv1.DaemonSet{ObjectMeta: wholeMeta, Status: appsv1.DaemonSetStatus{ObservedGeneration: 12}}, workload{observed: 12}},
	}
}

func trimmedRollouts() []trimmed {
	var all []trimmed
	for _, test := range []struct {
		name               string
		recreate           bool
		kind               appsv1.DeploymentConditionType
		status             corev1.ConditionStatus
		reason             string
		stalled, replacing bool
	}{
		{"past its deadline", false, appsv1.DeploymentProgressing, corev1.ConditionFalse, "ProgressDeadlineExceeded", true, false},
		{"past its deadline no more", false, appsv1.DeploymentProgressing, corev1.ConditionTrue, "ProgressDeadlineExceeded", false, false},
		{"no progress for another reason", false, appsv1.DeploymentProgressing, corev1.ConditionFalse, "ReplicaSetCreateError", false, false},
		{"another condition", true, appsv1.DeploymentAvailable, corev1.ConditionFalse, "ProgressDeadlineExceeded", false, false},
		{"under way", false, appsv1.DeploymentProgressing, corev1.ConditionTrue, "ReplicaSetUpdated", false, false},
		{"replacing", true, appsv1.DeploymentProgressing, corev1.ConditionTrue, "ReplicaSetUpdated", false, true},
		{"replaced", true, appsv1.DeploymentProgressing, corev1.ConditionTrue, "NewReplicaSetAvailable", false, false},
		{"paused while replacing", true, appsv1.DeploymentProgressing, corev1.ConditionUnknown, "DeploymentPaused", false, false},
	} {
		d := &appsv1.Deployment{ObjectMeta: wholeMeta}
		if test.recreate {
			d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
		}
		d.Status.Conditions = []appsv1.DeploymentCondition{{Type: test.kind, Status: test.status, Reason: test.reason}}
		all = append(all, trimmed{"Deployment: " + test.name, d, workload{desired: 1, stalled: test.stalled, replacing: test.replacing}})
	}
	return all
}

func trimmedRuns() []trimmed {
	created := wholeMeta.CreationTimestamp.Time
	job := func(name string, status batchv1.JobStatus, want run) trimmed {
		want.began = created
		return trimmed{"Job: " + name, &batchv1.Job{ObjectMeta: wholeMeta, Status: status}, workload{run: want}}
	}
	condition := func(kind batchv1.JobConditionType, status corev1.ConditionStatus) []batchv1.JobCondition {
		return []batchv1.JobCondition{{Type: kind, Status: status, Reason: "DeadlineExceeded", LastTransitionTime: then}}
	}
	earlier, last := metav1.NewTime(now.Add(-3)), metav1.NewTime(now.Add(-2))
	cronJob := func(name string, status batchv1.CronJobStatus, want run) trimmed {
		return trimmed{"CronJob: " + name, &batchv1.CronJob{ObjectMeta: wholeMeta, Status: status}, workload{run: want}}
	}
	return []trimmed{
		job("new", batchv1.JobStatus{}, run{}),
		job("runs", batchv1.JobStatus{Active: 2, Succeeded: 1, Failed: 1}, run{active: true}),
		job("complete", batchv1.JobStatus{CompletionTime: &earlier, Conditions: condition(batchv1.JobComplete, corev1.ConditionTrue)}, run{succeeded: earlier.Time}),
		job("complete without a time", batchv1.JobStatus{Conditions: condition(batchv1.JobComplete, corev1.ConditionTrue)}, run{succeeded: now}),
		job("complete no more", batchv1.JobStatus{CompletionTime: &earlier, Conditions: condition(batchv1.JobComplete, corev1.ConditionFalse)}, run{}),
		job("failed", batchv1.JobStatus{Conditions: condition(batchv1.JobFailed, corev1.ConditionTrue)}, run{failed: now, why: "DeadlineExceeded"}),
		job("failed no more", batchv1.JobStatus{Conditions: condition(batchv1.JobFailed, corev1.ConditionFalse)}, run{}),
		job("about to fail, pods still run", batchv1.JobStatus{Active: 1, Conditions: condition(batchv1.JobFailureTarget, corev1.ConditionTrue)}, run{active: true}),
		job("suspended", batchv1.JobStatus{Conditions: condition(batchv1.JobSuspended, corev1.ConditionTrue)}, run{}),
		cronJob("new", batchv1.CronJobStatus{}, run{}),
		cronJob("runs", batchv1.CronJobStatus{Active: []corev1.ObjectReference{{}}, LastScheduleTime: &last, LastSuccessfulTime: &earlier},
			run{active: true, began: last.Time, succeeded: earlier.Time}),
		cronJob("between runs", batchv1.CronJobStatus{LastScheduleTime: &earlier, LastSuccessfulTime: &last}, run{began: earlier.Time, succeeded: last.Time}),
	}
}

// TestTrim holds every kind to the fields that a target is judged by.
func TestTrim(t *testing.T) {
	for _, test := range append(append(trimmedReplicas(), trimmedRollouts()...), trimmedRuns()...) {
		t.Run(test.name, func(t *testing.T) {
			got, err := trim(test.object)
			if err != nil {
				t.Fatal(err)
			}
			test.want.ObjectMeta = keptMeta
			if diff := cmp.Diff(got, &test.want, cmp.AllowUnexported(workload{}, run{})); diff != "" {
				t.Errorf("-got +want:\n%s", diff)
			}
			if again, err := trim(got); err != nil || again != got {
				t.Errorf("trimmed again: got %v, %v", again, err)
			}
		})
	}
}
