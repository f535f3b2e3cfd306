// Package nodes adds real nodes to the control plane of package cluster: kubelet,
// containerd, runc and kube-proxy, without Docker, on one Linux machine with cgroup
// v1 hierarchies, as root.
//
// A node is one process and what it leaves no way out of: namespaces for processes,
// mounts, network, host name and IPC. Its / is a directory of its own, with the
// machine's programs mounted read-only, so that what a pod mounts from its node is
// found in that directory from outside, except for /run and /tmp, which a reboot
// empties. Killing the process ends everything on the node, which is how Stop works.
// The machine keeps a bridge, routes to the pods, and cgroups; all carry a name made
// of the cache directory, and are removed with the nodes, or by the next start after
// a crash.
//
// There is no DNS in the cluster and no way out of it: nodes and pods reach each
// other, Services, and servers of this machine that listen on the bridge's address.
// The package imports none of the product's. The command in cmd/cluster calls it.
package nodes

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/chandler-k8s/chandler/test/cluster"
)

// maxNodes bounds what one machine is asked for.
const maxNodes = 9

// set is the nodes of one cache directory. Its exported fields are the record on
// disk, written before and after whatever it names exists.
type set struct {
	// Network is the first half of every address, e.g. "10.150".
	Network string  `json:"network"`
	Nodes   []*node `json:"nodes"`
	// Ready says that the start was completed.
	Ready bool `json:"ready"`

	id   string // names what is visible on the machine
	dir  string // holds a directory for each node
	path string // of the record
}

// node is one of them.
type node struct {
	Name  string `json:"name"`
	Index int    `json:"index"` // from 1; part of its addresses
	// Init is the process that everything else on the node descends from. Zero
	// means that the node was stopped, or never started.
	Init cluster.Identity `json:"init"`
	set  *set
}

// open reads the record, empty if there is none, and holds its lock.
func open(ctx context.Context) (*set, func(), error) {
	cache, err := cluster.CacheDir()
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, nil, err
	}
	unlock, err := cluster.Lock(ctx, filepath.Join(cache, "nodes.lock"), func() {})
	if err != nil {
		return nil, nil, err
	}
	s, err := read(cache)
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return s, unlock, nil
}

func read(cache string) (*set, error) {
	hash := sha256.Sum256([]byte(cache))
	s := &set{
		id:   hex.EncodeToString(hash[:])[:6],
		dir:  filepath.Join(cache, "nodes"),
		path: filepath.Join(cache, "nodes.json"),
	}
	data, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("read %s: %w", s.path, err)
	}
	for _, n := range s.Nodes {
		n.set = s
	}
	return s, nil
}

func (s *set) write() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path+".partial", append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(s.path+".partial", s.path)
}

// find returns a node of a completed start.
func (s *set) find(name string) (*node, error) {
	if err := needRoot(); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(s.Nodes, func(n *node) bool { return n.Name == name })
	if i < 0 || !s.Ready {
		return nil, fmt.Errorf("no node %q is there; see make cluster-up NODES=3", name)
	}
	return s.Nodes[i], nil
}

// dir holds the node's logs and its root.
func (n *node) dir() string { return filepath.Join(n.set.dir, n.Name) }

// root is the node's / seen from outside.
func (n *node) root() string { return filepath.Join(n.dir(), "root") }

func (n *node) cgroup() string { return fmt.Sprintf("chandler-%s-%s", n.set.id, n.Name) }
func (n *node) alive() bool    { return n.Init.PID != 0 && n.Init.Alive() }

func (n *node) running() error {
	if !n.alive() {
		return fmt.Errorf("node %s does not run", n.Name)
	}
	return nil
}

// Cut takes a node's network away, as when its cable is pulled: nothing on it, pods
// included, reaches the API server or another node, and goes on running.
func Cut(ctx context.Context, name string) error { return link(ctx, name, "down") }

// Join gives it back.
func Join(ctx context.Context, name string) error { return link(ctx, name, "up") }

func link(ctx context.Context, name, state string) error {
	s, unlock, err := open(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	n, err := s.find(name)
	if err != nil {
		return err
	}
	if err := n.running(); err != nil {
		return err
	}
	return ip(ctx, "link", "set", n.link(), state)
}

// Stop takes the power away from a node: everything on it ends at once, and its /run
// and /tmp are gone. It does nothing to a node that is stopped.
func Stop(ctx context.Context, name string) error {
	s, unlock, err := open(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	n, err := s.find(name)
	if err != nil {
		return err
	}
	if err := n.kill(ctx); err != nil {
		return fmt.Errorf("stop node %s: %w", name, err)
	}
	return nil
}

// Start boots a node that was stopped, and returns when the API server holds it
// Ready. It does nothing to a node that runs.
func Start(ctx context.Context, name string) error {
	s, unlock, err := open(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	n, err := s.find(name)
	if err != nil || n.alive() {
		return err
	}
	if err := s.boot(ctx, []*node{n}, os.Stderr); err != nil {
		return fmt.Errorf("start node %s: %w", name, err)
	}
	return nil
}
