package cli_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/chandler-k8s/chandler/cli"
	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/test/expect"
)

// asProgram makes the test binary be the program, so that tests have a process of
// it to signal and to wait for.
const asProgram = "CHANDLER_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "" {
		os.Exit(m.Run())
	}
	// As the first process of a container, it inherits what others leave behind.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := cli.Run(ctx, cli.Args(os.Args), func(string) string { return "" }, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chandler:", err)
	}
	os.Exit(cli.ExitCode(err))
}

// patience bounds every wait, for the sake of slow machines.
const patience = time.Minute

// reloader is a running `chandler reload` and the set that it watches.
type reloader struct {
	t       *testing.T
	dir     *hostfiles.Dir
	set     string // the directory of the set
	journal string // where the consumers of the tests write
	cmd     *exec.Cmd
	ended   chan struct{}
	output  expect.Log
}

func newReloader(t *testing.T) *reloader {
	t.Helper()
	host := t.TempDir()
	dir, err := hostfiles.Open(host)
	expect.OK(t, err)
	t.Cleanup(func() { expect.OK(t, dir.Close()) })
	return &reloader{t: t, dir: dir, set: filepath.Join(host, "scraper"), journal: filepath.Join(t.TempDir(), "journal")}
}

// start runs the program and returns once it watches.
func (r *reloader) start(args ...string) {
	r.t.Helper()
	r.cmd = exec.Command(os.Args[0], append([]string{"reload", "--log-format", "text", "--log-level", "debug", "--watch", r.set}, args...)...)
	r.cmd.Env = append(os.Environ(), asProgram+"=yes", "JOURNAL="+r.journal)
	r.cmd.Stdout, r.cmd.Stderr = &r.output, &r.output
	r.cmd.WaitDelay = 5 * time.Second
	expect.OK(r.t, r.cmd.Start())
	r.ended = make(chan struct{})
	go func() {
		defer close(r.ended)
		_ = r.cmd.Wait() // the exit code is looked at by code
	}()
	r.t.Cleanup(func() {
		wrapped := r.children()
		r.signal(syscall.SIGKILL)
		<-r.ended
		for _, pid := range wrapped {
			_ = syscall.Kill(-pid, syscall.SIGKILL) // its group, if it has not ended by itself
		}
		if r.t.Failed() {
			r.t.Logf("output:\n%s\njournal:\n%s", r.output.String(), r.read())
		}
	})
	r.awaitOutput("msg=watching")
}

// children are the commands that the program runs, each the first of its group.
func (r *reloader) children() (pids []int) {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", r.cmd.Process.Pid))
	expect.OK(r.t, err)
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread may have ended
		for number := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(number)
			expect.OK(r.t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

// awaitNoChildren waits until the program has no children, also none that have ended.
func (r *reloader) awaitNoChildren() {
	r.t.Helper()
	eventually(r.t, func() (bool, string) {
		left := r.children()
		return len(left) == 0, fmt.Sprintf("processes %v are left", left)
	})
}

func (r *reloader) signal(s syscall.Signal) {
	if err := r.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		r.t.Error(err)
	}
}

// code waits for the end of the program and returns its exit code.
func (r *reloader) code() int {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patience):
		r.t.Fatal("the program does not end")
	}
	return r.cmd.ProcessState.ExitCode()
}

func (r *reloader) publish(content string) { r.publishSet("scraper", content) }

func (r *reloader) publishSet(set, content string) {
	r.t.Helper()
	_, err := r.dir.Publish(set, []hostfiles.File{{Name: "tls.crt", Mode: 0o444, UID: -1, GID: -1, Data: []byte(content)}})
	expect.OK(r.t, err)
}

func (r *reloader) read() string {
	data, err := os.ReadFile(r.journal)
	if err != nil && !os.IsNotExist(err) {
		r.t.Error(err)
	}
	return string(data)
}

// awaitJournal waits until the consumers have written exactly these lines.
func (r *reloader) awaitJournal(want ...string) {
	r.t.Helper()
	text := strings.Join(want, "\n") + "\n"
	eventually(r.t, func() (bool, string) {
		got := r.read()
		return got == text, fmt.Sprintf("journal: got %q, want %q", got, text)
	})
}

func (r *reloader) awaitOutput(part string) {
	r.t.Helper()
	eventually(r.t, func() (bool, string) {
		return strings.Contains(r.output.String(), part), fmt.Sprintf("no %q in the output", part)
	})
}

// consumer runs a shell script as a process of its own until the test ends, and
// returns once the script has written "ready".
func (r *reloader) consumer(shell, script string) *exec.Cmd {
	r.t.Helper()
	cmd := exec.Command(shell, "-c", script)
	cmd.Env = append(os.Environ(), "JOURNAL="+r.journal)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	expect.OK(r.t, cmd.Start())
	r.t.Cleanup(func() {
		expect.OK(r.t, syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)) // its workers too
		_ = cmd.Wait()                                                  // killed, so never a success
	})
	r.awaitJournal("ready")
	return cmd
}

func eventually(t testing.TB, done func() (bool, string)) {
	t.Helper()
	expect.Done(t, patience, done)
}
