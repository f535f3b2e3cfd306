package hostfiles_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/chandler-k8s/chandler/hostfiles"
)

// site is a host directory with sets "aws" and "scraper", and a directory
// beside it that nothing may change.
type site struct {
	t                  *testing.T
	host, aws, outside string
	now                string // the current generation of aws
	dir                *hostfiles.Dir
}

func newSite(t *testing.T) *site {
	top := t.TempDir()
	s := &site{t: t, host: filepath.Join(top, "host"), outside: filepath.Join(top, "outside")}
	s.aws = filepath.Join(s.host, "aws")
	s.write(filepath.Join(s.outside, "f"), "1")
	s.write(filepath.Join(s.outside, "..2026_01_02_03_04_05.0123456789", "f"), "1")
	s.dir = open(t, s.host)
	publish(t, s.dir, "scraper", true, file("f", "1"), file("g", "1"))
	publish(t, s.dir, "aws", true, file("f", "1"))
	var err error
	if s.now, err = os.Readlink(filepath.Join(s.aws, "..data")); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) write(path, data string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o640); err != nil {
		s.t.Fatal(err)
	}
}

// clear makes room for what a case plants.
func (s *site) clear(path string) {
	s.t.Helper()
	if err := os.RemoveAll(path); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) link(target, path string) {
	s.t.Helper()
	s.clear(path)
	if err := os.Symlink(target, path); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) mkdir(path string) {
	s.t.Helper()
	s.clear(path)
	if err := os.Mkdir(path, 0o755); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) fifo(path string) {
	s.t.Helper()
	s.clear(path)
	if err := syscall.Mkfifo(path, 0o640); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) hardlink(old, path string) {
	s.t.Helper()
	s.clear(path)
	if err := os.Link(old, path); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) chmod(path string, mode os.FileMode) {
	s.t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		s.t.Fatal(err)
	}
}

// bystanders is all that a publish of aws must not change. The count of hard
// links is not among it: a case adds one, which the repair takes away.
func (s *site) bystanders() map[string]string {
	show := func(stat *syscall.Stat_t) string {
		return fmt.Sprint(stat.Ino, stat.Mode, stat.Uid, stat.Gid, stat.Mtim)
	}
	found := inspect(s.t, s.outside, show)
	maps.Copy(found, inspect(s.t, filepath.Join(s.host, "scraper"), show))
	return found
}

// TestTampering damages a set in one way each. repaired lists those that a
// publish of the same files puts right; each other is an error that names the
// path in question. Whatever happens, nothing but aws itself may change.
func TestTampering(t *testing.T) {
	t.Parallel()
	for name, damage := range repaired {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			damage(s)
			before := s.bystanders()
			publish(t, s.dir, "aws", true, file("f", "1"))
			publish(t, s.dir, "aws", false, file("f", "1"))
			diff(t, "files", []string{"f 0640 1"}, contents(t, s.dir, "aws"))
			diff(t, "by name", "-rw-r----- 1", describe(t, filepath.Join(s.aws, "..data/f")))
			diff(t, "link", "-> ..data/f", describe(t, filepath.Join(s.aws, "f")))
			diff(t, "bystanders", before, s.bystanders())

			damage(s)
			before = s.bystanders()
			open(t, s.host)
			if _, err := s.dir.Remove("aws"); err != nil {
				t.Errorf("Remove = %v", err)
			}
			diff(t, "bystanders of Open and Remove", before, s.bystanders())
		})
	}
	for name, refusal := range refused {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			refusal.damage(s)
			before, others := tree(t, s.host), s.bystanders()
			_, err := s.dir.Publish("aws", []hostfiles.File{file("f", "2")})
			if path := filepath.Join(s.host, refusal.path); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("Publish = %v, want an error that names %s", err, path)
			}
			open(t, s.host)
			diff(t, "host directory", before, tree(t, s.host))
			diff(t, "bystanders", others, s.bystanders())
			if _, err := s.dir.Remove("aws"); err == nil && refusal.stays {
				t.Error("Remove = nil, want an error")
			}
			diff(t, "bystanders of Remove", others, s.bystanders())
		})
	}
}

