//go:build e2e

package nodes_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/cluster/nodes"
)

// control runs the command with a cache of its own, in which the programs are those
// of the real one.
type control struct {
	t     *testing.T
	path  string
	cache string
}

func newControl(t *testing.T) *control {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("real nodes need root: run this as root")
	}
	shared, err := cluster.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.FindForNodes(t.Context(), t.Output()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := &control{t: t, path: filepath.Join(dir, "cluster"), cache: filepath.Join(dir, "cache")}
	if err := os.Mkdir(c.cache, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"binaries", "node-packages"} {
		if err := os.Symlink(filepath.Join(shared, name), filepath.Join(c.cache, name)); err != nil {
			t.Fatal(err)
		}
	}
	if output, err := exec.Command("go", "build", "-o", c.path, "../cmd/cluster").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	t.Cleanup(func() { c.run("down") })
	return c
}

func (c *control) command(args ...string) *exec.Cmd {
	command := exec.Command(c.path, args...)
	command.Env = append(os.Environ(), "CHANDLER_CACHE="+c.cache)
	return command
}

func (c *control) run(args ...string) string {
	c.t.Helper()
	output, err := c.command(args...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("cluster %v: %v\n%s", args, err, output)
	}
	return string(output)
}

// record is what the command knows of nodes: the first process of each.
func (c *control) record() map[string]cluster.Identity {
	var record struct {
		Nodes []struct {
			Name string
			Init cluster.Identity
		}
	}
	data, err := os.ReadFile(filepath.Join(c.cache, "nodes.json"))
	if err != nil || json.Unmarshal(data, &record) != nil {
		return nil
	}
	inits := map[string]cluster.Identity{}
	for _, n := range record.Nodes {
		inits[n.Name] = n.Init
	}
	return inits
}

// namespaces returns those of the nodes' processes.
func (c *control) namespaces() map[string]bool {
	found := map[string]bool{}
	for _, init := range c.record() {
		if link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", init.PID)); err == nil && init.Alive() {
			found[link] = true
		}
	}
	return found
}

// assertNothing looks for whatever nodes are made of.
func (c *control) assertNothing(namespaces map[string]bool) {
	c.t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, path := range links {
		if link, err := os.Readlink(path); err == nil && namespaces[link] {
			c.t.Errorf("process left in a node's namespace: %s", path)
		}
	}
	id, err := nodes.NodesID(c.cache)
	if err != nil {
		c.t.Fatal(err)
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, i := range interfaces {
		if strings.HasPrefix(i.Name, "ch"+id) {
			c.t.Errorf("interface left: %s", i.Name)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/chandler-" + id + "-*", c.cache + "/nodes*", c.cache + "/up*"} {
		left, err := filepath.Glob(pattern)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, path := range left {
			if !strings.HasSuffix(path, ".lock") {
				c.t.Errorf("left: %s", path)
			}
		}
	}
}

// assertLinked looks at this machine's end of the link to a node.
func (c *control) assertLinked(name string) {
	c.t.Helper()
	id, err := nodes.NodesID(c.cache)
	if err != nil {
		c.t.Fatal(err)
	}
	link, err := net.InterfaceByName("ch" + id + strings.TrimPrefix(name, "node"))
	if err != nil || link.Flags&net.FlagUp == 0 {
		c.t.Errorf("link of %s: got %v, %v, want it up", name, link, err)
	}
}

func poll(t *testing.T, what string, ask func() bool) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for !ask() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// TestKilledHalfway kills `up` where it cannot clean up.
func TestKilledHalfway(t *testing.T) {
	c := newControl(t)
	cases := []struct {
		name string
		come func() bool
	}{
		{"network", func() bool { return c.record() != nil }},
		{"control plane", func() bool { _, err := os.Stat(c.cache + "/up.json"); return err == nil }},
		{"first node", func() bool { return c.record()["node-1"].PID != 0 }},
		{"kubelet", func() bool { _, err := os.Stat(c.cache + "/nodes/node-1/kubelet.log"); return err == nil }},
		{"second node", func() bool { return c.record()["node-2"].PID != 0 }},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			up := c.command("up", "--nodes", "2")
			up.Stdout, up.Stderr = t.Output(), t.Output()
			if err := up.Start(); err != nil {
				t.Fatal(err)
			}
			poll(t, test.name, test.come)
			if err := up.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = up.Wait() // tells of the kill
			before := c.namespaces()
			c.run("down")
			c.assertNothing(before)
		})
	}
}

// TestUpMends has a second start find what a crash left, without `down` between.
func TestUpMends(t *testing.T) {
	c := newControl(t)
	c.run("up", "--nodes", "2")
	first := c.record()
	if err := first["node-1"].End(); err != nil {
		t.Fatal(err)
	}
	c.run("cut", "node-2")
	c.run("up", "--nodes", "2")
	c.assertLinked("node-2")
	second := c.record()
	if second["node-1"] == first["node-1"] || second["node-2"] != first["node-2"] {
		t.Errorf("after a node ended: got %v, want another node-1 than in %v", second, first)
	}
	if output, err := c.command("up", "--nodes", "3").CombinedOutput(); err == nil {
		t.Errorf("another number of nodes: got no error:\n%s", output)
	}

	before := c.namespaces()
	var control struct{ Processes []cluster.Identity }
	data, err := os.ReadFile(c.cache + "/up.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &control); err != nil {
		t.Fatal(err)
	}
	if err := control.Processes[0].End(); err != nil {
		t.Fatal(err)
	}
	c.run("up", "--nodes", "2")
	for name, init := range c.record() {
		if init == second[name] || !init.Alive() {
			t.Errorf("%s after etcd ended: got %v, before it was %v", name, init, second[name])
		}
	}
	for namespace := range c.namespaces() {
		before[namespace] = true
	}
	c.run("down")
	c.assertNothing(before)
}
