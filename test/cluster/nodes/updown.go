package nodes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/chandler-k8s/chandler/test/cluster"
)

// Up starts a control plane and a number of nodes, node-1 and so on, that go on when
// this process ends, and tells out how to use them. It returns when every node is
// Ready. If they are there already, Up starts those that are stopped. What a crash or
// a kill left behind is removed first, data included.
func Up(ctx context.Context, out io.Writer, count int) error {
	if err := possible(count); err != nil {
		return err
	}
	s, unlock, err := open(ctx)
	if err != nil {
		return fmt.Errorf("up: %w", err)
	}
	defer unlock()
	_, runs, err := cluster.Standing(ctx)
	if err != nil {
		return fmt.Errorf("up: %w", err)
	}
	begin := time.Now()
	switch {
	case runs && s.Ready && len(s.Nodes) == count:
		err = s.boot(ctx, s.Nodes, out)
	case runs:
		return fmt.Errorf("up: a control plane runs already, with %d nodes; stop it first with: make cluster-down", len(s.Nodes))
	default:
		err = s.create(ctx, out, count)
	}
	if err != nil {
		return fmt.Errorf("up: %w", err)
	}
	fmt.Fprintf(out, "%d nodes are Ready (%.1f s).\n\n", count, time.Since(begin).Seconds()) //nolint:errcheck // progress
	return s.tell(ctx, out)
}

// Down removes the nodes, exactly those, and everything that belongs to them. It is
// no error if there are none. The control plane goes on.
func Down(ctx context.Context, _ io.Writer) error {
	s, unlock, err := open(ctx)
	if err != nil {
		return fmt.Errorf("down: %w", err)
	}
	defer unlock()
	if len(s.Nodes) == 0 {
		return nil
	}
	if err := s.clear(ctx); err != nil {
		return fmt.Errorf("down: %w", err)
	}
	return nil
}

// Env tells out, in the form of a shell's assignments, what the end-to-end tests ask
// their environment for.
func Env(ctx context.Context, out io.Writer) error {
	s, unlock, err := open(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if !s.Ready {
		return errors.New("no nodes are there; see make cluster-up NODES=3")
	}
	return s.tell(ctx, out)
}

func (s *set) tell(ctx context.Context, out io.Writer) error {
	dir, _, err := cluster.Standing(ctx)
	if err != nil {
		return err
	}
	var roots []string
	for _, n := range s.Nodes {
		roots = append(roots, n.Name+"="+n.root())
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// They are built by now; progress would spoil what a shell is to read.
	found, err := cluster.FindForNodes(ctx, nil)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "export KUBECONFIG=%s\nexport CHANDLER_E2E_NODES='%s'\nexport CHANDLER_E2E_HOST=%s\n"+
		"export CHANDLER_E2E_CLUSTER=%s\nexport CHANDLER_E2E_KUBECTL=%s\n",
		filepath.Join(dir, "kubeconfig"), strings.Join(roots, " "), s.host(), self, found.Kubectl)
	return err
}

// possible tells what this machine or user lacks.
func possible(count int) error {
	if count < 1 || count > maxNodes {
		return fmt.Errorf("%d nodes: want 1 to %d", count, maxNodes)
	}
	if err := needRoot(); err != nil {
		return err
	}
	return programs()
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("real nodes need root, for namespaces, mounts and cgroups; run this as root")
	}
	return nil
}

func (s *set) create(ctx context.Context, out io.Writer, count int) error {
	if err := s.clear(ctx); err != nil {
		return fmt.Errorf("remove what is left of earlier nodes: %w", err)
	}
	network, err := freeNetwork(s.id)
	if err != nil {
		return err
	}
	s.Network = network
	for i := range count {
		s.Nodes = append(s.Nodes, &node{Name: fmt.Sprintf("node-%d", i+1), Index: i + 1, set: s})
	}
	err = s.write()
	if err == nil {
		err = s.assemble(ctx, out)
	}
	if err != nil {
		// What was begun is removed also where the caller has given up.
		after := context.WithoutCancel(ctx)
		return errors.Join(err, s.clear(after), cluster.Down(after, io.Discard))
	}
	return nil
}

func (s *set) assemble(ctx context.Context, out io.Writer) error {
	// The API server listens on the bridge.
	if err := s.connect(ctx); err != nil {
		return err
	}
	if err := cluster.Up(ctx, out, cluster.Options{NodeAddress: net.ParseIP(s.host())}); err != nil {
		return err
	}
	if err := s.provision(ctx); err != nil {
		return err
	}
	if err := s.boot(ctx, s.Nodes, out); err != nil {
		return err
	}
	s.Ready = true
	return s.write()
}

// clear removes everything of these nodes that there may be.
func (s *set) clear(ctx context.Context) error {
	for _, n := range s.Nodes {
		if err := n.kill(ctx); err != nil {
			return fmt.Errorf("end node %s: %w", n.Name, err)
		}
		if err := n.removeCgroups(ctx); err != nil {
			return err
		}
	}
	if len(s.Nodes) > 0 {
		if err := s.disconnect(ctx); err != nil {
			return err
		}
	}
	if err := unmounted(s.dir); err != nil {
		return err
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return err
	}
	s.Nodes, s.Ready, s.Network = nil, false, ""
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
