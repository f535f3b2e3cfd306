package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/node/identity"
	"github.com/chandler-k8s/chandler/test/expect"
)

// patience bounds the waits for other goroutines and the kernel.
const patience = time.Minute

func (n *Node) mustPass(t *testing.T) {
	t.Helper()
	expect.OK(t, n.pass())
}

// wantReady fails the test unless readiness names all of the parts; none is ready.
func (n *Node) wantReady(t *testing.T, when string, parts ...string) {
	t.Helper()
	err := n.Ready()
	if (err == nil) != (len(parts) == 0) {
		t.Errorf("%s: got %v, want an error: %t", when, err, len(parts) > 0)
	}
	for _, part := range parts {
		if err != nil && !strings.Contains(err.Error(), part) {
			t.Errorf("%s: got %v, want it to name %s", when, err, part)
		}
	}
}

func (n *Node) wantFailing(t *testing.T, when, set string, want float64) {
	t.Helper()
	got, found := expect.Metric(t, n.Metrics.(*prometheus.Registry), "chandler_set_failing", "set="+set)
	if got != want || !found {
		t.Errorf("%s: chandler_set_failing of %s: got %v (there: %t), want %v", when, set, got, found, want)
	}
}

// TestReadyNow: a set that was good once is ready for as long as passes can keep it so.
func TestReadyNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, path := newTestNode(t, known)
		n.wantFailing(t, "before the first pass", "cluster", 0)
		n.mustPass(t)
		n.wantReady(t, "after a pass")

		set := filepath.Join(path, "cluster")
		expect.OK(t, os.RemoveAll(set))
		expect.OK(t, os.WriteFile(set, nil, 0o600)) // in the way, also for root
		for range 100 {
			n.mustPass(t) // of a burst of hints
		}
		n.wantReady(t, "after a burst of failures")
		n.wantFailing(t, "after a burst of failures", "cluster", 1)
		time.Sleep(grace - time.Second)
		n.mustPass(t)
		n.wantReady(t, "at the end of grace")
		time.Sleep(time.Second)
		n.mustPass(t)
		n.wantReady(t, "after grace", "set cluster has not been kept current for 1m30s", set)
		expect.OK(t, n.Live())

		expect.OK(t, os.Remove(set))
		n.mustPass(t)
		n.wantReady(t, "once a pass succeeds")
		n.wantFailing(t, "once a pass succeeds", "cluster", 0)
		time.Sleep(grace)
		n.wantReady(t, "later")
	})
}

// TestReadyOnReadOnlyDisk: files that are right on a disk that takes no change stay
// right only until they have to change.
func TestReadyOnReadOnlyDisk(t *testing.T) {
	if !expect.OwnProcess(t, expect.Mounts()) {
		return
	}
	synctest.Test(t, func(t *testing.T) {
		n, path := newTestNode(t, known)
		n.mustPass(t)
		remount := func(flags uintptr) { expect.OK(t, syscall.Mount("", path, "", flags, "")) }
		expect.OK(t, syscall.Mount(path, path, "", syscall.MS_BIND, ""))
		t.Cleanup(func() { expect.OK(t, syscall.Unmount(path, syscall.MNT_DETACH)) })
		// The mount lies over what was opened.
		dir, err := hostfiles.Open(path)
		expect.OK(t, err)
		t.Cleanup(func() { expect.OK(t, dir.Close()) })
		n.Dir = dir
		n.mustPass(t)
		remount(syscall.MS_REMOUNT | syscall.MS_BIND | syscall.MS_RDONLY)
		n.mustPass(t)
		n.wantFailing(t, "read-only", "cluster", 1)
		n.wantReady(t, "read-only for a moment")
		time.Sleep(grace)
		n.mustPass(t)
		n.wantReady(t, "read-only for long", "read-only file system", path)
		remount(syscall.MS_REMOUNT | syscall.MS_BIND)
		n.mustPass(t)
		n.wantReady(t, "written to again")
	})
}

// TestHostDirectoryDeleted runs as in a container, where the host directory is a bind
// mount that no deletion on the node takes away.
func TestHostDirectoryDeleted(t *testing.T) {
	if !expect.OwnProcess(t, expect.Mounts()) {
		return
	}
	n, path := newTestNode(t, known)
	mounted := t.TempDir()
	expect.OK(t, syscall.Mount(path, mounted, "", syscall.MS_BIND, ""))
	t.Cleanup(func() { expect.OK(t, syscall.Unmount(mounted, syscall.MNT_DETACH)) })
	dir, err := hostfiles.Open(mounted)
	expect.OK(t, err)
	t.Cleanup(func() { expect.OK(t, dir.Close()) })
	n.Dir = dir

	ended := run(t, n)
	awaitFile(t, filepath.Join(path, "cluster", "CLUSTERID"))
	expect.Within(t, patience, func() error { return os.RemoveAll(path) }) // a pass may be writing
	took := expect.Within(t, patience, func() error {
		select {
		case err := <-ended:
			if !errors.Is(err, hostfiles.ErrDeleted) {
				t.Fatalf("Run: got %v, want ErrDeleted", err)
			}
			return nil
		default:
			return errors.New("the node loop still runs")
		}
	})
	t.Logf("noticed after %s", took.Round(time.Millisecond))
}