var repaired = map[string]func(*site){
	"content":            func(s *site) { s.write(filepath.Join(s.aws, "f"), "2") },
	"same length":        func(s *site) { s.write(filepath.Join(s.aws, "f"), "x") },
	"truncated":          func(s *site) { s.write(filepath.Join(s.aws, "f"), "") },
	"mode":               func(s *site) { s.chmod(filepath.Join(s.aws, "f"), 0o644) },
	"mode with setuid":   func(s *site) { s.chmod(filepath.Join(s.aws, "f"), 0o640|os.ModeSetuid) },
	"generation's mode":  func(s *site) { s.chmod(s.generation(), 0o777) },
	"file gone":          func(s *site) { s.clear(filepath.Join(s.generation(), "f")) },
	"file added":         func(s *site) { s.write(filepath.Join(s.generation(), "g"), "1") },
	"directory added":    func(s *site) { s.write(filepath.Join(s.generation(), "g/h"), "1") },
	"generation gone":    func(s *site) { s.clear(s.generation()) },
	"generation a file":  func(s *site) { g := s.generation(); s.clear(g); s.write(g, "1") },
	"file is a FIFO":     func(s *site) { s.fifo(filepath.Join(s.generation(), "f")) },
	"file is a link out": func(s *site) { s.link(filepath.Join(s.outside, "f"), filepath.Join(s.generation(), "f")) },
	"file is a link in": func(s *site) {
		s.write(filepath.Join(s.generation(), "g"), "1")
		s.link("g", filepath.Join(s.generation(), "f"))
	},
	"file hard-linked": func(s *site) {
		s.hardlink(filepath.Join(s.outside, "f"), filepath.Join(s.generation(), "f"))
		s.chmod(filepath.Join(s.outside, "f"), 0o666)
	},
	"generation is a link out": func(s *site) { s.link(filepath.Dir(s.outside)+"/outside", s.generation()) },
	"generation is a link in":  func(s *site) { s.link("../scraper", s.generation()) },
	"..data gone":              func(s *site) { s.clear(s.aws + "/..data") },
	"..data is a file":         func(s *site) { s.clear(s.aws + "/..data"); s.write(s.aws+"/..data", "1") },
	"..data is a directory":    func(s *site) { s.mkdir(s.aws + "/..data") },
	"..data leads out":         func(s *site) { s.link(s.outside, s.aws+"/..data") },
	"..data leads up and out":  func(s *site) { s.link("../../outside", s.aws+"/..data") },
	"..data leads to a set":    func(s *site) { s.link("../scraper", s.aws+"/..data") },
	"..data leads to a generation elsewhere": func(s *site) {
		s.link("../../outside/..2026_01_02_03_04_05.0123456789", s.aws+"/..data")
	},
	"..data leads on to a link out": func(s *site) {
		s.link(s.outside, s.aws+"/..2026_01_02_03_04_05.0123456789")
		s.link("..2026_01_02_03_04_05.0123456789", s.aws+"/..data")
	},
	"name gone":                 func(s *site) { s.clear(s.aws + "/f") },
	"name is a file":            func(s *site) { s.clear(s.aws + "/f"); s.write(s.aws+"/f", "1") },
	"name is a directory":       func(s *site) { s.mkdir(s.aws + "/f") },
	"name leads out":            func(s *site) { s.link(filepath.Join(s.outside, "f"), s.aws+"/f") },
	"name leads to another set": func(s *site) { s.link("../scraper/f", s.aws+"/f") },
	"name is a FIFO":            func(s *site) { s.fifo(s.aws + "/f") },
	"unfinished link leads out": func(s *site) {
		s.clear(s.aws + "/f")
		s.link(filepath.Join(s.outside, "f"), s.aws+"/..data_tmp")
	},
	"old generation leads out": func(s *site) {
		s.clear(s.aws + "/f")
		s.link(s.outside, s.aws+"/..2026_01_02_03_04_05.0123456789")
	},
	"old generation holds links out": func(s *site) {
		s.clear(s.aws + "/f")
		s.mkdir(s.aws + "/..2026_01_02_03_04_05.0123456789")
		s.link(s.outside, s.aws+"/..2026_01_02_03_04_05.0123456789/d")
	},
}

