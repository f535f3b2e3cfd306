//go:build e2e

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var update = flag.Bool("update", false, "write the checked-in lists of rights anew")

// writes runs another program in a container exactly like the agent's. Every container
// may write to its own /dev, which is in memory.
func (p *product) writes(t *testing.T) {
	set, err := p.client.AppsV1().DaemonSets(home).Get(t.Context(), "chandler", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{hostDir + "/probe": true}
	spec := set.Spec.Template.Spec.DeepCopy()
	container := &spec.Containers[0]
	for _, path := range []string{
		"/probe", "/etc/probe", "/tmp/probe", "/var/lib/probe", "/run/probe", "/proc/sys/kernel/hostname", "/sys/fs/cgroup/probe",
		"/etc/chandler/config/config.yaml", "/etc/chandler/aws/default/probe", "/var/run/secrets/kubernetes.io/serviceaccount/token",
	} {
		want[path] = false
	}
	container.Image, container.ImagePullPolicy, container.Args = probeImage, corev1.PullNever, []string{"write"}
	for path := range want {
		container.Args = append(container.Args, path)
	}
	container.LivenessProbe, container.ReadinessProbe, container.StartupProbe = nil, nil, nil
	spec.RestartPolicy, spec.NodeName = corev1.RestartPolicyNever, p.nodes[0]
	pod, err := p.client.CoreV1().Pods(home).Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "writes-"}, Spec: *spec}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kubectl(t, "--namespace", home, "delete", "pod", pod.Name)
		if p.roots == nil {
			return
		}
		if err := os.Remove(p.path(p.nodes[0], "probe")); err != nil {
			t.Error(err)
		}
	})
	var log string
	eventually(t, "what the container could write", func(ctx context.Context) (err error) {
		if log, err = p.tryKubectl(ctx, "--namespace", home, "logs", pod.Name); err == nil && strings.Count(log, "\n") < len(want) {
			err = os.ErrNotExist
		}
		return err
	})
	for path, could := range want {
		if line := path + ": " + map[bool]string{true: "true", false: "false"}[could]; !strings.Contains(log, line+"\n") {
			t.Errorf("want %q, got:\n%s", line, log)
		}
	}
}

// rights compares what `kubectl auth can-i --list` says with a checked-in list, so
// that whoever widens them is seen doing it.
func (p *product) rights(t *testing.T) {
	for _, account := range []string{"chandler-agent", "chandler-leader"} {
		var got strings.Builder
		for _, namespace := range []string{home, keysIn, "default"} {
			said := p.kubectl(t, "auth", "can-i", "--list", "--namespace", namespace, "--as", "system:serviceaccount:"+home+":"+account,
				"--as-group", "system:serviceaccounts", "--as-group", "system:serviceaccounts:"+home, "--as-group", "system:authenticated")
			var rights []string
			for line := range strings.Lines(said) {
				rights = append(rights, strings.Join(strings.Fields(line), " ")+"\n")
			}
			slices.Sort(rights)
			fmt.Fprintf(&got, "== namespace %s\n%s", namespace, strings.Join(rights, ""))
		}
		file := filepath.Join("testdata", "can-i-"+account+".txt")
		if *update {
			if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(file, []byte(got.String()), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("%s: rights are not those of %s, run with -update if they are meant (-checked in +got):\n%s", account, file, diff)
		}
	}
}
