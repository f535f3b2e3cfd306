package hostfiles_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/chandler-k8s/chandler/hostfiles"
)

func file(name, data string) hostfiles.File {
	return hostfiles.File{Name: name, Mode: 0o640, UID: -1, GID: -1, Data: []byte(data)}
}

func open(t testing.TB, path string) *hostfiles.Dir {
	t.Helper()
	d, err := hostfiles.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// publish fails the test unless changed is as wanted.
func publish(t testing.TB, d *hostfiles.Dir, set string, want bool, files ...hostfiles.File) {
	t.Helper()
	if got, err := d.Publish(set, files); got != want || err != nil {
		t.Fatalf("Publish = %v, %v, want %v, nil", got, err, want)
	}
}

// age makes it so long since the set has changed.
func age(t testing.TB, dir, set string, by time.Duration) {
	t.Helper()
	then := unix.NsecToTimespec(time.Now().Add(-by).UnixNano())
	err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, set, "..data"), []unix.Timespec{then, then}, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // nothing is published
		t.Fatal(err)
	}
}

// contents reads a set back as "name mode data", without the owners.
func contents(t testing.TB, d *hostfiles.Dir, set string) []string {
	t.Helper()
	files, err := d.Read(set)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range files {
		lines = append(lines, fmt.Sprintf("%s %#o %s", f.Name, f.Mode, f.Data))
	}
	return lines
}

var generationName = regexp.MustCompile(`\.\.\d{4}_\d\d_\d\d_\d\d_\d\d_\d\d\.\d{10}`)

// tree lists everything under dir with its mode, and its content or target.
// The generation that ..data beside it leads to is called NOW, others OLD.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		current, _ := os.Readlink(filepath.Join(dir, strings.Split(name, "/")[0], "..data"))
		line := name + " " + describe(t, path)
		if current != "" {
			line = strings.ReplaceAll(line, current, "NOW")
		}
		lines = append(lines, generationName.ReplaceAllString(line, "OLD"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

func describe(t testing.TB, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	switch info.Mode().Type() {
	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			t.Fatal(err)
		}
		return "-> " + target
	case 0:
		data, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrPermission) {
			t.Fatal(err)
		}
		return strings.TrimSpace(info.Mode().String() + " " + string(data))
	default:
		return info.Mode().String()
	}
}

func diff(t testing.TB, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestLayout(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "not", "there")
	d := open(t, dir)
	publish(t, d, "aws", true, file("config.ini", "c1"), file("old.ini", "o1"))
	publish(t, d, "aws", true, file("config.ini", "c2"), file("credentials.ini", "k2"))

	current := []string{
		"..aws.lock -rw-------",
		"aws drwxr-xr-x",
		"aws/..data -> NOW",
		"aws/NOW drwxr-xr-x",
		"aws/NOW/config.ini -rw-r----- c2",
		"aws/NOW/credentials.ini -rw-r----- k2",
		"aws/config.ini -> ..data/config.ini",
		"aws/credentials.ini -> ..data/credentials.ini",
	}
	superseded := []string{
		"aws/OLD drwxr-xr-x",
		"aws/OLD/config.ini -rw-r----- c1",
		"aws/OLD/old.ini -rw-r----- o1",
	}
	both := slices.Sorted(slices.Values(slices.Concat(current, superseded)))
	diff(t, "with a superseded generation", both, tree(t, dir))

	publish(t, d, "aws", false, file("credentials.ini", "k2"), file("config.ini", "c2"))
	open(t, dir)
	diff(t, "after a look at a set that has just changed", both, tree(t, dir))
	age(t, dir, "aws", 5*time.Second)
	publish(t, d, "aws", false, file("credentials.ini", "k2"), file("config.ini", "c2"))
	diff(t, "after an unchanged publish", current, tree(t, dir))
	publish(t, d, "aws", true, file("config.ini", "c3"))
	publish(t, d, "aws", true, file("config.ini", "c2"), file("credentials.ini", "k2"))
	age(t, dir, "aws", -time.Hour)
	publish(t, d, "aws", false, file("config.ini", "c2"), file("credentials.ini", "k2"))
	diff(t, "after the clock was set back", current, tree(t, dir))
	diff(t, "Read", []string{"config.ini 0640 c2", "credentials.ini 0640 k2"}, contents(t, d, "aws"))
}

