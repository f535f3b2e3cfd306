package hostfiles

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// currentLink leads to the current generation. Its name, like the form of
	// a generation's, is the kubelet's: watchers of mounted Secrets look for it.
	currentLink = "..data"

	// scratchLink is a link on its way to its name. The set's lock guards it.
	scratchLink = "..data_tmp"

	stampLayout = "2006_01_02_15_04_05"

	// Lull is how long a generation stays readable once it was replaced, unless
	// another change follows: time for a reader that is in the middle of it, on a
	// node that has other things to do. A Publish after that removes it, which is
	// what wakes those who watch a file and not its directory.
	Lull = 5 * time.Second

	// maxReads bounds how often a reader starts over because the set has
	// changed. Only somebody who publishes without pause gets it this far.
	maxReads = 100
)

// newGenerationName sorts after the names of earlier generations. Like the kubelet's it
// ends in ten digits, of which the last is random.
func newGenerationName(now time.Time) string {
	return fmt.Sprintf("..%s.%09d%d", now.UTC().Format(stampLayout), now.Nanosecond(), rand.N(10))
}

func isGenerationName(name string) bool {
	stamp, random, _ := strings.Cut(strings.TrimPrefix(name, ".."), ".")
	_, err := time.Parse(stampLayout, stamp)
	return err == nil && strings.HasPrefix(name, "..") &&
		random != "" && strings.Trim(random, "0123456789") == ""
}

// generation is one complete set of files on disk, opened to be read. The zero
// value stands for none.
type generation struct {
	name  string
	dir   *os.Root
	mode  fs.FileMode
	files []string // names, sorted
}

// currentName is the generation that readers are led to. A ..data that leads
// anywhere else was not made here and counts as none.
func currentName(set *os.Root) (string, error) {
	name, err := set.Readlink(currentLink)
	switch {
	case err == nil && isGenerationName(name):
		return name, nil
	case err == nil, errors.Is(err, syscall.EINVAL): // EINVAL: not a link at all
		return "", fmt.Errorf("%s was not made here: %w", pathIn(set, currentLink), fs.ErrNotExist)
	default:
		return "", err
	}
}

// readCurrent starts over if the set has changed meanwhile: only a generation
// that is still current afterwards has certainly not been swept under way.
func readCurrent(set *os.Root) ([]File, error) {
	for range maxReads {
		name, err := currentName(set)
		if err != nil {
			return nil, err
		}
		files, err := readGeneration(set, name)
		if now, e := currentName(set); e == nil && now == name {
			return files, err
		}
	}
	return nil, fmt.Errorf("%s changed %d times while it was read", set.Name(), maxReads)
}

func readGeneration(set *os.Root, name string) ([]File, error) {
	g, err := openGeneration(set, name)
	if err != nil {
		return nil, err
	}
	defer g.close()
	return g.read()
}

func openGeneration(set *os.Root, name string) (generation, error) {
	dir, info, err := openDir(set, name)
	if err != nil {
		return generation{}, err
	}
	files, err := list(dir)
	if err != nil {
		return generation{}, errors.Join(err, dir.Close())
	}
	slices.Sort(files)
	return generation{name: name, dir: dir, mode: info.Mode(), files: files}, nil
}

func (g generation) close() error {
	if g.dir == nil {
		return nil
	}
	return g.dir.Close()
}

func (g generation) has(name string) bool {
	return slices.Contains(g.files, name)
}

func (g generation) read() ([]File, error) {
	files := make([]File, 0, len(g.files))
	for _, name := range g.files {
		f, err := readFile(g.dir, name)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// holds reports whether the generation is what writing files would make. What
// cannot be read counts as different, so that it is written anew.
func (g generation) holds(files []File) bool {
	if g.mode != fs.ModeDir|dirMode || len(g.files) != len(files) {
		return false
	}
	found, err := g.read()
	if err != nil {
		return false
	}
	wanted := slices.SortedFunc(slices.Values(files), func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	return slices.EqualFunc(found, wanted, satisfies)
}

func satisfies(found, wanted File) bool {
	return found.Name == wanted.Name && found.Mode == wanted.Mode &&
		(wanted.UID == asCreated || found.UID == wanted.UID) &&
		(wanted.GID == asCreated || found.GID == wanted.GID) &&
		bytes.Equal(found.Data, wanted.Data)
}

// readFile looks before it opens, as a Root follows links within itself, and
// again once it has opened, as what it saw may have been replaced.
func readFile(dir *os.Root, name string) (File, error) {
	seen, err := dir.Lstat(name)
	if err != nil {
		return File{}, err
	}
	f, err := dir.OpenFile(name, readFlags, 0)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !os.SameFile(seen, info) || !info.Mode().IsRegular() || info.Size() > maxBytes {
		return File{}, fmt.Errorf("%s is not a file that was published here: publish the set again", f.Name())
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return File{}, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return File{Name: name, Mode: info.Mode(), UID: int(stat.Uid), GID: int(stat.Gid), Data: data}, nil
}

// writeGeneration returns once every file is on stable storage with its final
// owner and mode. On an error the directory, if named, is half-written.
func writeGeneration(set *os.Root, files []File) (name string, err error) {
	name = newGenerationName(time.Now())
	dir, err := makeDir(set, name)
	if err != nil {
		return name, err
	}
	defer dir.Close()
	for _, f := range files {
		if err := writeFile(dir, f); err != nil {
			return name, fmt.Errorf("write %s: %w", pathIn(dir, f.Name), err)
		}
	}
	return name, syncDir(dir)
}

// writeFile gives the file its mode last: until then only we can read it, and
// a change of owner or content would clear some of the bits.
func writeFile(dir *os.Root, f File) (err error) {
	w, err := dir.OpenFile(f.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if _, err := w.Write(f.Data); err != nil {
		return err
	}
	if f.UID != asCreated || f.GID != asCreated {
		if err := w.Chown(f.UID, f.GID); err != nil {
			return err
		}
	}
	if err := w.Chmod(f.Mode); err != nil {
		return err
	}
	return w.Sync()
}
