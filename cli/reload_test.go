package cli_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/chandler-k8s/chandler/cli"
	"github.com/chandler-k8s/chandler/test/expect"
)

// onHangup is a consumer that tells of its signal.
//
// A shell cannot trap SIGHUP where tests run under nohup, so another signal stands
// for it.
const onHangup = `trap 'echo hangup >>"$JOURNAL"' USR2; echo ready >>"$JOURNAL"; while :; do sleep 0.02; done`

func TestReloadSignalsByPIDFile(t *testing.T) {
	r := newReloader(t)
	r.publish("one")
	consumer := r.consumer("sh", onHangup)
	file := filepath.Join(t.TempDir(), "pid")
	r.start("--signal", "USR2", "--pid-file", file)
	r.publish("two")
	r.awaitOutput("reload failed") // the consumer writes its file late
	expect.OK(t, os.WriteFile(file, fmt.Appendf(nil, "%d\n", consumer.Process.Pid), 0o600))
	r.awaitJournal("ready", "hangup")
	// Events without a change of content: the same again, and other modes.
	r.publish("two")
	expect.OK(t, os.WriteFile(filepath.Join(r.set, "..stray"), []byte("x"), 0o600))
	expect.OK(t, os.Chmod(filepath.Join(r.set, "tls.crt"), 0o440))
	// Content that goes is nothing to reload.
	_, err := r.dir.Remove("scraper")
	expect.OK(t, err)
	r.publish("two")
	r.publish("three")
	r.awaitJournal("ready", "hangup", "hangup")
	r.signal(syscall.SIGTERM)
	if got := r.code(); got != 0 {
		t.Errorf("exit code after SIGTERM: got %d, want 0", got)
	}
}

func TestReloadRefusesPIDFiles(t *testing.T) {
	for name, content := range map[string]string{"a group": "-1", "every process": "0", "no number": "x", "empty": ""} {
		t.Run(name, func(t *testing.T) {
			r := newReloader(t)
			file := filepath.Join(t.TempDir(), "pid")
			expect.OK(t, os.WriteFile(file, []byte(content), 0o600))
			r.start("--signal", "SIGTERM", "--pid-file", file)
			r.publish("one")
			r.awaitOutput("want the number of a process")
		})
	}
}

// namedShell is a shell by another name, which is longer than the kernel keeps.
func namedShell(t *testing.T) string {
	t.Helper()
	shell, err := exec.LookPath("sh")
	expect.OK(t, err)
	data, err := os.ReadFile(shell)
	expect.OK(t, err)
	path := filepath.Join(t.TempDir(), fmt.Sprintf("rl-%d-consumer", os.Getpid()))
	expect.OK(t, os.WriteFile(path, data, 0o755))
	return path
}

func TestReloadSignalsByName(t *testing.T) {
	r := newReloader(t)
	shell := namedShell(t)
	// A server with a worker of the same name: the server is meant.
	r.consumer(shell, `( trap 'echo worker >>"$JOURNAL"' USR2; while :; do sleep 0.02; done ) &
`+onHangup)
	r.start("--signal", "usr2", "--process", filepath.Base(shell))
	r.publish("one") // the directory is new
	r.awaitJournal("ready", "hangup")
}

func TestReloadByNameOfSeveral(t *testing.T) {
	r := newReloader(t)
	shell := namedShell(t)
	r.start("--signal", "USR2", "--process", filepath.Base(shell))
	r.publish("one")
	r.awaitOutput("no process is called")
	first := r.consumer(shell, onHangup)
	expect.OK(t, os.Remove(r.journal))
	r.awaitJournal("hangup") // it is tried again until there is one
	expect.OK(t, os.Remove(r.journal))
	second := r.consumer(shell, onHangup)
	r.publish("two")
	r.awaitOutput("use a pid file")
	if first.Process.Pid == second.Process.Pid {
		t.Fatal("the consumers are one")
	}
	if got, want := r.read(), "ready\n"; got != want {
		t.Errorf("journal: got %q, want %q: neither is signalled", got, want)
	}
}

func TestReloadPosts(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/-/reload" {
			t.Errorf("got %s %s, want POST /-/reload", r.Method, r.URL.Path)
		}
		switch asked.Add(1) {
		case 1:
			http.Error(w, "bad configuration", http.StatusInternalServerError)
		case 2:
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}
	}))
	defer server.Close()
	r := newReloader(t)
	r.publish("one")
	r.start("--url", server.URL+"/-/reload")
	r.publish("two")
	r.awaitOutput("500 Internal Server Error")
	r.awaitOutput("bad configuration")
	r.awaitOutput("302 Found")
	r.awaitOutput("msg=\"reload triggered\"")
	if got := asked.Load(); got != 3 {
		t.Errorf("POSTs: got %d, want 3", got)
	}
}

// wrapped writes what happens to it.
const wrapped = `echo started >>"$JOURNAL"
trap 'echo terminated >>"$JOURNAL"; exit 7' TERM
trap 'echo usr1 >>"$JOURNAL"' USR1
while :; do sleep 0.02; done`

func TestReloadRestartsACommand(t *testing.T) {
	r := newReloader(t)
	r.start("--", "sh", "-c", wrapped)
	r.awaitJournal("started")
	r.publish("one")
	r.awaitJournal("started", "terminated", "started")
	r.publish("two")
	r.awaitJournal("started", "terminated", "started", "terminated", "started")
	r.signal(syscall.SIGUSR1)
	r.awaitJournal("started", "terminated", "started", "terminated", "started", "usr1")
	r.signal(syscall.SIGTERM)
	if got := r.code(); got != 7 {
		t.Errorf("exit code: got %d, want the command's 7", got)
	}
	r.awaitJournal("started", "terminated", "started", "terminated", "started", "usr1", "terminated")
}

