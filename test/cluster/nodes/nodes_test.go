package nodes

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/pki"
)

func example(t *testing.T) *set {
	t.Helper()
	s, err := read(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s.Network = "10.150"
	for i, name := range []string{"node-1", "node-2"} {
		s.Nodes = append(s.Nodes, &node{Name: name, Index: i + 1, set: s})
	}
	return s
}

func TestRecord(t *testing.T) {
	s := example(t)
	s.Ready = true
	s.Nodes[1].Init = cluster.Identity{Name: "node-2", PID: 1 << 30, Start: 5, Boot: "b"}
	if err := s.write(); err != nil {
		t.Fatal(err)
	}
	got, err := read(filepath.Dir(s.path))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, got, cmp.AllowUnexported(set{}), cmp.Comparer(func(a, b *node) bool {
		return a.Name == b.Name && a.Index == b.Index && a.Init == b.Init && a.root() == b.root()
	})); diff != "" {
		t.Errorf("record (-written +read):\n%s", diff)
	}
	if got.Nodes[1].alive() {
		t.Error("a process that is not there: got alive")
	}
	other, err := read(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if other.id == s.id {
		t.Errorf("two cache directories have the same names on this machine: %s", s.id)
	}
}

func TestRecordThatIsNone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "nodes.json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := read(dir); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want an error that names %s", err, path)
	}
}

func TestNamesFitTheKernel(t *testing.T) {
	const longest = 15 // IFNAMSIZ without its zero
	s := example(t)
	for _, name := range []string{s.bridge(), s.Nodes[1].link()} {
		if len(name) > longest {
			t.Errorf("%s: got %d characters, want at most %d", name, len(name), longest)
		}
	}
}

func TestFreeNetwork(t *testing.T) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"000000", "64ad12", "ffffff"} {
		network, err := freeNetwork(id)
		if err != nil {
			t.Fatal(err)
		}
		_, got, err := net.ParseCIDR(network + ".0.0/16")
		if err != nil {
			t.Fatal(err)
		}
		for _, address := range addresses {
			if taken, ok := address.(*net.IPNet); ok && got.Contains(taken.IP) {
				t.Errorf("network for %s: got %s, which %s is in", id, got, taken)
			}
		}
	}
}

func TestConfigure(t *testing.T) {
	n := example(t).Nodes[1]
	if err := n.configure(); err != nil {
		t.Fatal(err)
	}
	for _, file := range templates {
		data, err := os.ReadFile(filepath.Join(n.root(), file.path))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "<no value>") {
			t.Errorf("%s lacks a fact:\n%s", file.path, data)
		}
		var parsed map[string]any
		switch filepath.Ext(file.path) {
		case ".yaml":
			err = yaml.UnmarshalStrict(data, &parsed)
		case ".conflist":
			err = json.Unmarshal(data, &parsed)
		}
		if err != nil {
			t.Errorf("%s: %v", file.path, err)
		}
	}
	network, err := os.ReadFile(filepath.Join(n.root(), "etc/cni/net.d/pods.conflist"))
	if err != nil || !strings.Contains(string(network), `"10.150.2.0/24"`) {
		t.Errorf("network of pods: got %v and %s, want the node's own", err, network)
	}
}

func TestCredentials(t *testing.T) {
	n := example(t).Nodes[0]
	ca, err := pki.NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.configure(); err != nil {
		t.Fatal(err)
	}
	if err := n.credentials(ca, "https://10.150.0.1:6443"); err != nil {
		t.Fatal(err)
	}
	serving, err := pki.Read(filepath.Join(n.root(), "etc/kubernetes"), "kubelet")
	if err != nil {
		t.Fatal(err)
	}
	if err := serving.Certificate.VerifyHostname("10.150.0.11"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"kubelet.key", "kubelet.kubeconfig", "kube-proxy.kubeconfig"} {
		info, err := os.Stat(filepath.Join(n.root(), "etc/kubernetes", name))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := info.Mode().Perm(), os.FileMode(0o600); got != want {
			t.Errorf("mode of %s: got %v, want %v", name, got, want)
		}
	}
}

func TestUnmounted(t *testing.T) {
	if err := unmounted(t.TempDir()); err != nil {
		t.Error(err)
	}
	// /proc itself, and what is below /.
	for _, dir := range []string{"/proc", ""} {
		if err := unmounted(dir); err == nil {
			t.Errorf("%q has mounts: got no error", dir)
		}
	}
}

func TestPrune(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "group")
	if err := os.MkdirAll(filepath.Join(dir, "kubepods", "pod"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is none
		if err := prune(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v, want it gone", err)
		}
	}
}

func TestRetry(t *testing.T) {
	asked := 0
	err := retry(t.Context(), time.Minute, func() error {
		if asked++; asked < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil || asked != 3 {
		t.Errorf("got %v after %d times, want success at the third", err, asked)
	}
	never := errors.New("never")
	if err := retry(t.Context(), time.Nanosecond, func() error { return never }); !errors.Is(err, never) {
		t.Errorf("got %v, want the last answer", err)
	}
}

func TestWithoutNodes(t *testing.T) {
	t.Setenv("CHANDLER_CACHE", t.TempDir())
	for name, ask := range map[string]func() error{
		"stop":  func() error { return Stop(t.Context(), "node-1") },
		"start": func() error { return Start(t.Context(), "node-1") },
		"cut":   func() error { return Cut(t.Context(), "node-1") },
		"env":   func() error { return Env(t.Context(), t.Output()) },
		"none":  func() error { return Up(t.Context(), t.Output(), 0) },
		"many":  func() error { return Up(t.Context(), t.Output(), maxNodes+1) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := ask(); err == nil {
				t.Error("got no error")
			}
		})
	}
	if err := Down(t.Context(), t.Output()); err != nil {
		t.Errorf("down: %v", err)
	}
}
