package hostfiles_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chandler-k8s/chandler/hostfiles"
)

func TestOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, filepath.Join(path, "below")} {
		if _, err := hostfiles.Open(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("Open = %v, want an error that names %s", err, path)
		}
	}
}

func TestSets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir)
	list := func(want ...string) {
		t.Helper()
		got, err := d.Sets()
		if err != nil {
			t.Fatal(err)
		}
		diff(t, "Sets", want, got)
	}
	list()
	publish(t, d, "cluster", true, file("f", "1"))
	publish(t, open(t, dir), "aws-b.c", true, file("f", "1"))
	for _, name := range []string{"volume", "..data", "...lock", "..x"} {
		check(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	list("aws-b.c", "cluster")
	if _, err := d.Remove("cluster"); err != nil {
		t.Fatal(err)
	}
	list("aws-b.c", "cluster")
}

func TestReadSet(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "host")
	if _, err := hostfiles.ReadSet(dir, "aws"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadSet without the directory = %v, want ErrNotExist", err)
	}
	d := open(t, dir)
	publish(t, d, "aws", true, file("f", "1"))
	publish(t, d, "aws", true, file("f", "2"))
	before := stamps(t, dir)
	got, err := hostfiles.ReadSet(dir, "aws")
	if err != nil || len(got) != 1 || string(got[0].Data) != "2" {
		t.Errorf("ReadSet = %v, %v, want the published file", got, err)
	}
	if _, err := hostfiles.ReadSet(dir, "other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadSet of another set = %v, want ErrNotExist", err)
	}
	diff(t, "touched", before, stamps(t, dir))
}

// TestOpenCleans plants what interrupted publishes leave, and beside it what
// looks alike but is not ours.
func TestOpenCleans(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir)
	publish(t, d, "aws", true, file("f", "1"))
	publish(t, d, "aws", true, file("f", "2"))
	publish(t, d, "gone", true, file("f", "1"))
	want := []string{
		"..aws.lock -rw-------",
		"..gone.lock -rw-------",
		"aws drwxr-xr-x",
		"aws/..2026_01_02 drwx------",
		"aws/..data -> NOW",
		"aws/NOW drwxr-xr-x",
		"aws/NOW/f -rw-r----- 2",
		"aws/f -> ..data/f",
		"aws/foreign -> ..data/other",
		"gone drwxr-xr-x",
		"volume drwx------",
		"volume/..data_tmp -> OLD",
		"volume/OLD drwx------",
	}
	for _, name := range []string{"aws/..2026_01_02_03_04_05.0123456789", "aws/..2026_01_02",
		"volume", "volume/..2026_01_02_03_04_05.0123456789"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "aws/..2026_01_02_03_04_05.0123456789/half"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"aws/..data_tmp":    "..2026_01_02_03_04_05.0123456789",
		"aws/added":         "..data/added",
		"aws/foreign":       "..data/other",
		"volume/..data_tmp": "..2026_01_02_03_04_05.0123456789",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "gone/..data")); err != nil {
		t.Fatal(err)
	}
	age(t, dir, "aws", time.Minute)
	open(t, dir)
	diff(t, "cleaned", want, tree(t, dir))
}

func TestLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir)
	publish(t, d, "aws", true, file("f", "1"))
	publish(t, d, "aws", true, file("f", "2"))
	before := tree(t, dir)

	lock, err := os.Open(filepath.Join(dir, "..aws.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	// Another process writes aws: Open leaves it alone, other sets go on.
	publish(t, open(t, dir), "cluster", true, file("f", "1"))
	if _, err := d.Remove("cluster"); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		if got, err := d.Publish("aws", []hostfiles.File{file("f", "3")}); got || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Publish = %v, %v, want false, ErrDeadlineExceeded", got, err)
		}
		if got, err := d.Remove("aws"); got || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Remove = %v, %v, want false, ErrDeadlineExceeded", got, err)
		}
	})
	after := slices.DeleteFunc(tree(t, dir), func(line string) bool { return strings.Contains(line, "cluster") })
	diff(t, "while locked", before, after)
	diff(t, "Read while locked", []string{"f 0640 2"}, contents(t, d, "aws"))

	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	publish(t, d, "aws", true, file("f", "3"))
}

// TestDeletedUnderneath removes what a running process relies on.
func TestDeletedUnderneath(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "host")
	d := open(t, dir)
	publish(t, d, "aws", true, file("f", "1"))
	for _, name := range []string{"..aws.lock", "aws", "aws/f", "aws/..data"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		publish(t, d, "aws", name != "..aws.lock", file("f", "1"))
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Publish("aws", []hostfiles.File{file("f", "1")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Publish without the host directory = %v, want ErrNotExist", err)
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir)
	remove := func(set string, want bool) {
		t.Helper()
		if got, err := d.Remove(set); got != want || err != nil {
			t.Fatalf("Remove = %v, %v, want %v, nil", got, err, want)
		}
	}
	remove("aws", false)
	diff(t, "a set that never was", []string(nil), tree(t, dir))

	publish(t, d, "aws", true, file("a", "1"))
	publish(t, d, "aws", true, file("b", "2"))
	if err := os.WriteFile(filepath.Join(dir, "aws", "notes.txt"), []byte("by an administrator"), 0o600); err != nil {
		t.Fatal(err)
	}
	remove("aws", true)
	remove("aws", false)
	diff(t, "what stays", []string{
		"..aws.lock -rw-------",
		"aws drwxr-xr-x",
		"aws/notes.txt -rw------- by an administrator",
	}, tree(t, dir))
	if _, err := d.Read("aws"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read = %v, want ErrNotExist", err)
	}
	publish(t, d, "aws", true, file("a", "1"))
}
