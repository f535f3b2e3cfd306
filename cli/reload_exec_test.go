package cli_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/chandler-k8s/chandler/cli"
)

// TestReloadRunsACommand: a run on each change, again after a failure, and none before.
func TestReloadRunsACommand(t *testing.T) {
	r := newReloader(t)
	r.publish("one")
	r.start("--exec", "--", "sh", "-c", `printf '%s\n' "$1 $CHANDLER_CHANGED" >>"$JOURNAL"; echo said; [ -e "$JOURNAL.good" ]`, "sh", `a 'quoted" word`)
	r.publish("two")
	r.awaitOutput("code 1")
	if err := os.WriteFile(r.journal+".good", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.awaitOutput("msg=\"reload triggered\" path=" + r.set + " what=sh")
	r.awaitOutput("said\n")
	// How many runs fail before the file is seen is up to the machine.
	line := `a 'quoted" word ` + r.set
	runs := strings.Count(r.read(), "\n")
	if runs < 2 {
		t.Errorf("got %d runs, want one that fails and one that succeeds", runs)
	}
	r.publish("three")
	r.awaitJournal(slices.Repeat([]string{line}, runs+1)...)
	r.signal(syscall.SIGTERM)
	if got := r.code(); got != 0 {
		t.Errorf("exit code after SIGTERM: got %d, want 0", got)
	}
}

// TestReloadLimitsACommand: one that hangs is killed with what it has started, and is
// tried again.
func TestReloadLimitsACommand(t *testing.T) {
	r := newReloader(t)
	r.start("--timeout", "3s", "--exec", "--", "sh", "-c", `[ -e "$JOURNAL.good" ] && exit 0; trap '' TERM; sleep 1000 & wait; sleep 1000`)
	r.publish("one")
	r.awaitOutput("command killed after 3s")
	if err := os.WriteFile(r.journal+".good", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.awaitOutput("msg=\"reload triggered\"")
	r.awaitNoChildren()
}

// TestReloadReapsWhatACommandLeaves: as the first process of a container it inherits
// what a command has started, and no further change need come.
func TestReloadReapsWhatACommandLeaves(t *testing.T) {
	r := newReloader(t)
	r.start("--exec", "--", "sh", "-c", `sleep 1000 & echo $! >>"$JOURNAL"`)
	r.publish("one")
	r.awaitOutput("msg=\"reload triggered\"")
	pid, err := strconv.Atoi(strings.TrimSpace(r.read()))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.awaitNoChildren()
}

// TestReloadEndsBySignal: without a wrapped command to pass it on to, a signal ends the
// program as it ends any other in Go. SIGQUIT stands for SIGHUP too, which is ignored
// where tests run under nohup.
func TestReloadEndsBySignal(t *testing.T) {
	r := newReloader(t)
	r.start("--exec", "--", "true")
	r.signal(syscall.SIGQUIT)
	if got := r.code(); got == 0 {
		t.Error("got exit code 0, want that of a signal")
	}
}

// TestReloadEndsACommand: the program's own end is that of a run under way.
func TestReloadEndsACommand(t *testing.T) {
	r := newReloader(t)
	r.start("--exec", "--", "sh", "-c", `trap 'echo terminated >>"$JOURNAL"; exit 1' TERM; echo run >>"$JOURNAL"; while :; do sleep 0.02; done`)
	r.publish("one")
	r.awaitJournal("run")
	r.signal(syscall.SIGTERM)
	if got := r.code(); got != 0 {
		t.Errorf("exit code after SIGTERM: got %d, want 0", got)
	}
	r.awaitJournal("run", "terminated")
}

// TestReloadWatchesSeveral: a consumer of two sets, and one that it does not read.
func TestReloadWatchesSeveral(t *testing.T) {
	r := newReloader(t)
	r.publish("one")
	aws := filepath.Join(filepath.Dir(r.set), "aws")
	r.start("--watch", aws, "--exec", "--", "sh", "-c", `echo "$CHANDLER_CHANGED" >>"$JOURNAL"`)
	r.publishSet("aws", "one")
	r.awaitJournal(aws)
	r.publishSet("cluster", "one")
	r.publish("two")
	r.awaitJournal(aws, r.set)
}

// TestReloadRefusesAHostDirectory: the files that change are those of its sets.
func TestReloadRefusesAHostDirectory(t *testing.T) {
	r := newReloader(t)
	r.publish("one")
	r.publishSet("aws", "one")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out bytes.Buffer
	err := cli.Run(ctx, []string{"reload", "--watch", filepath.Dir(r.set), "--", "sleep", "1000"}, os.Getenv, &out, &out)
	want := filepath.Join(filepath.Dir(r.set), "aws") + ", " + r.set
	if cli.ExitCode(err) != 2 || err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want a usage error that names %s", err, want)
	}
	// Files of its own count, beside the sets.
	if err := os.WriteFile(filepath.Join(filepath.Dir(r.set), "own"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cli.Run(ctx, []string{"reload", "--watch", filepath.Dir(r.set), "--", "true"}, os.Getenv, &out, &out); err != nil {
		t.Errorf("with a file: got %v", err)
	}
}
