package hostfiles_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chandler-k8s/chandler/hostfiles"
)

// patience is how long a hint may take on a very busy machine.
const patience = 30 * time.Second

// watched is a running Watch whose first hint has come.
type watched struct {
	t     *testing.T
	hints chan struct{} // holds one when there was any since the last look
	count atomic.Int64
}

func watch(t *testing.T, dirs ...string) *watched {
	t.Helper()
	w := &watched{t: t, hints: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- hostfiles.Watch(ctx, dirs, func() {
			w.count.Add(1)
			select {
			case w.hints <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Watch = %v, want nil", err)
		}
	})
	w.until("the first hint", func() bool { return true })
	return w
}

// until fails the test unless, after some hint, right holds.
func (w *watched) until(what string, right func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case <-w.hints:
			if right() {
				return
			}
		case <-deadline:
			w.t.Fatalf("no hint of %s", what)
		}
	}
}

func reads(path, want string) func() bool {
	return func() bool {
		got, err := os.ReadFile(path)
		return err == nil && string(got) == want
	}
}

func gone(path string) func() bool {
	return func() bool {
		_, err := os.Lstat(path)
		return os.IsNotExist(err)
	}
}

func put(t *testing.T, path, data string) {
	t.Helper()
	check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	check(t, os.WriteFile(path, []byte(data), 0o600))
}

// TestWatchSwap changes a directory as the kubelet changes a mounted Secret.
func TestWatchSwap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir)
	path := filepath.Join(dir, "aws", "f")
	publish(t, d, "aws", true, file("f", "0"))
	w := watch(t, filepath.Join(dir, "aws"))
	for _, data := range []string{"1", "2", "3"} {
		publish(t, d, "aws", true, file("f", data))
		w.until("a swap", reads(path, data))
	}
	if _, err := d.Remove("aws"); err != nil {
		t.Fatal(err)
	}
	w.until("the removal", gone(path))
}

// TestWatchAppearing makes, removes, replaces and renames watched directories
// and those above them.
func TestWatchAppearing(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	dir := filepath.Join(top, "a", "b", "c")
	other := filepath.Join(top, "other")
	f := filepath.Join(dir, "f")
	w := watch(t, dir, other)

	put(t, f, "1")
	w.until("the directory and those above it", reads(f, "1"))
	put(t, f, "2")
	w.until("a file in it", reads(f, "2"))
	check(t, os.RemoveAll(dir))
	w.until("its removal", gone(dir))
	put(t, f, "3")
	w.until("its return", reads(f, "3"))
	put(t, f, "4")
	w.until("a file in the new one", reads(f, "4"))

	check(t, os.RemoveAll(dir))
	put(t, f, "5")
	w.until("a quick replacement", reads(f, "5"))
	put(t, f, "6")
	w.until("a file in the replacement", reads(f, "6"))

	put(t, filepath.Join(top, "next", "f"), "7")
	check(t, os.Rename(dir, filepath.Join(top, "last")))
	check(t, os.Rename(filepath.Join(top, "next"), dir))
	w.until("a directory moved there", reads(f, "7"))
	put(t, f, "8")
	w.until("a file in the one moved there", reads(f, "8"))

	check(t, os.RemoveAll(filepath.Join(top, "a")))
	w.until("the end of those above", gone(dir))
	put(t, f, "9")
	w.until("the return of those above", reads(f, "9"))
	put(t, filepath.Join(other, "g"), "10")
	w.until("the other directory", reads(filepath.Join(other, "g"), "10"))
}

// TestWatchLink watches a directory that is a link, and turns it.
func TestWatchLink(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	dir := filepath.Join(top, "current")
	put(t, filepath.Join(top, "v1", "f"), "1")
	put(t, filepath.Join(top, "v2", "f"), "2")
	check(t, os.Symlink("v1", dir))
	w := watch(t, dir)
	put(t, filepath.Join(top, "v1", "f"), "1a")
	w.until("a file behind the link", reads(filepath.Join(dir, "f"), "1a"))
	check(t, os.Symlink("v2", filepath.Join(top, "next")))
	check(t, os.Rename(filepath.Join(top, "next"), dir))
	w.until("the turn", reads(filepath.Join(dir, "f"), "2"))
	put(t, filepath.Join(top, "v2", "f"), "2a")
	w.until("a file behind the turned link", reads(filepath.Join(dir, "f"), "2a"))
}

func TestWatchCoalesces(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := watch(t, dir)
	const writes = 2000
	for i := range writes {
		put(t, filepath.Join(dir, fmt.Sprint("f", i%10)), fmt.Sprint(i))
	}
	w.until("the last of many", reads(filepath.Join(dir, "f9"), fmt.Sprint(writes-1)))
	if got := w.count.Load(); got > writes/2 {
		t.Errorf("%d hints for %d writes", got, writes)
	}
}

// TestWatchUnreadable hides what lies above from an ordinary user.
func TestWatchUnreadable(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may read everything; run as an ordinary user")
	}
	top := t.TempDir()
	dir := filepath.Join(top, "dir")
	put(t, filepath.Join(dir, "f"), "1")
	check(t, os.Chmod(top, 0o311))
	t.Cleanup(func() { check(t, os.Chmod(top, 0o755)) })
	w := watch(t, dir)
	put(t, filepath.Join(dir, "f"), "2")
	w.until("a file", reads(filepath.Join(dir, "f"), "2"))

	if err := hostfiles.Watch(t.Context(), []string{filepath.Join(top, "absent")}, func() {}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Watch = %v, want a permission error", err)
	}
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := hostfiles.Watch(ctx, []string{t.TempDir()}, func() { t.Error("hint after the end") }); err != nil {
		t.Errorf("Watch = %v, want nil", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	if err := hostfiles.Watch(ctx, nil, cancel); err != nil {
		t.Errorf("Watch of nothing = %v, want nil", err)
	}
}
