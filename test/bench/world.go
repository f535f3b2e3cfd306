package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// world is a control plane with what deploy/ ships, and a directory for what runs
// beside it.
type world struct {
	*cluster.Cluster
	admin  kubernetes.Interface
	binary string
	dir    string
	// scraper is that section of the agents' configuration; empty means none.
	scraper string
}

// daemonSet is what a leader counts agents by. The pods that it gets never run; those
// of the agents are made one by one.
const daemonSet = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: chandler, namespace: chandler}
spec:
  selector: {matchLabels: {bench: counted}}
  template:
    metadata: {labels: {bench: counted}}
    spec:
      serviceAccountName: chandler-agent
      tolerations: [{operator: Exists}]
      containers: [{name: agent, image: chandler}]
`

// inWorld makes a world, and ends it once do has returned.
func inWorld(ctx context.Context, binary string, do func(*world) error) (err error) {
	c, err := cluster.Start(ctx, cluster.Options{Log: os.Stderr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	dir, err := os.MkdirTemp("", "chandler-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	admin, err := kubernetes.NewForConfig(c.Admin())
	if err != nil {
		return err
	}
	for _, apply := range []func() error{
		func() error { return fixtures.Deploy(ctx, c) },
		func() error { return fixtures.Apply(ctx, c, "eks", "kubeadm", "openshift") },
		func() error { return c.Apply(ctx, []byte(daemonSet)) },
	} {
		if err := apply(); err != nil {
			return err
		}
	}
	return do(&world{Cluster: c, admin: admin, binary: binary, dir: dir})
}

const agentConfig = `apiVersion: chandler.dev/v1alpha1
kind: Config
hostDir: %q
awsCredentials:
- {name: default, source: %q, files: {mode: "0440", uid: %d, gid: %d}}
scraper: %s
leader: %s
serving: {address: "127.0.0.1:0", healthAddress: "127.0.0.1:0"}
`

// What agentConfig says of the leader half.
const (
	leaderOff = "{enabled: false}"
	leaderOn  = "{podLogs: {enabled: false}}"
)

// agent is an agent of a node, under the rights of its pod.
type agent struct {
	node, pod, hostDir string

	command func() *exec.Cmd
	process *exec.Cmd // nil while it does not run
}

// newAgent prepares an agent with directories of its own. env are further
// variables.
func (w *world) newAgent(ctx context.Context, node, leaderHalf string, env map[string]string) (*agent, error) {
	token, err := fixtures.AgentPod(ctx, w.Cluster, node)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(w.dir, "agent-")
	if err != nil {
		return nil, err
	}
	a := &agent{node: node, pod: fixtures.PodName(node), hostDir: filepath.Join(dir, "host")}
	secret, kubeconfig, config := filepath.Join(dir, "secret"), filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "config.yaml")
	if err := os.Mkdir(secret, 0o755); err != nil {
		return nil, err
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(secret, "aws_access_key_id"), []byte("AKIAIOSFODNN7EXAMPLE"), 0o600),
		os.WriteFile(filepath.Join(secret, "aws_secret_access_key"), []byte("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), 0o600),
		os.WriteFile(config, fmt.Appendf(nil, agentConfig, a.hostDir, secret, os.Getuid(), os.Getgid(), cmp.Or(w.scraper, "{enabled: false}"), leaderHalf), 0o600),
		cluster.WriteKubeconfig(kubeconfig, token),
	)
	a.command = func() *exec.Cmd {
		cmd := exec.CommandContext(ctx, w.binary, "agent", "--config", config, "--kubeconfig", kubeconfig,
			"--node-name", node, "--pod-name", a.pod, "--namespace", fixtures.Namespace, "--log-level", "warn")
		cmd.Env = append(os.Environ(), "AWS_EC2_METADATA_DISABLED=true")
		for name, value := range env {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		cmd.Stderr = os.Stderr
		return cmd
	}
	return a, err
}

func (a *agent) start() error {
	a.process = a.command()
	return a.process.Start()
}

// stop ends the process, which may take its time. It does nothing if none runs.
func (a *agent) stop() error {
	if a.process == nil {
		return nil
	}
	process := a.process
	a.process = nil
	// It may have ended by itself, which Wait tells.
	if err := process.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return process.Wait()
}

// kill ends the process as the kernel does when memory runs out.
func (a *agent) kill() error {
	process := a.process
	a.process = nil
	if err := process.Process.Kill(); err != nil {
		return err
	}
	_ = process.Wait() // killed, so never a success
	return nil
}

// memory returns what of the process is resident, in mebibytes.
func (a *agent) memory() (mebibytes float64, err error) {
	const figure = "VmRSS"
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.process.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(status), figure+":")
	if !ok {
		return 0, fmt.Errorf("no %s in the status of process %d", figure, a.process.Process.Pid)
	}
	_, err = fmt.Sscan(rest, &mebibytes)
	return mebibytes / 1024, err
}

// appear waits until all files exist.
func appear(ctx context.Context, files ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, f := range files {
		for {
			_, err := os.Stat(f)
			if err == nil {
				break
			}
			if err := pause(ctx, time.Millisecond); err != nil {
				return fmt.Errorf("wait for %s: %w", strings.TrimPrefix(f, os.TempDir()), err)
			}
		}
	}
	return nil
}

// pause waits for d, or returns the error of ctx.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "  "+format+"\n", args...) }
