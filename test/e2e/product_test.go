//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	home = "chandler"
	// image is what deploy/daemonset.yaml names.
	image    = "ghcr.io/chandler-k8s/chandler:v0.1.0"
	agents   = "daemonset/chandler"
	hostDir  = "/var/lib/chandler"
	region   = "eu-west-1"
	registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	keysIn   = "chandler-registries"
	readers  = "chandler-e2e"
	// scrapers is the common name of scraper certificates.
	scrapers = "system:serviceaccount:openshift-monitoring:prometheus-k8s"
)

// product is an installation of chandler, with readers of its files on every node.
type product struct {
	*suite
	nodes       []string
	aws         map[string]string // environment that leads to a pretended AWS
	awsHost     string            // and the address of this machine where that is
	pulledImage string            // file, for a registry
	secrets     []string          // values that are never to be logged
}

// TestChandler installs chandler as a user does and looks at it from outside. The
// cases follow each other on one cluster.
func TestChandler(t *testing.T) {
	s := newSuite(t)
	p := &product{suite: s}
	nodes, err := s.client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) < 2 {
		t.Fatalf("nodes: got %v, %v, want at least 2", nodes, err)
	}
	for _, node := range nodes.Items {
		p.nodes = append(p.nodes, node.Name)
	}
	p.startAWS(t)
	if s.roots != nil { // else they are there already, as by `make kind-load`
		p.importImages(t)
	}
	p.install(t)
	for _, c := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"files of a new installation", p.files},
		{"what each account may do", p.rights},
		{"configured by a rolling update", p.configure},
		{"certificates rotate and open metrics", p.certificates},
		{"credentials rotate", p.credentials},
		{"examples", p.examples},
		{"pull secret in a labelled namespace", p.labelled},
		{"image pulled with the pull secret", p.pull},
		{"logs by the Role of the workload", p.logs},
		{"health follows a target", p.health},
		{"thief of a node's token", p.thief},
		{"container writes nowhere else", p.writes},
		{"leader killed", p.leaderKilled},
		{"leader cut off", p.leaderCutOff},
		{"agents killed while they publish", p.killedPublishing},
		{"node rebooted", p.rebooted},
		{"host directory deleted", p.directoryDeleted},
		{"nothing secret in any log", p.secretsUnlogged},
		{"uninstalled", p.uninstall},
		{"installed again", p.installedAgain},
	} {
		if !t.Run(c.name, c.run) {
			t.FailNow() // what follows would say nothing
		}
	}
}

// install applies the one file, and readers beside it that wait for what it makes.
func (p *product) install(t *testing.T) {
	t.Helper()
	p.clean(t) // what a run that was killed has left
	t.Cleanup(func() { p.clean(t) })
	t.Cleanup(func() {
		if t.Failed() {
			p.explain(t)
		}
	})
	p.kubectl(t, "apply", "--filename", filepath.Join(root, "deploy", "daemonset.yaml"))
	p.apply(t, readersManifest)
	p.rollout(t, home, agents)
	p.rollout(t, readers, "daemonset/reader")
}

// rollout waits until a workload, e.g. "daemonset/chandler", is everywhere as it is now,
// and ready.
func (p *product) rollout(t *testing.T, namespace, workload string) {
	t.Helper()
	whole := patience * time.Duration(len(p.nodes)) // one node after the other
	ctx, cancel := context.WithTimeout(t.Context(), whole+patience)
	defer cancel()
	if _, err := p.tryKubectl(ctx, "--namespace", namespace, "rollout", "status", workload, "--timeout", whole.String()); err != nil {
		t.Fatal(err)
	}
}

// readersManifest follows docs/files.md: a user who is not root, the group that may
// read keys, and the whole directory mounted read-only.
var readersManifest = fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: reader, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: reader}}
  template:
    metadata: {labels: {app: reader}}
    spec:
      tolerations: [{operator: Exists}]
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      securityContext: {runAsUser: 65532, runAsGroup: 65532, supplementalGroups: [65534]}
      initContainers:
      - name: wait
        image: %[2]s
        args: [wait, --set, cluster, --set, scraper, --dir, /host]
        volumeMounts: [{name: chandler, mountPath: /host, readOnly: true}]
      containers:
      - name: reader
        image: %[3]s
        imagePullPolicy: Never
        args: [read, /host]
        volumeMounts: [{name: chandler, mountPath: /host, readOnly: true}]
      volumes:
      - name: chandler
        hostPath: {path: %[4]s, type: DirectoryOrCreate}
