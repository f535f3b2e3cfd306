package hostfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"
	"time"
)

// lockedSet is a set's directory while its lock is held.
type lockedSet struct {
	lock    *os.File
	dir     *os.Root
	names   []string   // in dir, as of look
	current generation // as of look
}

// enter waits for the set's lock, at most for patience, and opens its directory.
func enter(host *os.Root, set string, patience time.Duration, open func(*os.Root, string) (*os.Root, error)) (*lockedSet, error) {
	lock, err := takeLock(host, set, patience)
	if err != nil {
		return nil, err
	}
	dir, err := open(host, set)
	if err != nil {
		return nil, errors.Join(err, releaseLock(lock))
	}
	return &lockedSet{lock: lock, dir: dir}, nil
}

func existing(host *os.Root, set string) (*os.Root, error) {
	dir, _, err := openDir(host, set)
	return dir, err
}

func existingOrNew(host *os.Root, set string) (*os.Root, error) {
	dir, err := existing(host, set)
	if !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	if dir, err = makeDir(host, set); err != nil {
		return nil, err
	}
	if err := syncDir(host); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

func (s *lockedSet) leave() error {
	return errors.Join(s.current.close(), s.dir.Close(), releaseLock(s.lock))
}

// look takes stock of the directory and opens its current generation. One that
// is missing or no directory counts as none.
func (s *lockedSet) look() error {
	err := s.current.close()
	if s.current = (generation{}); err != nil {
		return err
	}
	if s.names, err = list(s.dir); err != nil {
		return err
	}
	name, err := currentName(s.dir)
	if err == nil {
		s.current, err = openGeneration(s.dir, name)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return err
}

func (s *lockedSet) publish(files []File) (changed bool, err error) {
	if err := s.look(); err != nil {
		return false, err
	}
	if _, err := s.tidy(); err != nil {
		return false, err
	}
	old := s.current.name
	held, unlinked := s.current.holds(files), s.unlinked(files)
	if held && len(unlinked) == 0 {
		return false, nil
	}
	fresh := old
	if !held {
		fresh, err = writeGeneration(s.dir, files)
	}
	if err == nil {
		err = s.turn(fresh, unlinked)
	}
	if err != nil {
		s.undo()
		return false, err
	}
	wanted := func(name string) bool {
		return slices.ContainsFunc(files, func(f File) bool { return f.Name == name })
	}
	_, err = s.sweep(wanted, old, fresh)
	return true, errors.Join(err, syncDir(s.dir))
}

// turn leads readers to the generation. Links come first: until ..data turns
// they dangle, which to whoever opens them is the same as being absent.
func (s *lockedSet) turn(generation string, unlinked []string) error {
	for _, name := range unlinked {
		if err := putLink(s.dir, linkTarget(name), name); err != nil {
			return err
		}
	}
	return putLink(s.dir, generation, currentLink)
}

// undo removes what a failed publish has made. Its own errors are dropped: the
// first one is the one to report, and the next publish or Open sweeps again.
func (s *lockedSet) undo() {
	if s.look() == nil {
		_, _ = s.tidy()
	}
}

// tidy leaves the current generation, and those before it for as long as somebody may
// be reading them.
func (s *lockedSet) tidy() (swept bool, err error) {
	return s.sweep(s.current.has, append(s.replaced(), s.current.name)...)
}

// replaced lists the generations before the current one while that one is new. Their
// names tell what is older; what is newer was never finished.
func (s *lockedSet) replaced() []string {
	older := slices.DeleteFunc(slices.Clone(s.names), func(name string) bool {
		return !isGenerationName(name) || name >= s.current.name
	})
	if len(older) == 0 {
		return nil
	}
	turned, err := s.dir.Lstat(currentLink)
	if err != nil {
		return nil
	}
	if age := time.Since(turned.ModTime()); age < 0 || age >= Lull { // a clock that was set back must not keep them
		return nil
	}
	return older
}

// withdraw removes ..data first, so that all names end at one instant.
func (s *lockedSet) withdraw() (changed bool, err error) {
	if s.names, err = list(s.dir); err != nil {
		return false, err
	}
	err = s.dir.Remove(currentLink)
	changed = err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("remove %s: %w", pathIn(s.dir, currentLink), err)
	}
	swept, err := s.sweep(func(string) bool { return false })
	if !changed && !swept {
		return false, err
	}
	return true, errors.Join(err, syncDir(s.dir))
}

// sweep removes what is ours and of no use: generations other than those to
// keep, unfinished links, and links of names that are not wanted.
func (s *lockedSet) sweep(wanted func(name string) bool, keep ...string) (swept bool, err error) {
	for _, name := range s.names {
		switch {
		case isGenerationName(name) && !slices.Contains(keep, name):
			err = s.dir.RemoveAll(name)
		case name == scratchLink, validateName(name) == nil && !wanted(name) && s.linked(name):
			err = s.dir.Remove(name)
		default:
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return swept, fmt.Errorf("remove %s: %w", pathIn(s.dir, name), err)
		}
		swept = true
	}
	return swept, nil
}

// unlinked lists the files whose visible links are missing or not ours.
func (s *lockedSet) unlinked(files []File) []string {
	var names []string
	for _, f := range files {
		if !s.linked(f.Name) {
			names = append(names, f.Name)
		}
	}
	return names
}

func (s *lockedSet) linked(name string) bool {
	target, err := s.dir.Readlink(name)
	return err == nil && target == linkTarget(name)
}

func linkTarget(name string) string {
	return path.Join(currentLink, name)
}