func TestUnchangedIsNotTouched(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir)
	files := []hostfiles.File{file("a", "1"), file("b", "2")}
	publish(t, d, "aws", true, files...)
	before := stamps(t, dir)
	for range 3 {
		publish(t, d, "aws", false, files...)
	}
	publish(t, open(t, dir), "aws", false, files...)
	diff(t, "inodes and times", before, stamps(t, dir))
}

// stamps are what any write to anything under dir would change.
func stamps(t testing.TB, dir string) map[string]string {
	t.Helper()
	return inspect(t, dir, func(stat *syscall.Stat_t) string {
		return fmt.Sprint(stat.Ino, stat.Mode, stat.Uid, stat.Gid, stat.Nlink, stat.Mtim, stat.Ctim)
	})
}

func inspect(t testing.TB, dir string, show func(*syscall.Stat_t) string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var stat syscall.Stat_t
		if err := syscall.Lstat(path, &stat); err != nil {
			return err
		}
		found[path] = show(&stat)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestModesIgnoreUmask is not parallel: the umask is the whole process's.
func TestModesIgnoreUmask(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "host")
	for _, umask := range []int{0, 0o022, 0o777} {
		old := syscall.Umask(umask)
		t.Cleanup(func() { syscall.Umask(old) })
		for _, mode := range []fs.FileMode{0o400, 0o440, 0o600, 0o644, 0o777} {
			f := hostfiles.File{Name: "f", Mode: mode, UID: -1, GID: -1, Data: fmt.Append(nil, umask, mode)}
			d := open(t, dir)
			publish(t, d, "set", true, f)
			age(t, dir, "set", time.Minute)
			publish(t, d, "set", false, f)
			info, err := os.Stat(filepath.Join(dir, "set", "f"))
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode(); got != mode {
				t.Errorf("umask %#o: mode = %v, want %v", umask, got, mode)
			}
		}
		want := []string{"..set.lock -rw-------", "set drwxr-xr-x", "set/NOW drwxr-xr-x"}
		if diff := cmp.Diff(want, directories(t, dir)); diff != "" {
			t.Errorf("umask %#o (-want +got):\n%s", umask, diff)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func directories(t testing.TB, dir string) []string {
	t.Helper()
	publish(t, open(t, dir), "set", true, file("f", "last"))
	age(t, dir, "set", time.Minute)
	publish(t, open(t, dir), "set", false, file("f", "last"))
	return slices.DeleteFunc(tree(t, dir), func(line string) bool {
		return strings.Contains(line, "->") || strings.HasSuffix(line, "last")
	})
}

func TestOwner(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir)
	f := hostfiles.File{Name: "f", Mode: 0o440, UID: 12345, GID: 65534, Data: []byte("x")}
	if os.Geteuid() != 0 {
		if _, err := d.Publish("set", []hostfiles.File{f}); !errors.Is(err, syscall.EPERM) {
			t.Errorf("Publish as an ordinary user = %v, want EPERM", err)
		}
		diff(t, "left behind", []string{"..set.lock -rw-------", "set drwxr-xr-x"}, tree(t, dir))
		t.Skip("giving files away needs root")
	}
	publish(t, d, "set", true, f)
	publish(t, d, "set", false, f)
	got, err := d.Read("set")
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "owned", []hostfiles.File{f}, got)

	f.UID = -1
	publish(t, d, "set", false, f)
	f.GID = 0
	publish(t, d, "set", true, f)
	f.UID = 0
	publish(t, d, "set", false, f)
}

func TestReadNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := open(t, dir)
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, set := range []string{"absent", "empty"} {
		if got, err := d.Read(set); got != nil || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Read(%s) = %v, %v, want nil, ErrNotExist", set, got, err)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 201)
	with := func(edit func(*hostfiles.File)) []hostfiles.File {
		f := file("f", "new")
		edit(&f)
		return []hostfiles.File{f}
	}
	tests := []struct {
		name  string
		set   string
		files []hostfiles.File
	}{
		{"no files", "aws", nil},
		{"empty file", "aws", with(func(f *hostfiles.File) { f.Data = nil })},
		{"one good, one empty", "aws", []hostfiles.File{file("f", "new"), file("g", "")}},
		{"oversized file", "aws", with(func(f *hostfiles.File) { f.Data = make([]byte, 1<<20+1) })},
		{"same name twice", "aws", []hostfiles.File{file("f", "new"), file("f", "new")}},
		{"no mode", "aws", with(func(f *hostfiles.File) { f.Mode = 0 })},
		{"setuid", "aws", with(func(f *hostfiles.File) { f.Mode |= fs.ModeSetuid })},
		{"directory", "aws", with(func(f *hostfiles.File) { f.Mode |= fs.ModeDir })},
		{"negative user", "aws", with(func(f *hostfiles.File) { f.UID = -2 })},
		{"negative group", "aws", with(func(f *hostfiles.File) { f.GID = -2 })},
		{"file without a name", "aws", with(func(f *hostfiles.File) { f.Name = "" })},
		{"file above", "aws", with(func(f *hostfiles.File) { f.Name = ".." })},
		{"file elsewhere", "aws", with(func(f *hostfiles.File) { f.Name = "../f" })},
		{"file below", "aws", with(func(f *hostfiles.File) { f.Name = "a/b" })},
		{"absolute file", "aws", with(func(f *hostfiles.File) { f.Name = "/etc/passwd" })},
		{"hidden file", "aws", with(func(f *hostfiles.File) { f.Name = ".f" })},
		{"our own link", "aws", with(func(f *hostfiles.File) { f.Name = "..data" })},
		{"NUL", "aws", with(func(f *hostfiles.File) { f.Name = "f\x00" })},
		{"newline", "aws", with(func(f *hostfiles.File) { f.Name = "f\ng" })},
		{"look-alike", "aws", with(func(f *hostfiles.File) { f.Name = "ｆ" })},
		{"long file name", "aws", with(func(f *hostfiles.File) { f.Name = long })},
		{"no set", "", with(func(*hostfiles.File) {})},
		{"set is the directory", ".", with(func(*hostfiles.File) {})},
		{"set above", "..", with(func(*hostfiles.File) {})},
		{"set below", "aws/x", with(func(*hostfiles.File) {})},
		{"option-like set", "-rf", with(func(*hostfiles.File) {})},
		{"long set name", long, with(func(*hostfiles.File) {})},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			d := open(t, dir)
			publish(t, d, "aws", true, file("f", "good"))
			before := stamps(t, dir)
			if got, err := d.Publish(test.set, test.files); got || !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("Publish = %v, %v, want false, ErrInvalid", got, err)
			}
			diff(t, "touched", before, stamps(t, dir))
		})
	}
	d := open(t, t.TempDir())
	if _, err := d.Read("../x"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Read = %v, want ErrInvalid", err)
	}
	if _, err := d.Remove("../x"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Remove = %v, want ErrInvalid", err)
	}
}

// TestDataIsNotPrinted tries every way in which a file reaches a log.
func TestDataIsNotPrinted(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	f := file("tls.key", secret)
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb+verb+verb, f, &f, []hostfiles.File{f})
	}
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("published", "file", f, "pointer", &f, "files", []hostfiles.File{f})
	}
	if err := json.NewEncoder(&out).Encode(f); err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{"%s", "%x", "%X", "%d", "%#v", "%q"} {
		data := strings.Trim(fmt.Sprintf(form, []byte(secret)), "[]")
		if strings.Contains(out.String(), data) {
			t.Errorf("output contains the data as %s: %s", form, data)
		}
	}
	encoded, err := json.Marshal([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), string(encoded)) {
		t.Errorf("output contains the data as base64")
	}
	if !strings.Contains(out.String(), "tls.key 0640 -1:-1 7 bytes") {
		t.Errorf("output lacks the description: %s", out.String())
	}
}
