package podlogs_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/chandler-k8s/chandler/test/expect"
)

const (
	label = "podlogreader-affiliate"
	// unlabel takes the label out of a pod template.
	unlabel = `{"spec":{"template":{"metadata":{"labels":{"podlogreader-affiliate":null}}}}}`
)

// template is that of pods with app=<name>, labelled or not.
func template(name string, labelled bool) corev1.PodTemplateSpec {
	labels := map[string]string{"app": name}
	if labelled {
		labels[label] = "enable"
	}
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec: corev1.PodSpec{
			Containers:  []corev1.Container{{Name: "main", Image: "main"}},
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		},
	}
}

func selector(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
}

func (s *scene) addDeployment(t testing.TB, name string, replicas int32, labelled bool) *appsv1.Deployment {
	t.Helper()
	made, err := s.admin.AppsV1().Deployments(s.namespace).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       appsv1.DeploymentSpec{Replicas: &replicas, Selector: selector(name), Template: template(name, labelled)},
	}, metav1.CreateOptions{})
	expect.OK(t, err)
	return made
}

func (s *scene) addStatefulSet(t testing.TB, name string, replicas int32) *appsv1.StatefulSet {
	t.Helper()
	made, err := s.admin.AppsV1().StatefulSets(s.namespace).Create(t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, Selector: selector(name), Template: template(name, true),
			PodManagementPolicy: appsv1.ParallelPodManagement, // none ever becomes ready
		},
	}, metav1.CreateOptions{})
	expect.OK(t, err)
	return made
}

func (s *scene) addDaemonSet(t testing.TB, name string) {
	t.Helper()
	_, err := s.admin.AppsV1().DaemonSets(s.namespace).Create(t.Context(), &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       appsv1.DaemonSetSpec{Selector: selector(name), Template: template(name, true)},
	}, metav1.CreateOptions{})
	expect.OK(t, err)
}

// jobSpec is that of a Job with two pods.
func jobSpec(name string) batchv1.JobSpec {
	two := int32(2)
	spec := batchv1.JobSpec{Parallelism: &two, Completions: &two, Template: template(name, true)}
	spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	return spec
}

func (s *scene) addJob(t testing.TB, name string, owners ...metav1.OwnerReference) {
	t.Helper()
	app := name
	if len(owners) > 0 {
		app = owners[0].Name
	}
	_, err := s.admin.BatchV1().Jobs(s.namespace).Create(t.Context(), &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: owners},
		Spec:       jobSpec(app),
	}, metav1.CreateOptions{})
	expect.OK(t, err)
}

// addCronJob makes a CronJob that never runs by itself, and returns the reference
// that its Jobs carry.
func (s *scene) addCronJob(t testing.TB, name string) metav1.OwnerReference {
	t.Helper()
	suspend := true
	made, err := s.admin.BatchV1().CronJobs(s.namespace).Create(t.Context(), &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       batchv1.CronJobSpec{Schedule: "0 0 1 1 *", Suspend: &suspend, JobTemplate: batchv1.JobTemplateSpec{Spec: jobSpec(name)}},
	}, metav1.CreateOptions{})
	expect.OK(t, err)
	return *metav1.NewControllerRef(made, batchv1.SchemeGroupVersion.WithKind("CronJob"))
}

// addPod makes a pod with an owner of the test's choice, nil for none.
func (s *scene) addPod(t testing.TB, name, app string, labelled bool, owner *metav1.OwnerReference, finalizers ...string) *corev1.Pod {
	t.Helper()
	spec := template(app, labelled)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: spec.Labels, Finalizers: finalizers}, Spec: spec.Spec}
	if owner != nil {
		pod.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	made, err := s.admin.CoreV1().Pods(s.namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	expect.OK(t, err)
	return made
}

func ownedBy(version, kind, name string, uid types.UID) *metav1.OwnerReference {
	controller := true
	return &metav1.OwnerReference{APIVersion: version, Kind: kind, Name: name, UID: uid, Controller: &controller}
}

func (s *scene) scale(t testing.TB, name string, replicas int) {
	t.Helper()
	patch(t, name, `{"spec":{"replicas":`+itoa(replicas)+`}}`, s.admin.AppsV1().Deployments(s.namespace).Patch)
}