// run runs the loop and its watches, without asking anybody for facts.
func run(t *testing.T, n *Node) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	answered, ended, followed := make(chan struct{}), make(chan error, 1), make(chan struct{})
	close(answered)
	go func() {
		defer close(followed)
		hostfiles.Follow(ctx, n.sources(), time.Hour, n.hint, func(err error) { t.Errorf("not watched: %v", err) })
	}()
	looped := make(chan struct{})
	go func() {
		defer close(looped)
		ended <- n.loop(ctx, answered)
	}()
	t.Cleanup(func() { cancel(); <-followed; <-looped })
	return ended
}

func awaitFile(t *testing.T, path string) {
	t.Helper()
	expect.Within(t, patience, func() error {
		_, err := os.Stat(path)
		return err
	})
}

// TestFileWatcher prints when one who watches a file, and not its directory, hears of a
// change: when the file that was replaced goes.
func TestFileWatcher(t *testing.T) {
	t.Parallel()
	source := t.TempDir()
	n, path := newTestNode(t, known, Credential{Set: "aws", Source: source, Profile: "default", Mode: 0o440, UID: -1, GID: -1})
	setKeys := func(secret string) {
		expect.OK(t, os.WriteFile(filepath.Join(source, "aws_access_key_id"), []byte("AKIAIOSFODNN7EXAMPLE"), 0o600))
		expect.OK(t, os.WriteFile(filepath.Join(source, "aws_secret_access_key"), []byte(secret), 0o600))
	}
	setKeys(strings.Repeat("a", 40))
	run(t, n)
	file := filepath.Join(path, "aws", "credentials.ini")
	awaitFile(t, file)
	watcher, err := fsnotify.NewWatcher()
	expect.OK(t, err)
	t.Cleanup(func() { expect.OK(t, watcher.Close()) })
	expect.OK(t, watcher.Add(file))
	before, err := os.ReadFile(file)
	expect.OK(t, err)
	setKeys(strings.Repeat("b", 40))
	expect.Within(t, patience, func() error {
		if now, err := os.ReadFile(file); err != nil || string(now) == string(before) {
			return errors.Join(err, errors.New("the old file"))
		}
		return nil
	})
	took := expect.Within(t, patience, func() error {
		select {
		case event := <-watcher.Events:
			if event.Has(fsnotify.Remove) {
				return nil
			}
		default:
		}
		return errors.New("a watcher of the file has not heard of its replacement")
	})
	t.Logf("a watcher of the file heard of its replacement %s after it", took.Round(time.Millisecond))
}

// TestTwoAgents has two agents of other configurations on one directory. The newer one
// publishes, and the older one says so until it is alone again.
func TestTwoAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		older, path := newTestNode(t, known)
		newer, _ := newTestNode(t, identity.Facts{
			identity.ClusterID: {Value: "test", Source: "config"}, identity.Region: {Value: "us-east-1", Source: "config"},
		})
		older.Name, newer.Name = "chandler/older", "staging/newer"
		dir, err := hostfiles.Open(path)
		expect.OK(t, err)
		newer.Dir = dir
		var logs expect.Log
		older.Log = slog.New(slog.NewTextHandler(&logs, nil))
		newer.Log = older.Log
		wantRegion := func(when, want string) {
			t.Helper()
			got, err := os.ReadFile(filepath.Join(path, "cluster", "region"))
			if string(got) != want || err != nil {
				t.Errorf("%s: region: got %q, %v, want %q", when, got, err, want)
			}
		}

		older.mustPass(t)
		wantRegion("alone", "eu-west-1")
		time.Sleep(time.Second)
		newer.mustPass(t)
		wantRegion("with a newer agent", "us-east-1")
		for range 5 {
			time.Sleep(time.Second)
			older.mustPass(t)
			newer.mustPass(t)
			wantRegion("with both", "us-east-1")
			older.wantReady(t, "during an update")
			older.wantFailing(t, "with both", "cluster", 1)
		}
		time.Sleep(grace)
		older.mustPass(t)
		newer.mustPass(t)
		older.wantReady(t, "with both for long", older.Name, newer.Name, path, "one agent per node")
		newer.wantReady(t, "with both for long")
		expect.OK(t, older.Live())

		expect.OK(t, dir.Close()) // as the end of its process does
		older.mustPass(t)
		wantRegion("alone again", "eu-west-1")
		older.wantReady(t, "alone again")
		older.wantFailing(t, "alone again", "cluster", 0)
		for _, want := range []string{
			"level=ERROR msg=\"another agent owns the host directory, publishing stopped\"",
			"level=WARN msg=\"took over the host directory from another running agent\" path=" + path + " from=chandler/older by=staging/newer",
			"level=INFO msg=\"host directory claimed\"",
		} {
			if got := strings.Count(logs.String(), want); got != 1 {
				t.Errorf("%q is in the log %d times, want once:\n%s", want, got, logs.String())
			}
		}
	})
}
