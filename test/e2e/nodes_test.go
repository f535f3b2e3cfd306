//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	probeImage = "chandler.test/probe:e2e"
	probe      = "probe"
)

// probing is a DaemonSet of probes in a namespace of its own.
type probing struct {
	*suite
	namespace string
	onDisk    string // hostPath that a reboot keeps, e.g. "/var/lib/probe-x7k2p"
	inMemory  string // hostPath that it does not
}

// TestNodes sees that the cluster is one to test on.
func TestNodes(t *testing.T) {
	s := newSuite(t)
	s.needNodes(t)
	names := slices.Sorted(maps.Keys(s.roots))
	if len(names) < 2 {
		t.Fatalf("nodes: got %d, want at least 2", len(names))
	}
	for _, name := range names {
		s.condition(t, name, corev1.ConditionTrue)
	}
	s.importProbe(t, names)
	p := s.runProbe(t)
	for _, name := range names {
		eventually(t, "probe writes to "+name, s.file(name, p.onDisk+"/starts", name+"\n"))
		p.log(t, name)
	}
	t.Run("kubectl exec", func(t *testing.T) { p.exec(t, names[0]) })
	t.Run("stopped", func(t *testing.T) { p.stopped(t, names[0]) })
	t.Run("cut off", func(t *testing.T) { p.cutOff(t, names[1]) })
}

func (p *probing) stopped(t *testing.T, name string) {
	p.cluster(t, "stop", name)
	t.Cleanup(func() { p.cluster(t, "start", name) })
	p.condition(t, name, corev1.ConditionUnknown)
	before := p.alive(t, name)
	p.cluster(t, "start", name)
	p.condition(t, name, corev1.ConditionTrue)
	eventually(t, "probe starts again", p.file(name, p.onDisk+"/starts", name+"\n"+name+"\n"))
	if got, want := p.cluster(t, "exec", name, "cat", p.inMemory+"/starts"), name+"\n"; got != want {
		t.Errorf("starts since the reboot: got %q, want %q", got, want)
	}
	eventually(t, "probe runs", func(context.Context) error { return more(before, p.alive(t, name)) })
	p.log(t, name)
}

func (p *probing) cutOff(t *testing.T, name string) {
	p.cluster(t, "cut", name)
	t.Cleanup(func() { p.cluster(t, "join", name) })
	p.condition(t, name, corev1.ConditionUnknown)
	before := p.alive(t, name)
	eventually(t, "probe runs on", func(context.Context) error { return more(before, p.alive(t, name)) })
	p.cluster(t, "join", name)
	p.condition(t, name, corev1.ConditionTrue)
	p.log(t, name)
	if err := p.file(name, p.onDisk+"/starts", name+"\n")(t.Context()); err != nil {
		t.Errorf("the probe was to run on: %v", err)
	}
}

func more(before, now int) error {
	if now <= before {
		return errors.New("it has not written any more")
	}
	return nil
}

// alive returns how much the probe has written.
func (p *probing) alive(t *testing.T, node string) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.roots[node], p.onDisk, "alive"))
	if err != nil {
		t.Fatal(err)
	}
	return len(data)
}

// condition waits until the API server holds a node Ready, or does not.
func (s *suite) condition(t *testing.T, name string, want corev1.ConditionStatus) {
	t.Helper()
	eventually(t, "condition Ready of "+name, func(ctx context.Context) error {
		node, err := s.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status != want {
				return fmt.Errorf("got %s, want %s: %s", c.Status, want, c.Message)
			}
		}
		return nil
	})
}

// log waits for what the node's probe says, which the API server asks kubelet for.
func (p *probing) log(t *testing.T, node string) {
	t.Helper()
	want := "probe on " + node + ": the API server answers 200 OK\n"
	eventually(t, "log of the probe on "+node, func(ctx context.Context) error {
		pods, err := p.client.CoreV1().Pods(p.namespace).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
		if err != nil {
			return err
		}
		if len(pods.Items) != 1 {
			return fmt.Errorf("pods: got %d, want 1", len(pods.Items))
		}
		got, err := p.client.CoreV1().Pods(p.namespace).GetLogs(pods.Items[0].Name, &corev1.PodLogOptions{}).DoRaw(ctx)
		if err == nil && !bytes.HasPrefix(got, []byte(want)) {
			err = fmt.Errorf("got %q, want %q", got, want)
		}
		return err
	})
}

