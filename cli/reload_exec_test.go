package cli_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
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
	line := `a 'quoted" word ` + r.set
	r.awaitJournal(line, line)
	r.publish("three")
	r.awaitJournal(line, line, line)
	r.signal(syscall.SIGTERM)
	if got := r.code(); got != 0 {
		t.Errorf("exit code after SIGTERM: got %d, want 0", got)
	}
}

// TestReloadLimitsACommand: one that hangs is killed with what it has started, and is
// tried again.
func TestReloadLimitsACommand(t *testing.T) {
	r := newReloader(t)
	r.start("--timeout", "200ms", "--exec", "--", "sh", "-c", `echo run >>"$JOURNAL"; [ -e "$JOURNAL.twice" ] && exit 0
touch "$JOURNAL.twice"; trap '' TERM; sleep 1000 & wait; sleep 1000`)
	r.publish("one")
	r.awaitOutput("command killed after 200ms")
	r.awaitJournal("run", "run")
	if left := r.children(); len(left) > 0 {
		t.Errorf("processes %v are left", left)
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
