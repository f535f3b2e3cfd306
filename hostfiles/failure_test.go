package hostfiles_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/test/expect"
)

func mountMemory(t *testing.T, options string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("mounting is not permitted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func sized(n int) []hostfiles.File {
	return []hostfiles.File{file("a", strings.Repeat("a", n)), file("b", strings.Repeat("b", n)), file("c", "c")}
}

// expectIntact checks that the old set is there, whole, and nothing else.
func expectIntact(t *testing.T, d *hostfiles.Dir, dir string, old []hostfiles.File) {
	t.Helper()
	want := []string{"..data", "GEN"}
	for _, f := range old {
		want = append(want, f.Name)
	}
	diff(t, "names", want, names(t, dir, "set"))
	files, err := d.Read("set")
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		if i >= len(old) || f.Name != old[i].Name || string(f.Data) != string(old[i].Data) {
			t.Errorf("old set: got %v, want %v", files, old)
		}
	}
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	if !expect.OwnProcess(t, expect.Mounts()) {
		return
	}
	dir := mountMemory(t, "size=128k")
	d := open(t, dir)
	old := sized(4 << 10)
	publish(t, d, "set", true, old...)
	_, err := d.Publish("set", sized(60<<10))
	if path := filepath.Join(dir, "set"); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
		t.Errorf("Publish = %v, want ENOSPC and the path %s", err, path)
	}
	expectIntact(t, d, dir, old)
	publish(t, d, "set", false, old...)
	check(t, d.Check())
	fill(t, filepath.Join(dir, "filled"))
	if err := d.Check(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Check = %v, want ENOSPC", err)
	}
	check(t, os.Remove(filepath.Join(dir, "filled")))
	publish(t, d, "set", true, sized(8<<10)...)
	publish(t, d, "set", true, sized(12<<10)...)
}

// fill writes to a file until the disk has no room.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	check(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4<<10))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// TestNoInodes lets each step that makes something fail in turn.
func TestNoInodes(t *testing.T) {
	t.Parallel()
	if !expect.OwnProcess(t, expect.Mounts()) {
		return
	}
	failures := 0
	for inodes := 10; ; inodes++ {
		dir := mountMemory(t, fmt.Sprintf("size=1m,nr_inodes=%d", inodes))
		d := open(t, dir)
		old := sized(10)[:2]
		publish(t, d, "set", true, old...)
		changed, err := d.Publish("set", sized(20))
		if err == nil {
			for i := 0; err == nil; i++ {
				err = os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600)
			}
			if err := d.Check(); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("Check without inodes = %v, want ENOSPC", err)
			}
			break
		}
		if failures++; changed || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%d inodes: Publish = %v, %v, want false, ENOSPC", inodes, changed, err)
		}
		if err := d.Check(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%d inodes: Check = %v, want ENOSPC as from Publish", inodes, err)
		}
		expectIntact(t, d, dir, old)
		if _, err := d.Publish("new", sized(20)); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%d inodes: Publish of another set = %v, want ENOSPC", inodes, err)
		}
		check(t, d.Close())
	}
	if failures < 5 {
		t.Errorf("%d publishes failed, want one for the directory, three files and a link", failures)
	}
}

// TestHostDirectoryDeleted takes the directory away as the node sees it. A container
// sees it through a bind mount, and there its path goes on leading to it.
func TestHostDirectoryDeleted(t *testing.T) {
	t.Parallel()
	if !expect.OwnProcess(t, expect.Mounts()) {
		return
	}
	for name, tt := range map[string]struct {
		mounted bool
		remove  func(dir string) error
		want    error
	}{
		"not at all":         {true, func(string) error { return nil }, nil},
		"under a bind mount": {true, os.RemoveAll, hostfiles.ErrDeleted},
		"its path":           {false, os.RemoveAll, hostfiles.ErrDeleted},
		"moved away":         {false, func(dir string) error { return os.Rename(dir, dir+".old") }, hostfiles.ErrDeleted},
		"made again meanwhile": {false, func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755))
		}, hostfiles.ErrDeleted},
		"made again under a bind mount": {true, func(dir string) error {
			return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755))
		}, hostfiles.ErrDeleted},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "host")
			check(t, os.Mkdir(dir, 0o755))
			seen := dir
			if tt.mounted {
				seen = mount(t, dir)
			}
			d := open(t, seen)
			publish(t, d, "set", true, file("f", "1"))
			check(t, tt.remove(dir))
			if err := d.Check(); !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), seen) {
				t.Errorf("Check = %v, want %v and the path %s", err, tt.want, seen)
			}
			if !tt.mounted || tt.want == nil {
				return
			}
			if _, err := d.Publish("set", sized(10)); !errors.Is(err, tt.want) {
				t.Errorf("Publish = %v, want %v", err, tt.want)
			}
			if _, err := hostfiles.Open(seen); !errors.Is(err, tt.want) {
				t.Errorf("Open = %v, want %v", err, tt.want)
			}
		})
	}
}