// exec runs a command in a container, for which the API server becomes a pipe to
// kubelet and on to containerd.
func (p *probing) exec(t *testing.T, node string) {
	kubectl := os.Getenv("CHANDLER_E2E_KUBECTL")
	if kubectl == "" {
		t.Skip("needs CHANDLER_E2E_KUBECTL")
	}
	pods, err := p.client.CoreV1().Pods(p.namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("pods on %s: got %v, %v, want one", node, pods, err)
	}
	command := exec.CommandContext(t.Context(), kubectl, "--namespace", p.namespace, "exec", pods.Items[0].Name, "--", "/chandler", "say", "hello")
	got, err := command.CombinedOutput()
	if want := "hello\n"; err != nil || string(got) != want {
		t.Errorf("got %q and %v, want %q", got, err, want)
	}
}

// importProbe builds and packs the probe and gives every node its image.
func (s *suite) importProbe(t *testing.T, nodes []string) {
	t.Helper()
	image := pack(t, build(t, "test/e2e/probe", ".", "probe"), probeImage)
	for _, node := range nodes {
		s.cluster(t, "import", node, image)
	}
}

// runProbe runs it on every node until the test ends.
func (s *suite) runProbe(t *testing.T) *probing {
	t.Helper()
	namespace, err := s.client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: probe + "-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	name := namespace.Name
	p := &probing{suite: s, namespace: name, onDisk: "/var/lib/" + name, inMemory: "/run/" + name}
	t.Cleanup(func() { p.remove(t) })
	if _, err := s.client.AppsV1().DaemonSets(name).Create(t.Context(), p.daemonSet(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "probe on every node", func(ctx context.Context) error {
		set, err := s.client.AppsV1().DaemonSets(name).Get(ctx, probe, metav1.GetOptions{})
		if err == nil && int(set.Status.NumberAvailable) != len(s.roots) {
			err = fmt.Errorf("available: got %d, want %d", set.Status.NumberAvailable, len(s.roots))
		}
		return err
	})
	return p
}

func (p *probing) remove(t *testing.T) {
	namespaces := p.client.CoreV1().Namespaces()
	if err := namespaces.Delete(context.WithoutCancel(t.Context()), p.namespace, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	eventually(t, "end of the probes", func(ctx context.Context) error {
		_, err := namespaces.Get(ctx, p.namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("the namespace is still there"))
	})
	for name, root := range p.roots {
		if err := os.RemoveAll(filepath.Join(root, p.onDisk)); err != nil {
			t.Error(err)
		}
		p.cluster(t, "exec", name, "rm", "-rf", p.inMemory)
	}
}

func (p *probing) daemonSet() *appsv1.DaemonSet {
	labels := map[string]string{"app": probe}
	root := int64(0) // hostPath directories are root's
	pod := corev1.PodSpec{
		Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		DNSPolicy:   corev1.DNSDefault,
		Containers: []corev1.Container{{
			Name: probe, Image: probeImage, ImagePullPolicy: corev1.PullNever, Args: []string{p.onDisk, p.inMemory},
			SecurityContext: &corev1.SecurityContext{RunAsUser: &root},
			Env: []corev1.EnvVar{{Name: "NODE", ValueFrom: &corev1.EnvVarSource{
				FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"},
			}}},
		}},
	}
	create := corev1.HostPathDirectoryOrCreate
	for _, path := range []string{p.onDisk, p.inMemory} {
		name := strings.ReplaceAll(path[1:], "/", "-")
		pod.Volumes = append(pod.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &create},
		}})
		container := &pod.Containers[0]
		container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: path})
	}
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: probe},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod},
		},
	}
}
