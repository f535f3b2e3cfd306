package cluster_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/chandler-k8s/chandler/test/cluster"
)

// workingIn returns the processes whose working directory is dir, as every
// component's is, by program.
func workingIn(t *testing.T, dir string) map[string]int {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, link := range links {
		// Processes end while we look, and others' are not readable.
		target, err := os.Readlink(link)
		if err != nil || strings.TrimSuffix(target, " (deleted)") != dir {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err != nil {
			t.Fatal(err)
		}
		program, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
		if err == nil {
			found[filepath.Base(program)] = pid
		}
	}
	return found
}

func TestStopLeavesNothing(t *testing.T) {
	t.Setenv("ETCD_NAME", "a variable that etcd would take for a flag")
	c, err := cluster.Start(t.Context(), cluster.Options{Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(workingIn(t, c.Dir())), 3; got != want {
		t.Errorf("processes: got %d, want %d", got, want)
	}
	for _, round := range []string{"first", "again"} {
		if err := c.Stop(); err != nil {
			t.Errorf("stop, %s: %v", round, err)
		}
	}
	assertNothing(t, c.Dir())
}

func assertNothing(t *testing.T, dir string) {
	t.Helper()
	if got := workingIn(t, dir); len(got) > 0 {
		t.Errorf("processes left: %v", got)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("directory %s: got %v, want it removed", dir, err)
	}
}

// TestStopKeepsNamedDirectory also covers a component that dies by itself.
func TestStopKeepsNamedDirectory(t *testing.T) {
	// Longer than the path of a Unix socket may be.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 25))
	c, err := cluster.Start(t.Context(), cluster.Options{Dir: dir, Log: t.Output(), NoControllerManager: true})
	if err != nil {
		t.Fatal(err)
	}
	etcd, err := os.FindProcess(workingIn(t, dir)["etcd"])
	if err != nil {
		t.Fatal(err)
	}
	if err := etcd.Kill(); err != nil {
		t.Fatal(err)
	}
	poll(t, "end of etcd", func() bool { return c.Ended() != nil }) // gone is not yet waited for
	if err := c.Stop(); err == nil {
		t.Error("stop after etcd was killed: got no error")
	} else {
		t.Log(err)
	}
	if got := workingIn(t, dir); len(got) > 0 {
		t.Errorf("processes left: %v", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "etcd.log")); err != nil {
		t.Errorf("named directory was not kept: %v", err)
	}
	if _, err := cluster.Start(t.Context(), cluster.Options{Dir: dir}); err == nil {
		t.Error("start in a directory that is not empty: got no error")
	}
}

func TestStartFailureCarriesTheLog(t *testing.T) {
	_, err := cluster.Start(t.Context(), cluster.Options{
		Log: t.Output(), APIServerArgs: []string{"--no-such-flag"},
	})
	if err == nil {
		t.Fatal("got no error")
	}
	if got, want := err.Error(), "unknown flag: --no-such-flag"; !strings.Contains(got, want) {
		t.Errorf("error: got %q, want the API server's own %q in it", got, want)
	}
}

// hold is the life of the process that TestKilledOwner kills.
func hold(t *testing.T) {
	c, err := cluster.Start(t.Context(), cluster.Options{NoControllerManager: true})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("DIR " + c.Dir())
	select {}
}

// TestKilledOwner runs itself in a second process.
func TestKilledOwner(t *testing.T) {
	const inOwner = "CHANDLER_TEST_HOLD"
	if os.Getenv(inOwner) != "" {
		hold(t)
	}
	owner := exec.Command(os.Args[0], "-test.run=^TestKilledOwner$")
	owner.Env = append(os.Environ(), inOwner+"=1")
	output, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	dir := ""
	for lines := bufio.NewScanner(output); dir == "" && lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "DIR "); ok {
			dir = rest
		}
	}
	before := workingIn(t, dir)
	killErr := owner.Process.Kill()
	// Its error tells of the kill.
	_ = owner.Wait()
	if killErr != nil || len(before) != 2 {
		t.Fatalf("kill the owner of %v in %q: %v", before, dir, killErr)
	}
	poll(t, "end of the components", func() bool { return len(workingIn(t, dir)) == 0 })

	// The next start removes the data, here one that fails at once.
	if _, err := cluster.Start(t.Context(), cluster.Options{APIServerArgs: []string{"--no-such-flag"}}); err == nil {
		t.Error("start with a wrong flag: got no error")
	}
	assertNothing(t, dir)
}