// mount makes a directory appear at another path, as in a container.
func mount(t *testing.T, dir string) (at string) {
	t.Helper()
	at = t.TempDir()
	if err := syscall.Mount(dir, at, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("mounting is not permitted here: %v", err)
	}
	t.Cleanup(func() { check(t, syscall.Unmount(at, 0)) })
	return at
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	if !expect.OwnProcess(t, expect.Mounts()) {
		return
	}
	dir := mountMemory(t, "size=1m")
	d := open(t, dir)
	old := sized(10)
	publish(t, d, "set", true, old...)
	publish(t, d, "full", true, sized(10)...)
	publish(t, d, "full", true, sized(20)...)
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	d = open(t, dir)
	expectIntact(t, d, dir, old)
	publish(t, d, "set", false, old...)
	for _, set := range []string{"set", "full", "new"} {
		if changed, err := d.Publish(set, sized(30)); changed || !errors.Is(err, syscall.EROFS) {
			t.Errorf("Publish(%s) = %v, %v, want false, EROFS", set, changed, err)
		}
	}
	if err := d.Check(); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Check = %v, want EROFS", err)
	}
	if _, err := d.Own("ns/new"); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Own = %v, want EROFS", err)
	}
	if changed, err := d.Remove("set"); changed || !errors.Is(err, syscall.EROFS) {
		t.Errorf("Remove = %v, %v, want false, EROFS", changed, err)
	}
	expectIntact(t, d, dir, old)
	if _, err := hostfiles.Open(filepath.Join(dir, "below")); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Open below = %v, want EROFS", err)
	}
}

// TestNoPermission is what a consumer meets who mounts the directory.
func TestNoPermission(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root is permitted everything; run as an ordinary user")
	}
	dir := t.TempDir()
	d := open(t, dir)
	old := sized(10)
	publish(t, d, "set", true, old...)
	for _, path := range []string{filepath.Join(dir, "set"), dir} {
		check(t, os.Chmod(path, 0o555))
		t.Cleanup(func() { check(t, os.Chmod(path, 0o755)) })
	}
	check(t, os.Chmod(filepath.Join(dir, "..set.lock"), 0))
	d = open(t, dir)
	expectIntact(t, d, dir, old)
	for _, set := range []string{"set", "new"} {
		if changed, err := d.Publish(set, sized(20)); changed || !errors.Is(err, syscall.EACCES) {
			t.Errorf("Publish(%s) = %v, %v, want false, EACCES", set, changed, err)
		}
	}
	check(t, os.Chmod(filepath.Join(dir, "..set.lock"), 0o600))
	if changed, err := d.Publish("set", sized(20)); changed || !errors.Is(err, syscall.EACCES) {
		t.Errorf("Publish = %v, %v, want false, EACCES", changed, err)
	}
	expectIntact(t, d, dir, old)
}

// TestFileSizeLimit has a write fail in the middle, as any user can see it.
func TestFileSizeLimit(t *testing.T) {
	t.Parallel()
	if !expect.OwnProcess(t, nil) {
		return
	}
	dir := t.TempDir()
	d := open(t, dir)
	old := sized(100)
	publish(t, d, "set", true, old...)
	signal.Ignore(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	check(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit))
	check(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1000, Max: limit.Max}))
	defer func() { check(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)) }()
	if changed, err := d.Publish("set", sized(2000)); changed || !errors.Is(err, syscall.EFBIG) {
		t.Errorf("Publish = %v, %v, want false, EFBIG", changed, err)
	}
	expectIntact(t, d, dir, old)
	publish(t, d, "set", true, sized(200)...)
}

// TestNoDescriptors lets each open fail in turn. Here what was half-written may
// stay, as removing it takes descriptors too; the next publish removes it.
func TestNoDescriptors(t *testing.T) {
	t.Parallel()
	if !expect.OwnProcess(t, nil) {
		return
	}
	dir := t.TempDir()
	d := open(t, dir)
	var limit syscall.Rlimit
	check(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	failures := 0
	for spare := 0; ; spare++ {
		old := sized(10 + spare)
		if _, err := d.Publish("set", old); err != nil {
			t.Fatal(err)
		}
		age(t, dir, "set", time.Minute)
		publish(t, d, "set", false, old...)
		changed, err := publishWith(t, d, limit, spare, sized(100+spare))
		if err == nil {
			break
		}
		if failures++; changed || !errors.Is(err, syscall.EMFILE) {
			t.Errorf("%d descriptors: Publish = %v, %v, want false, EMFILE", spare, changed, err)
		}
		publish(t, d, "set", false, old...)
		expectIntact(t, d, dir, old)
	}
	if failures < 4 {
		t.Errorf("%d publishes failed, want one each for lock, set, generation and file", failures)
	}
}

// publishWith publishes when only so many more descriptors may be opened.
func publishWith(t *testing.T, d *hostfiles.Dir, limit syscall.Rlimit, spare int, files []hostfiles.File) (bool, error) {
	t.Helper()
	next, err := os.Open(os.DevNull)
	check(t, err)
	few := syscall.Rlimit{Cur: uint64(next.Fd()) + uint64(spare), Max: limit.Max}
	check(t, next.Close())
	check(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few))
	defer func() { check(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)) }()
	return d.Publish("set", files)
}

// TestTogether has goroutines of several processes publish the same two sets. Who
// publishes without pause leaves short openings only, and on a busy machine another may
// find none in the time that a publish waits. So each asks until it is let in, and has
// only so much to publish.
func TestTogether(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir)
	publish(t, d, "one", true, numbered(1)...)
	publish(t, d, "two", true, numbered(1)...)
	var publishers []*exec.Cmd
	for range 3 {
		cmd := childCommand("publish", dir, "one", "100")
		check(t, cmd.Start())
		publishers = append(publishers, cmd)
	}
	var work sync.WaitGroup
	for i := range 4 {
		work.Go(func() {
			for n := range 25 {
				err := publishAtLast(d, []string{"one", "two"}[n%2], numbered(n*10+i))
				if err != nil {
					t.Error(err)
				}
				files, err := d.Read("one")
				if err == nil {
					_, err = number(files)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	for _, cmd := range publishers {
		check(t, cmd.Wait())
	}
	checkAtRest(t, dir, "one")
	checkAtRest(t, dir, "two")
}
