package chart_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// limited lets pods have the system's priority classes only where a quota names these,
// as GKE does.
const limited = `
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ResourceQuota
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: ResourceQuotaConfiguration
    limitedResources:
    - resource: pods
      matchScopes:
      - {scopeName: PriorityClass, operator: In, values: [system-node-critical, system-cluster-critical]}
`

// TestPodsOfManagedClusters: with limits as GKE has them, and nodes as EKS has them,
// there are the pods that can run, and no others.
func TestPodsOfManagedClusters(t *testing.T) {
	file := filepath.Join(t.TempDir(), "admission.yaml")
	expect.OK(t, os.WriteFile(file, []byte(limited), 0o600))
	w := newWorld(t, "--admission-control-config-file="+file)
	for _, computeType := range []string{"fargate", "", "hybrid", "auto"} {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-" + computeType + "0", Labels: map[string]string{corev1.LabelOSStable: "linux"}}}
		if computeType != "" {
			node.Labels["eks.amazonaws.com/compute-type"] = computeType
		}
		expect.OK(t, fixtures.Node(t.Context(), w.Cluster, node))
	}
	w.apply(t, deploy("eks.yaml"))
	var got []string
	expect.Within(t, patience, func() error {
		var err error
		if got, err = w.places(t); err == nil && len(got) < 5 {
			err = fmt.Errorf("got pods %q, want five", got)
		}
		return err
	})
	want := []string{"chandler on node-0", "chandler on node-auto0", "chandler on node-hybrid0", "chandler-leader", "chandler-leader"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
	expect.Within(t, patience, func() error { return w.create(t, fixtures.Namespace, "") }) // once its default account is there
	const refusal = "insufficient quota to match these scopes"
	if err := w.create(t, "default", "system-node-critical"); err == nil || !strings.Contains(err.Error(), refusal) {
		t.Errorf("a pod elsewhere: got %v, want %q", err, refusal)
	}
}

// places lists our pods, the agents' with the node that each is for.
func (w *world) places(t *testing.T) ([]string, error) {
	t.Helper()
	pods, err := w.admin.CoreV1().Pods(fixtures.Namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/part-of=chandler"})
	if err != nil {
		return nil, err
	}
	var places []string
	for _, pod := range pods.Items {
		place := pod.Labels["app.kubernetes.io/name"]
		if required := pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution; required != nil {
			place += " on " + strings.Join(required.NodeSelectorTerms[0].MatchFields[0].Values, "")
		}
		places = append(places, place)
	}
	slices.Sort(places)
	return places, nil
}

// create makes a pod of a priority class that is none of ours.
func (w *world) create(t *testing.T, namespace, class string) error {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "other-"},
		Spec:       corev1.PodSpec{PriorityClassName: class, Containers: []corev1.Container{{Name: "other", Image: "other"}}},
	}
	_, err := w.admin.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	return err
}
