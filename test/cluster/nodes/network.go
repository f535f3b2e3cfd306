package nodes

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
)

// The machine has .0.1 of the network, node 1 has .0.11 and, for its pods, .1.0/24.

func (s *set) host() string         { return s.Network + ".0.1" }
func (s *set) bridge() string       { return "ch" + s.id }
func (n *node) address() string     { return fmt.Sprintf("%s.0.%d", n.set.Network, 10+n.Index) }
func (n *node) podSubnet() string   { return fmt.Sprintf("%s.%d.0/24", n.set.Network, n.Index) }
func (n *node) link() string        { return fmt.Sprintf("ch%s-%d", n.set.id, n.Index) }
func (s *set) podRange() string     { return s.Network + ".0.0/16" }
func (s *set) hostWithMask() string { return s.host() + "/24" }

// freeNetwork returns the first half of a network that no interface of this machine
// is in. It begins with one of the set's own, so that two sets seldom meet.
func freeNetwork(id string) (string, error) {
	seed, err := strconv.ParseUint(id, 16, 32)
	if err != nil {
		return "", err
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("look for a free network: %w", err)
	}
next:
	for i := range 64 {
		first := fmt.Sprintf("10.%d", 128+(int(seed)+i)%64)
		_, candidate, err := net.ParseCIDR(first + ".0.0/16")
		if err != nil {
			return "", err
		}
		for _, address := range addresses {
			taken, ok := address.(*net.IPNet)
			if ok && (taken.Contains(candidate.IP) || candidate.Contains(taken.IP)) {
				continue next
			}
		}
		return first, nil
	}
	return "", fmt.Errorf("look for a free network: every one from 10.128.0.0/16 to 10.191.0.0/16 is in use")
}

// connect makes the bridge and the routes to the pods.
func (s *set) connect(ctx context.Context) error {
	steps := [][]string{
		{"link", "add", s.bridge(), "type", "bridge"},
		{"address", "add", s.hostWithMask(), "dev", s.bridge()},
		{"link", "set", s.bridge(), "up"},
	}
	for _, n := range s.Nodes {
		steps = append(steps, []string{"route", "add", n.podSubnet(), "via", n.address(), "dev", s.bridge()})
	}
	return all(ctx, steps)
}

// disconnect removes the bridge, and with it the routes.
func (s *set) disconnect(ctx context.Context) error {
	err := ip(ctx, "link", "delete", s.bridge())
	if _, absent := net.InterfaceByName(s.bridge()); absent != nil {
		return nil //nolint:nilerr // it is gone, or was never there
	}
	return err
}

// unplug removes the node's link.
func (n *node) unplug(ctx context.Context) error {
	err := ip(ctx, "link", "delete", n.link())
	if _, absent := net.InterfaceByName(n.link()); absent != nil {
		return nil //nolint:nilerr // it is gone, or was never there
	}
	return err
}

// plug connects the network namespace of the node's process to the bridge.
func (n *node) plug(ctx context.Context) error {
	steps := [][]string{
		{"link", "add", n.link(), "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(n.Init.PID)},
		{"link", "set", n.link(), "master", n.set.bridge(), "up"},
	}
	if err := all(ctx, steps); err != nil {
		return err
	}
	inside := [][]string{
		{"link", "set", "lo", "up"},
		{"address", "add", n.address() + "/24", "dev", "eth0"},
		{"link", "set", "eth0", "up"},
		{"route", "add", "default", "via", n.set.host()},
	}
	for _, other := range n.set.Nodes {
		if other != n {
			inside = append(inside, []string{"route", "add", other.podSubnet(), "via", other.address()})
		}
	}
	for _, step := range inside {
		args := append([]string{"--target", strconv.Itoa(n.Init.PID), "--net", "ip"}, step...)
		if err := run(exec.CommandContext(ctx, "nsenter", args...)); err != nil {
			return err
		}
	}
	return nil
}

func all(ctx context.Context, steps [][]string) error {
	for _, step := range steps {
		if err := ip(ctx, step...); err != nil {
			return err
		}
	}
	return nil
}

func ip(ctx context.Context, args ...string) error {
	return run(exec.CommandContext(ctx, "ip", args...))
}

// run runs a command whose output is of interest only when it fails.
func run(command *exec.Cmd) error {
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", command.Args, err, bytes.TrimSpace(output))
	}
	return nil
}