`, readers, image, probeImage, hostDir)

// untorn fails if any reader has seen a set missing or torn, and waits until each
// has read on.
func (p *product) untorn(t *testing.T) {
	t.Helper()
	before := map[string]int{}
	eventually(t, "readers read on", func(ctx context.Context) error {
		pods, err := p.client.CoreV1().Pods(readers).List(ctx, metav1.ListOptions{LabelSelector: "app=reader"})
		if err != nil || len(pods.Items) != len(p.nodes) {
			return errors.Join(err, fmt.Errorf("readers: got %d, want %d", len(pods.Items), len(p.nodes)))
		}
		var late error
		for _, pod := range pods.Items {
			log, err := p.client.CoreV1().Pods(readers).GetLogs(pod.Name, &corev1.PodLogOptions{Container: "reader"}).DoRaw(ctx)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(log)) {
				if strings.HasPrefix(line, "violation") {
					t.Fatalf("reader on %s: %s", pod.Spec.NodeName, line)
				}
			}
			said := strings.Count(string(log), "readings:")
			if _, known := before[pod.Name]; !known {
				before[pod.Name] = said
			}
			if said <= before[pod.Name] {
				late = fmt.Errorf("the reader on %s has not read on", pod.Spec.NodeName)
			}
		}
		return late
	})
}

// path is a file of a node's own disk, as this machine sees it.
func (p *product) path(node string, name ...string) string {
	return filepath.Join(append([]string{p.roots[node], hostDir}, name...)...)
}

// holder waits for a leader other than not, and returns its pod.
func (p *product) holder(t *testing.T, not string) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	eventually(t, "a leader other than "+not, func(ctx context.Context) error {
		lease, err := p.client.CoordinationV1().Leases(home).Get(ctx, "chandler", metav1.GetOptions{})
		if err != nil {
			return err
		}
		name := lease.Spec.HolderIdentity
		if name == nil || *name == "" || *name == not {
			return errors.New("there is none")
		}
		pod, err = p.client.CoreV1().Pods(home).Get(ctx, *name, metav1.GetOptions{})
		return err
	})
	return pod
}

// explain shows what a failure may come of.
func (p *product) explain(t *testing.T) {
	for _, args := range [][]string{
		{"get", "nodes,leases,pods", "--all-namespaces", "--output", "wide"},
		{"--namespace", home, "describe", "pods"},
		{"--namespace", home, "logs", "--selector", agentLabels, "--prefix", "--tail", "60"},
		{"--namespace", home, "logs", "--selector", agentLabels, "--prefix", "--tail", "20", "--previous"},
		{"get", "events", "--all-namespaces", "--sort-by", ".lastTimestamp"},
	} {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		output, err := p.tryKubectl(ctx, args...)
		cancel()
		t.Log(output, err)
	}
}

// clean removes what a failed test left, and what an uninstallation leaves.
func (p *product) clean(t *testing.T) {
	p.kubectl(t, "delete", "--ignore-not-found", "--selector", "!chandler.dev/keep", "--filename", filepath.Join(root, "deploy", "daemonset.yaml"))
	p.kubectl(t, "delete", "--ignore-not-found", "--filename", filepath.Join(root, "deploy", "optional", "clusterstatus.yaml"))
	p.kubectl(t, "delete", "--ignore-not-found", "namespace", readers, monitoring, keysIn, home)
	for _, namespace := range []string{readers, monitoring, home} {
		eventually(t, "end of namespace "+namespace, func(ctx context.Context) error {
			_, err := p.client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(err, errors.New("it is still there"))
		})
	}
	for node := range p.roots {
		if err := os.RemoveAll(p.path(node)); err != nil {
			t.Error(err)
		}
	}
}