func TestReloadForwardsExitCodes(t *testing.T) {
	for name, tt := range map[string]struct {
		script string
		want   int
	}{
		"success": {"exit 0", 0}, "failure": {"exit 3", 3}, "like a usage error": {"exit 2", 2}, "killed": {"kill -KILL $$", 137},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReloader(t)
			r.start("--", "sh", "-c", tt.script)
			if got := r.code(); got != tt.want {
				t.Errorf("exit code: got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestReloadWithoutItsCommand(t *testing.T) {
	r := newReloader(t)
	r.start("--", filepath.Join(t.TempDir(), "absent"))
	if got := r.code(); got != 1 {
		t.Errorf("exit code: got %d, want 1", got)
	}
}

// TestReloadKills a command that does not end, and what its group has left behind.
func TestReloadKills(t *testing.T) {
	r := newReloader(t)
	r.start("--grace", "100ms", "--", "sh", "-c", `trap '' TERM; echo started >>"$JOURNAL"
sleep 1000 & echo $! >"$JOURNAL.sleeper"; while :; do sleep 0.02; done`)
	r.awaitJournal("started")
	var sleeper int
	eventually(t, func() (bool, string) {
		data, err := os.ReadFile(r.journal + ".sleeper")
		_, scanned := fmt.Sscan(string(data), &sleeper)
		return err == nil && scanned == nil, "no process number"
	})
	r.publish("one")
	r.awaitJournal("started", "started")
	eventually(t, func() (bool, string) {
		return errors.Is(syscall.Kill(sleeper, 0), syscall.ESRCH), "what the first run left behind still lives"
	})
}

// TestReloadReaps: the program inherits what a command leaves behind.
func TestReloadReaps(t *testing.T) {
	r := newReloader(t)
	r.start("--", "sh", "-c", `( ( exec sh -c 'echo $$ >"$JOURNAL.orphan"; sleep 0.2' ) & ); echo started >>"$JOURNAL"; while :; do sleep 0.02; done`)
	r.awaitJournal("started")
	var orphan int
	eventually(t, func() (bool, string) {
		data, err := os.ReadFile(r.journal + ".orphan")
		_, scanned := fmt.Sscan(string(data), &orphan)
		return err == nil && scanned == nil, "no process number"
	})
	eventually(t, func() (bool, string) {
		return errors.Is(syscall.Kill(orphan, 0), syscall.ESRCH), "the orphan has not been cleared away"
	})
}

func TestReloadUsage(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"no directory":       {[]string{"--url", "http://localhost"}, "--watch is required"},
		"nothing to do":      {[]string{"--watch", "/x"}, "want one of"},
		"two things to do":   {[]string{"--watch", "/x", "--url", "http://localhost", "--", "true"}, "want one of"},
		"signal to nobody":   {[]string{"--watch", "/x", "--signal", "HUP"}, "--signal goes with"},
		"signal to both":     {[]string{"--watch", "/x", "--signal", "HUP", "--pid-file", "f", "--process", "p"}, "--signal goes with"},
		"nobody's signal":    {[]string{"--watch", "/x", "--url", "http://localhost", "--process", "p"}, "--signal goes with"},
		"unknown signal":     {[]string{"--watch", "/x", "--signal", "HANGUP", "--process", "p"}, "HANGUP"},
		"not a URL":          {[]string{"--watch", "/x", "--url", "localhost:9090"}, "http://HOST/PATH"},
		"command not dashed": {[]string{"--watch", "/x", "true"}, "a command goes after --"},
		"half dashed":        {[]string{"--watch", "/x", "true", "--", "true"}, "a command goes after --"},
		"hook without dash":  {[]string{"--watch", "/x", "--exec", "nginx -s reload"}, "a command goes after --"},
		"hook of nothing":    {[]string{"--watch", "/x", "--exec"}, "--exec"},
		"hook and URL":       {[]string{"--watch", "/x", "--url", "http://localhost", "--exec", "--", "true"}, "want one of"},
		"no time at all":     {[]string{"--watch", "/x", "--timeout", "0s", "--exec", "--", "true"}, "--timeout"},
		"one without a name": {[]string{"--watch", "/x", "--watch", "", "--", "true"}, "--watch is required"},
		"negative grace":     {[]string{"--watch", "/x", "--grace", "-1s", "--", "true"}, "--grace"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := cli.Run(t.Context(), append([]string{"reload"}, tt.args...), os.Getenv, &out, &out)
			if cli.ExitCode(err) != 2 || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want a usage error with %q", err, tt.want)
			}
		})
	}
}

// TestReloadPassesEachSignalOnce: to many programs a second SIGTERM means "at once".
func TestReloadPassesEachSignalOnce(t *testing.T) {
	r := newReloader(t)
	r.publish("one")
	r.start("--", "sh", "-c", `trap 'echo terminated >>"$JOURNAL"; ending=yes' TERM; echo started >>"$JOURNAL"
while [ -z "$ending" ]; do sleep 0.02; done
i=0; while [ $i -lt 25 ]; do sleep 0.02; i=$((i+1)); done
exit 7`)
	r.awaitJournal("started")
	r.signal(syscall.SIGTERM)
	if got := r.code(); got != 7 {
		t.Errorf("exit code: got %d, want the command's, 7", got)
	}
	r.awaitJournal("started", "terminated")
}