// generation is the path of the current one, read anew: repairs replace it.
func (s *site) generation() string {
	s.t.Helper()
	name, err := os.Readlink(filepath.Join(s.aws, "..data"))
	if err != nil {
		s.t.Fatal(err)
	}
	return filepath.Join(s.aws, name)
}

var refused = map[string]struct {
	damage func(*site)
	path   string
	stays  bool // Remove refuses as well
}{
	"set leads out":            {func(s *site) { s.link(s.outside, s.aws) }, "aws", true},
	"set leads up and out":     {func(s *site) { s.link("../outside", s.aws) }, "aws", true},
	"set leads to another set": {func(s *site) { s.link("scraper", s.aws) }, "aws", true},
	"set leads nowhere":        {func(s *site) { s.link("nowhere", s.aws) }, "aws", true},
	"set is a file":            {func(s *site) { s.clear(s.aws); s.write(s.aws, "1") }, "aws", true},
	"set is a FIFO":            {func(s *site) { s.fifo(s.aws) }, "aws", true},
	"full directory for a name": {
		func(s *site) { s.mkdir(s.aws + "/f"); s.write(s.aws+"/f/g", "1") }, "aws/f", false,
	},
	"full directory for ..data": {
		func(s *site) {
			s.mkdir(s.aws + "/..data")
			s.clear(s.aws + "/f")
			s.clear(s.aws + "/" + s.now)
			s.write(s.aws+"/..data/f", "1")
		},
		"aws/..data", true,
	},
	"full directory for a link": {
		func(s *site) { s.mkdir(s.aws + "/..data_tmp"); s.write(s.aws+"/..data_tmp/f", "1") }, "aws/..data_tmp", true,
	},
	"lock leads out":          {func(s *site) { s.link(s.outside+"/f", s.host+"/..aws.lock") }, "..aws.lock", true},
	"lock leads nowhere":      {func(s *site) { s.link("nowhere", s.host+"/..aws.lock") }, "..aws.lock", true},
	"lock leads out, nowhere": {func(s *site) { s.link(s.outside+"/nowhere", s.host+"/..aws.lock") }, "..aws.lock", true},
}

// TestSwappedSet exchanges the set with a link to another one, again and again,
// while the set is published: its files must not arrive in the other.
func TestSwappedSet(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	link := filepath.Join(s.host, "link")
	s.link("scraper", link)
	before := s.bystanders()
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, s.aws, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err != nil {
				stopped <- err
				return
			}
		}
	}()
	published := 0
	for n := range 2000 {
		if changed, err := s.dir.Publish("aws", []hostfiles.File{file("f", fmt.Sprint(n))}); changed && err == nil {
			published++
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Skipf("exchanging names is not possible here: %v", err)
	}
	diff(t, "the other set", before, s.bystanders())
	t.Logf("%d of 2000 published", published)
}

// TestOwnerRepaired needs root to do the damage.
func TestOwnerRepaired(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("giving files away needs root")
	}
	dir := t.TempDir()
	d := open(t, dir)
	f := hostfiles.File{Name: "f", Mode: 0o440, UID: 0, GID: 65534, Data: []byte("x")}
	publish(t, d, "aws", true, f)
	for _, owner := range [][2]int{{65534, 65534}, {0, 0}} {
		if err := os.Chown(filepath.Join(dir, "aws/..data/f"), owner[0], owner[1]); err != nil {
			t.Fatal(err)
		}
		publish(t, d, "aws", true, f)
		publish(t, d, "aws", false, f)
	}
	got, err := d.Read("aws")
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "owner", []hostfiles.File{f}, got)
}

// TestTamperedIsNotRead lists damage that Read must not pass on as content.
func TestTamperedIsNotRead(t *testing.T) {
	t.Parallel()
	for _, name := range slices.Sorted(maps.Keys(repaired)) {
		if !strings.Contains(name, "leads") && !strings.Contains(name, "is a") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.write(filepath.Join(s.outside, "f"), "planted")
			repaired[name](s)
			files, err := s.dir.Read("aws")
			if err == nil && (len(files) != 1 || string(files[0].Data) != "1") {
				t.Errorf("Read = %v, nil, want the published file or an error", files)
			}
		})
	}
}
