package hostfiles_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chandler-k8s/chandler/hostfiles"
)

// ownForever owns a directory, says so, and lives until it is killed.
func ownForever(dir, name string) error {
	d, err := hostfiles.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	from, err := d.Own(name)
	if err != nil {
		return err
	}
	if _, err := fmt.Println(from); err != nil {
		return err
	}
	_, err = os.Stdin.Read(make([]byte, 1))
	return err
}

// own fails the test unless an agent owns the directory afterwards, and took it from
// the one given.
func own(t *testing.T, d *hostfiles.Dir, name, from string) {
	t.Helper()
	if got, err := d.Own(name); got != from || err != nil {
		t.Errorf("Own(%s) = %q, %v, want %q, nil", name, got, err, from)
	}
}

// taken fails the test unless another owns the directory, and the error names both.
func taken(t *testing.T, d *hostfiles.Dir, name, by string) {
	t.Helper()
	_, err := d.Own(name)
	if !errors.Is(err, hostfiles.ErrTaken) {
		t.Fatalf("Own(%s) = %v, want ErrTaken", name, err)
	}
	for _, part := range []string{fmt.Sprintf("%q", name), fmt.Sprintf("%q", by), d.Path()} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("Own(%s) = %v, want it to name %s", name, err, part)
		}
	}
}

// TestOwn has agents come and go: the newest that lives is the owner.
func TestOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old, newer := open(t, dir), open(t, dir)
	own(t, old, "ns/old", "")
	own(t, old, "ns/old", "")
	own(t, newer, "ns/newer", "ns/old")
	for range 2 {
		taken(t, old, "ns/old", "ns/newer")
		own(t, newer, "ns/newer", "")
	}
	diff(t, "files", []string{"..owner -rw------- ns/newer"}, tree(t, dir))

	// One that is opened again, with another configuration, is a new one.
	check(t, newer.Close())
	newer = open(t, dir)
	own(t, newer, "ns/newer", "")
	taken(t, old, "ns/old", "ns/newer")

	// A process that is killed owns nothing any more.
	cmd := childCommand("own", dir, "ns/killed")
	in, err := cmd.StdinPipe()
	check(t, err)
	defer in.Close()
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ns/newer\n" || err != nil {
		t.Errorf("the process took it from %q, %v, want ns/newer", line, err)
	}
	taken(t, old, "ns/old", "ns/killed")
	taken(t, newer, "ns/newer", "ns/killed")
	check(t, cmd.Process.Kill())
	_ = cmd.Wait() // killed
	own(t, newer, "ns/newer", "")
	taken(t, old, "ns/old", "ns/newer")
	check(t, newer.Close())
	own(t, old, "ns/old", "")
}

// TestOwnTogether has agents start at once: the file names the one that owns. One that
// sees the file change as it reads it says so, and owns nothing yet.
func TestOwnTogether(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 50 {
		var agents [4]*hostfiles.Dir
		var errs [len(agents)]error
		var group sync.WaitGroup
		for n := range agents {
			agents[n] = open(t, dir)
			group.Go(func() { _, errs[n] = agents[n].Own(fmt.Sprint("ns/", n)) })
		}
		group.Wait()
		written, err := os.ReadFile(filepath.Join(dir, "..owner"))
		check(t, err)
		for n, d := range agents {
			switch name := fmt.Sprint("ns/", n); {
			case errs[n] != nil && !strings.Contains(errs[n].Error(), "was replaced"):
				t.Errorf("Own(%s) = %v", name, errs[n])
			case errs[n] != nil:
			case name == string(written):
				own(t, d, name, "")
			default:
				taken(t, d, name, string(written))
			}
		}
		for _, d := range agents {
			check(t, d.Close())
		}
	}
	diff(t, "number of files", 1, len(tree(t, dir)))
}

// TestOwnSweeps: a claim that a killed agent has left goes, and not one that may be
// under way.
func TestOwnSweeps(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir())
	for name, age := range map[string]time.Duration{"..owner_tmp": time.Hour, "..owner_tmp1": time.Hour, "..owner_tmp2": 0} {
		path := filepath.Join(d.Path(), name)
		check(t, os.WriteFile(path, []byte("x"), 0o600))
		check(t, os.Chtimes(path, time.Time{}, time.Now().Add(-age)))
	}
	own(t, d, "ns/a", "")
	diff(t, "files", []string{"..owner -rw------- ns/a", "..owner_tmp2 -rw------- x"}, tree(t, d.Path()))
}

// TestOwnTampered plants what a user with root can plant in the owner's place.
func TestOwnTampered(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	for name, tt := range map[string]struct {
		plant func(path string) error
		want  bool
	}{
		"nothing": {func(string) error { return nil }, true},
		"a link to another file": {func(path string) error {
			return errors.Join(os.WriteFile(path+".x", []byte(secret), 0o600), os.Symlink("..owner.x", path))
		}, true},
		"a link to nothing":   {func(path string) error { return os.Symlink("absent", path) }, true},
		"a file that is open": {func(path string) error { return os.WriteFile(path, []byte("anything"), 0o600) }, true},
		"an unfinished claim": {func(path string) error { return os.WriteFile(path+"_tmp", nil, 0o600) }, true},
		"a directory":         {func(path string) error { return os.Mkdir(path, 0o700) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := open(t, t.TempDir())
			own(t, d, "ns/a", "")
			path := filepath.Join(d.Path(), "..owner")
			check(t, os.Remove(path))
			check(t, tt.plant(path))
			_, err := d.Own("ns/a")
			if (err == nil) != tt.want || err != nil && (!strings.Contains(err.Error(), path) || strings.Contains(err.Error(), secret)) {
				t.Errorf("Own = %v, want it owned: %t, or an error that names %s", err, tt.want, path)
			}
			if tt.want {
				own(t, d, "ns/a", "")
			}
		})
	}
}

// TestOwnIsBounded: what is read of another's name is no more than a name.
func TestOwnIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old, newer := open(t, dir), open(t, dir)
	own(t, old, "ns/old", "")
	own(t, newer, strings.Repeat("n\n", 1<<20), "ns/old")
	if _, err := old.Own("ns/old"); !errors.Is(err, hostfiles.ErrTaken) || len(err.Error()) > 1000 || strings.Contains(err.Error(), "\n") {
		t.Errorf("Own = %.1200v, want ErrTaken in a line of less than 1000 bytes", err)
	}
}
