package cluster

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// miniature is a module that stands for binaries/: the same packages, each a
// program that prints the version it was built with.
func miniature(t *testing.T) string {
	t.Helper()
	const program = "package main\n\nimport \"k8s.io/component-base/version\"\n\nfunc main() { print(version.String()) }\n"
	const version = "package version\n\nvar gitVersion, gitMajor, gitMinor string\n\n" +
		"func String() string { return gitVersion + \" \" + gitMajor + \" \" + gitMinor }\n"
	const base = "\nrequire k8s.io/component-base v0.9.0\n"
	files := map[string]string{
		"go.mod": "module example.com/miniature\n\ngo 1.26.0\n\n" +
			"require (\n\tk8s.io/kubernetes v1.9.2\n\tgo.etcd.io/etcd/server/v3 v3.0.0\n\tk8s.io/component-base v0.9.0\n)\n\n" +
			"replace (\n\tk8s.io/kubernetes => ./kubernetes\n\tgo.etcd.io/etcd/server/v3 => ./etcd\n\tk8s.io/component-base => ./base\n)\n",
		"go.sum":                                "",
		"base/go.mod":                           "module k8s.io/component-base\n\ngo 1.26.0\n",
		"base/version/v.go":                     version,
		"etcd/go.mod":                           "module go.etcd.io/etcd/server/v3\n\ngo 1.26.0\n" + base,
		"etcd/main.go":                          program,
		"kubernetes/go.mod":                     "module k8s.io/kubernetes\n\ngo 1.26.0\n" + base,
		"kubernetes/cmd/kube-apiserver/main.go": program,
		"kubernetes/cmd/kube-controller-manager/main.go": program,
	}
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBuildOnce(t *testing.T) {
	source := miniature(t)
	target := filepath.Join(t.TempDir(), "key")
	logs := make([]bytes.Buffer, 3)
	var group sync.WaitGroup
	for i := range logs {
		group.Go(func() {
			b := &builder{set: controlPlane(), source: source, target: target, log: &logs[i], remind: time.Millisecond}
			if err := b.ensure(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	said := logs[0].String() + logs[1].String() + logs[2].String()
	if got, want := strings.Count(said, "Built the control plane"), 1; got != want {
		t.Errorf("builds: got %d, want %d:\n%s", got, want, said)
	}
	if got, want := strings.Count(said, "still compiling"), 3; got < want {
		t.Errorf("reminders: got %d, want at least %d:\n%s", got, want, said)
	}
	for _, c := range controlPlane().components {
		output, err := exec.Command(filepath.Join(target, c.name)).CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(output), "v1.9.2 1 9"; got != want {
			t.Errorf("version of %s: got %q, want %q", c.name, got, want)
		}
	}
	var warm bytes.Buffer
	if err := (&builder{set: controlPlane(), source: source, target: target, log: &warm}).ensure(t.Context()); err != nil {
		t.Error(err)
	}
	if got := warm.String(); got != "" {
		t.Errorf("output of a warm start: got %q, want none", got)
	}
}

func TestBuildFailureShowsTheCompiler(t *testing.T) {
	source := miniature(t)
	if err := os.WriteFile(filepath.Join(source, "etcd", "main.go"), []byte("package main\n\nfunc main() { absent() }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(t.TempDir(), "key")
	err := (&builder{set: controlPlane(), source: source, target: target, log: t.Output(), remind: time.Minute}).ensure(t.Context())
	if err == nil || !strings.Contains(err.Error(), "undefined: absent") {
		t.Errorf("got %v, want the compiler's message", err)
	}
	if _, err := os.Stat(filepath.Join(target, "etcd")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("executable after a failed build: got %v, want none", err)
	}
}

func TestBuildEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	target := filepath.Join(t.TempDir(), "key")
	// The first reminder comes while a compiler runs.
	b := &builder{set: controlPlane(), source: miniature(t), target: target, log: cancelling(cancel), remind: time.Millisecond}
	if err := b.ensure(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want Canceled", err)
	}
	if got, want := len(controlPlane().missing(target)), 3; got != want {
		t.Errorf("missing executables: got %d, want %d", got, want)
	}
}

// cancelling is a log that ends the build when it tells of one that goes on.
type cancelling context.CancelFunc

func (c cancelling) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("still compiling")) {
		c()
	}
	return len(line), nil
}

func TestAssets(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]fs.FileMode{"etcd": 0o755, "kube-apiserver": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("KUBEBUILDER_ASSETS", dir)
	_, err := Find(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), dir+" lacks an executable kube-apiserver, kube-controller-manager;") {
		t.Errorf("got %v, want both missing names", err)
	}
	for _, c := range controlPlane().components {
		if err := os.WriteFile(filepath.Join(dir, c.name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, c.name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Find(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Binaries{Etcd: dir + "/etcd", APIServer: dir + "/kube-apiserver", ControllerManager: dir + "/kube-controller-manager"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("binaries (-want +got):\n%s", diff)
	}
}

func TestCacheKeyFollowsTheModule(t *testing.T) {
	source := miniature(t)
	keys := map[string]bool{}
	for _, change := range []string{"", "// changed\n"} {
		for _, name := range []string{"go.mod", "go.sum"} {
			file, err := os.OpenFile(filepath.Join(source, name), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = file.WriteString(change)
			if err := errors.Join(err, file.Close()); err != nil {
				t.Fatal(err)
			}
			key, err := cacheKey(source)
			if err != nil {
				t.Fatal(err)
			}
			keys[key] = true
		}
	}
	if got, want := len(keys), 3; got != want {
		t.Errorf("keys of the module, of another go.mod and of another go.sum: got %d, want %d", got, want)
	}
}

func TestIdentity(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	// The name stands in the line that is parsed.
	odd := filepath.Join(t.TempDir(), "x) Z 1 (y")
	if err := os.Symlink(sleep, odd); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(odd, "600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := Identify(child.Process.Pid)
	if err != nil || !id.Alive() {
		t.Errorf("running process: got %+v, alive %t, %v", id, id.Alive(), err)
	}
	other := id
	other.Start++
	if other.Alive() {
		t.Error("a process of another start: got alive")
	}
	if err := other.End(); err != nil {
		t.Errorf("end of a process that is not there: %v", err)
	}
	if err := id.End(); err != nil {
		t.Error(err)
	}
	// It is a zombie now, of which only the number is left.
	if id.Alive() {
		t.Error("zombie: got alive")
	}
	_ = child.Wait() // tells of the signal
	if _, err := Identify(child.Process.Pid); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("process that has been waited for: got %v, want ErrNotExist", err)
	}
}
