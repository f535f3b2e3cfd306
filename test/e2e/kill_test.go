//go:build e2e

package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/fsnotify/fsnotify"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// processOf finds the one of a pod's container. Nodes that can be looked into are
// processes of this machine, and so is what runs on them: their cgroups bear the
// container's ID.
func processOf(t *testing.T, pod *corev1.Pod) *os.Process {
	t.Helper()
	if len(pod.Status.ContainerStatuses) != 1 {
		t.Fatalf("%s: got %d containers, want 1", pod.Name, len(pod.Status.ContainerStatuses))
	}
	_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil || id == "" {
		t.Fatalf("container %q of %s: %v", id, pod.Name, err)
	}
	for _, path := range groups {
		group, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(group), id) {
			continue // or it has ended meanwhile
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		process, err := os.FindProcess(pid)
		if err != nil {
			t.Fatal(err)
		}
		return process
	}
	t.Fatalf("no process has container %s of %s", id, pod.Name)
	return nil
}

// killUnreleased ends the leader's process and takes its pod away, before another
// could go on under the pod's name, and waits until another pod takes the Lease from it.
func (p *product) killUnreleased(t *testing.T, leader *corev1.Pod) {
	t.Helper()
	process := processOf(t, leader)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	leases := p.client.CoordinationV1().Leases(home)
	was, err := leases.Get(ctx, "chandler", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	writes, err := leases.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=chandler", ResourceVersion: was.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer writes.Stop()
	if err := process.Signal(syscall.SIGSTOP); err != nil { // what is stopped learns of no other signal
		t.Fatal(err)
	}
	p.kubectl(t, "--namespace", home, "delete", "pod", leader.Name, "--grace-period=0", "--force")
	if err := process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	for event := range writes.ResultChan() {
		lease, ok := event.Object.(*coordinationv1.Lease)
		if !ok {
			t.Fatalf("the Lease: got %s of %v", event.Type, event.Object)
		}
		switch holder := *lease.Spec.HolderIdentity; holder {
		case leader.Name: // its last renewals
		case "":
			t.Fatalf("%s was killed, and has released the Lease", leader.Name)
		default:
			if got, want := *lease.Spec.LeaseTransitions, *was.Spec.LeaseTransitions+1; got != want {
				t.Errorf("transitions of the Lease: got %d, want %d", got, want)
			}
			return
		}
	}
	t.Fatal("nobody has taken the Lease")
}

// killAtSteps kills the agent of a node when it begins a generation, when that is
// complete, and when readers are led to it. Each of those is a pod of its own: kubelet starts
// a container again at once, but only the first time.
func (p *product) killAtSteps(t *testing.T, node string) {
	t.Parallel()
	for _, step := range []string{"..2*", "..data_tmp", "..data"} {
		pod := p.podOn(t, home, agentLabels, node)
		p.killOn(t, pod, step)
		eventually(t, "certificate after that one", p.rotated(node, p.scraper(t, node)))
		eventually(t, "end of what was interrupted", func(context.Context) error { return p.tidy(node) })
		p.kubectl(t, "--namespace", home, "delete", "pod", pod.Name)
	}
}

// killOn kills a pod's process as soon as it makes a name like that in the set scraper.
func (p *product) killOn(t *testing.T, pod *corev1.Pod, pattern string) {
	t.Helper()
	process := processOf(t, pod)
	dir := p.path(pod.Spec.NodeName, "scraper")
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	if err := watcher.Add(dir); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		select {
		case event := <-watcher.Events:
			made, err := filepath.Match(pattern, filepath.Base(event.Name))
			if err != nil {
				t.Fatal(err)
			}
			if !made || !event.Has(fsnotify.Create) {
				continue
			}
			if err := process.Kill(); err != nil {
				t.Fatal(err)
			}
			return
		case err := <-watcher.Errors:
			t.Fatal(err)
		case <-ctx.Done():
			t.Fatalf("%s makes no %s in %s", pod.Name, pattern, dir)
		}
	}
}
