package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// patience is how long a node may take for its files before the demo gives up.
const patience = 30 * time.Second

// node is one agent process and its host directory.
type node struct {
	name    string
	hostDir string
	metrics string // the address of /metrics
	process *exec.Cmd
	ended   chan struct{}
	seen    string // the generation of the credentials that was shown last
}

const nodeConfig = `apiVersion: chandler.dev/v1alpha1
kind: Config
hostDir: %s
awsCredentials:
- name: default
  source: %s
  files: {mode: "0440", uid: %d, gid: %d}
scraper: {duration: 10m, renewAfter: %[5]s, files: {mode: "0440", uid: %[3]d, gid: %[4]d}}
leader: {podLogs: {createServiceAccounts: true}, clusterStatus: %[7]s}
serving: {address: %[6]q, healthAddress: "127.0.0.1:0"}
`

// renewAfter is short, so that there is something to see.
const renewAfter = 15 * time.Second

func startNode(ctx context.Context, d *demo, name, secretDir string, env map[string]string) (*node, error) {
	dir := filepath.Join(d.dir, name)
	n := &node{name: name, hostDir: filepath.Join(dir, "var-lib-chandler"), ended: make(chan struct{})}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	configFile, kubeconfig := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "kubeconfig")
	var err error
	if n.metrics, err = freeAddress(ctx); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(nodeConfig, n.hostDir, secretDir, os.Getuid(), os.Getgid(), renewAfter, n.metrics, statusConfig)
	if err := os.WriteFile(configFile, []byte(config), 0o644); err != nil {
		return nil, err
	}
	token, err := fixtures.AgentPod(ctx, d.cluster, name)
	if err != nil {
		return nil, err
	}
	if err := cluster.WriteKubeconfig(kubeconfig, token); err != nil {
		return nil, err
	}
	// Not CommandContext: the agent gets SIGTERM from stop, and time to end.
	n.process = exec.Command(d.binary, "agent", "--config", configFile, "--kubeconfig", kubeconfig, //nolint:noctx // see above
		"--node-name", name, "--pod-name", fixtures.PodName(name), "--namespace", fixtures.Namespace, "--log-format", "text")
	n.process.Env = append(os.Environ(), "AWS_EC2_METADATA_DISABLED=false")
	maps.Copy(env, d.aws.Env())
	maps.Copy(env, d.env)
	for k, v := range env {
		n.process.Env = append(n.process.Env, k+"="+v)
	}
	logs := d.out.share()
	n.process.Stdout, n.process.Stderr = logs, logs
	n.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches us alone
	if err := n.process.Start(); err != nil {
		return nil, fmt.Errorf("start agent of %s: %w", name, err)
	}
	go func() {
		defer close(n.ended)
		if err := n.process.Wait(); err != nil {
			say(d.out, "agent of %s: %v", name, err)
		}
	}()
	return n, nil
}

// freeAddress is one that nobody listens on at this moment.
func freeAddress(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

func (n *node) stop() {
	_ = n.process.Process.Signal(syscall.SIGTERM) // it may have ended already
	<-n.ended
}

// await blocks until the node has both of its sets.
func (n *node) await(ctx context.Context) error {
	return n.poll(ctx, func() bool {
		_, err1 := os.Stat(filepath.Join(n.hostDir, "cluster", "CLUSTERID"))
		_, err2 := os.Stat(filepath.Join(n.hostDir, "aws", "credentials.ini"))
		return err1 == nil && err2 == nil
	})
}

// awaitChange blocks until the credentials are others than those shown last.
func (n *node) awaitChange(ctx context.Context) error {
	return n.poll(ctx, func() bool { return n.generation() != n.seen })
}

func (n *node) generation() string {
	link, err := os.Readlink(filepath.Join(n.hostDir, "aws", "..data"))
	if err != nil {
		return n.seen
	}
	return link
}

func (n *node) poll(ctx context.Context, done func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("node %s: no files within %s", n.name, patience))
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-n.ended:
			return fmt.Errorf("node %s: its agent has ended", n.name)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// show prints every file of the node as its consumers see them.
func (n *node) show(out io.Writer) {
	say(out, "files of %s, in %s", n.name, n.hostDir)
	err := filepath.WalkDir(n.hostDir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.Type()&fs.ModeSymlink != 0 && !strings.HasPrefix(e.Name(), "..") {
			rel, err := filepath.Rel(n.hostDir, path)
			if err != nil {
				return err
			}
			n.showFile(out, rel)
		}
		return nil
	})
	if err != nil {
		say(out, "%v", err)
	}
}

// showFile prints one file. These keys are made up, and yet it masks them: nobody
// should get used to secrets on a terminal.
func (n *node) showFile(out io.Writer, name string) {
	n.seen = n.generation()
	path := filepath.Join(n.hostDir, name)
	info, err := os.Stat(path)
	data, err2 := os.ReadFile(path)
	if err := errors.Join(err, err2); err != nil {
		say(out, "%v", err)
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "   %s  %s/%s\n", info.Mode(), n.name, name)
	for _, line := range bytes.Split(bytes.TrimRight(shortened(data), "\n"), []byte("\n")) {
		key, value, secret := strings.Cut(string(line), "aws_secret_access_key = ")
		if secret {
			line = fmt.Appendf(nil, "%saws_secret_access_key = %s… (masked here)", key, value[:4])
		}
		fmt.Fprintf(&b, "        %s\n", line)
	}
	io.WriteString(out, b.String()) //nolint:errcheck // a closed terminal ends us by signal
}

// shortened names the blocks of a PEM file instead of printing them.
func shortened(data []byte) []byte {
	var names []byte
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return append(names, data...)
		}
		names, data = fmt.Appendf(names, "%s, %d bytes\n", block.Type, len(block.Bytes)), rest
	}
}

// lines lets several writers share one terminal, a whole line at a time.
type lines struct {
	out  io.Writer
	mu   *sync.Mutex
	rest []byte // the beginning of a line that has not ended yet
}

func newLines(out io.Writer) *lines { return &lines{out: out, mu: &sync.Mutex{}} }

// share returns another writer to the same terminal.
func (l *lines) share() *lines { return &lines{out: l.out, mu: l.mu} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	end := bytes.LastIndexByte(l.rest, '\n') + 1
	if _, err := l.out.Write(l.rest[:end]); err != nil {
		return 0, err
	}
	l.rest = append([]byte(nil), l.rest[end:]...)
	return len(p), nil
}
