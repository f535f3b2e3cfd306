package cluster_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/chandler-k8s/chandler/test/cluster"
)

// control runs the command with a cache of its own and the binaries of the real
// one.
type control struct {
	t     *testing.T
	path  string
	cache string
	env   []string
}

func newControl(t *testing.T) *control {
	t.Helper()
	found, err := cluster.Find(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := &control{t: t, path: filepath.Join(dir, "cluster"), cache: filepath.Join(dir, "cache")}
	if output, err := exec.Command("go", "build", "-o", c.path, "./cmd/cluster").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	c.env = append(os.Environ(), "CHANDLER_CACHE="+c.cache, "KUBEBUILDER_ASSETS="+filepath.Dir(found.Etcd))
	t.Cleanup(func() {
		if output, err := c.run("down"); err != nil {
			t.Errorf("down: %v\n%s", err, output)
		}
	})
	return c
}

func (c *control) run(args ...string) (string, error) {
	command := exec.Command(c.path, args...)
	command.Env = c.env
	output, err := command.CombinedOutput()
	return string(output), err
}

// says runs the command and checks a part of what it says.
func (c *control) says(command, want string) {
	c.t.Helper()
	got, err := c.run(command)
	if err != nil || !strings.Contains(got, want) {
		c.t.Fatalf("%s: got %v and %q, want %q in it", command, err, got, want)
	}
}

func (c *control) dir() string { return filepath.Join(c.cache, "up") }

// assertServes checks what a user would do next with the kubeconfig.
func (c *control) assertServes() {
	c.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(c.dir(), "kubeconfig"))
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := clientset(c.t, config).ServerVersion(); err != nil {
		c.t.Error(err)
	}
}

func TestUpDown(t *testing.T) {
	c := newControl(t)
	c.says("down", "No control plane runs.")
	c.says("up", filepath.Join(c.dir(), "kubeconfig"))
	c.assertServes()
	first := workingIn(t, c.dir())
	if got, want := len(first), 3; got != want {
		t.Fatalf("processes: got %v, want %d", first, want)
	}
	c.says("up", "runs already")

	// After a crash everything is started anew.
	if err := syscall.Kill(first["kube-apiserver"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	poll(t, "end of the API server", func() bool {
		_, err := cluster.Identify(first["kube-apiserver"])
		return errors.Is(err, os.ErrNotExist)
	})
	c.says("up", filepath.Join(c.dir(), "kubeconfig"))
	c.assertServes()
	second := workingIn(t, c.dir())
	for program, pid := range first {
		if second[program] == 0 || second[program] == pid {
			t.Errorf("%s after the crash: got process %d, before it was %d", program, second[program], pid)
		}
	}

	bystander := c.listBystander()
	c.says("down", "stopped")
	assertNothing(t, c.dir())
	if err := bystander.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("a process with a recorded number, started at another time: %v", err)
	}
	c.says("down", "No control plane runs.")
}

// listBystander adds a process to the record with its true number and another
// start, as if its number had been the one of a component before.
func (c *control) listBystander() *exec.Cmd {
	c.t.Helper()
	bystander := exec.Command("sleep", "600")
	if err := bystander.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := bystander.Process.Kill(); err != nil {
			c.t.Error(err)
		}
		_ = bystander.Wait() // tells of the kill
	})
	path := filepath.Join(c.cache, "up.json")
	data, err := os.ReadFile(path)
	if err != nil {
		c.t.Fatal(err)
	}
	var record map[string]any
	if err := json.Unmarshal(data, &record); err != nil {
		c.t.Fatal(err)
	}
	processes, _ := record["processes"].([]any)
	last, _ := processes[len(processes)-1].(map[string]any)
	record["processes"] = append(processes, map[string]any{
		"name": "etcd", "pid": bystander.Process.Pid, "start": last["start"], "boot": last["boot"],
	})
	if data, err = json.Marshal(record); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return bystander
}

// TestUpInterrupted kills `up` half-way, where it cannot clean up.
func TestUpInterrupted(t *testing.T) {
	c := newControl(t)
	up := exec.Command(c.path, "up")
	up.Env = c.env
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(c.cache, "up.json")
	poll(t, "record of the API server", func() bool {
		data, err := os.ReadFile(record)
		return err == nil && strings.Contains(string(data), "kube-apiserver")
	})
	if err := up.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = up.Wait() // tells of the kill
	if got, want := len(workingIn(t, c.dir())), 2; got != want {
		t.Errorf("processes after up was killed: got %d, want %d", got, want)
	}
	c.says("down", "stopped")
	assertNothing(t, c.dir())
}

func TestCommandUsage(t *testing.T) {
	c := newControl(t)
	for _, args := range [][]string{{}, {"sideways"}, {"up", "twice"}, {"up", "--nodes", "some"}, {"stop"}, {"exec", "node-1"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			output, err := c.run(args...)
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.ExitCode() != 2 {
				t.Errorf("got %v, want exit code 2", err)
			}
			if !strings.HasPrefix(output, "Usage:") {
				t.Errorf("got %q, want the usage", output)
			}
		})
	}
}
