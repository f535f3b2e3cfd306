// Package hostfiles publishes sets of small files under one host directory so
// that readers see each set change as a whole, and watches directories.
//
// A set is a directory laid out as the kubelet lays out a Secret volume:
//
//	<dir>/..aws.lock                               held while aws is written
//	<dir>/aws/..2026_01_02_15_04_05.1234567890/    a generation: the real files
//	<dir>/aws/..data -> ..2026_01_02_15_04_05.1234567890
//	<dir>/aws/config.ini -> ..data/config.ini
//
// # What readers may rely on
//
// The rename of ..data is the one instant at which a set changes. A generation
// is complete, synced and has its final owners and modes before that instant,
// and is never written again. Links for names that are new are made before it
// and dangle until then; links for names that are gone are removed after it
// and dangle from then on. So kill -9 at any instant leaves the old set or the
// new one, by name as well as through ..data, and whoever is woken by the
// change of ..data finds every name in place.
//
// A reader that needs several files to agree opens <set>/..data once, as a
// directory, and reads through it. One that opens each file by its name may
// straddle a change and see one file of each generation.
//
// The generation just replaced stays until the set changes again or is removed,
// or until the first Publish or Open that comes five seconds later or more, even
// if that changes nothing: a reader that resolved ..data a moment ago still finds
// its files. At most one superseded generation exists, so a set takes up to three
// times its size while it is written, and twice its size at rest.
//
// # What the package refuses
//
// All access goes through one os.Root. Symbolic links are made and replaced
// but never followed to a write, not even inside the host directory. What
// another has put in the place of something of ours is replaced if that
// destroys no directory's contents, and is otherwise an error that names it.
// Anything else in the tree is left alone. Empty files, empty sets and names
// that are more than plain base names are refused. The package knows nothing
// of the contents: callers prove them before they publish.
//
// Processes that share a host directory, as two agents do during a rolling
// update, exclude each other with one lock file a set, which only its owner
// and root can open: an ordinary reader cannot hold up a publish, and one that
// runs as root only turns it into an error that says so. Of two agents that would
// publish in one directory for good, Own lets the newer go on.
//
// The node half publishes with it, and every part that follows mounted files
// watches with it.
package hostfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
)

// File is one member of a set. It formats and logs without its Data.
type File struct {
	// Name is a base name of ASCII letters, digits, dot, dash and underscore
	// that starts with a letter, digit or underscore, e.g. "tls.crt".
	Name string
	// Mode is applied exactly, whatever the umask, e.g. 0o440. Only permission
	// bits are allowed; zero is refused, as a mode somebody forgot.
	Mode fs.FileMode
	// UID and GID own the file. -1 leaves what the system gives a new file.
	UID, GID int
	// Data is the content, from 1 byte to 1 MiB. It is often secret.
	Data []byte `json:"-"`
}

// Format writes the file without its Data, for every verb of package fmt.
func (f File) Format(s fmt.State, _ rune) {
	fmt.Fprintf(s, "{%s %#o %d:%d %d bytes}", f.Name, uint32(f.Mode), f.UID, f.GID, len(f.Data))
}

// LogValue is the file without its Data.
func (f File) LogValue() slog.Value {
	return slog.StringValue(fmt.Sprint(f))
}

// Dir is a host directory that holds sets. Its methods may be called by
// several goroutines and processes at once: calls for one set take turns,
// calls for different sets do not wait for each other. The zero value is not
// usable; see Open.
type Dir struct {
	root *os.Root

	mu    sync.Mutex // guards what follows
	claim *os.File   // our ownerFile, which is locked; nil before Own
}

// Open opens the host directory at path, creating it with mode 0755 if it is
// absent, and clears what interrupted publishes have left in the sets under
// it. Sets that another process is writing are left to that process, and what
// cannot be removed, say on a read-only file system, is left and reported by
// the next Publish of its set. So a read-only directory opens and can be read.
func Open(path string) (*Dir, error) {
	root, err := openRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open host directory %s: %w", path, err)
	}
	if err := sweepSets(root); err != nil {
		return nil, errors.Join(fmt.Errorf("open host directory %s: %w", path, err), root.Close())
	}
	return &Dir{root: root}, nil
}

// Close releases the directory and its ownership. The files stay.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(d.disown(), d.root.Close())
}

// Path is the path that Open was given.
func (d *Dir) Path() string {
	return d.root.Name()
}

// Publish makes the set consist of exactly these files and reports whether
// anything had to be written for that: a set whose names, contents, modes and
// owners on disk are already right is not touched. It blocks until the files
// are on stable storage and is safe to repeat.
//
// On an error readers keep the old set, whole; only if changed is true as well
// do they have the new one already, and the error concerns what follows the
// change: removing links of names that are gone, or the final sync.
//
// Errors wrap fs.ErrInvalid for a name, mode, owner or content that is
// refused, os.ErrDeadlineExceeded if another process kept the set locked for
// five seconds, and otherwise the system's, such as syscall.ENOSPC, EROFS or
// EPERM.
func (d *Dir) Publish(set string, files []File) (changed bool, err error) {
	defer d.wrap(&err, "publish", set)
	if err := errors.Join(validateName(set), validateFiles(files)); err != nil {
		return false, err
	}
	s, err := enter(d.root, set, lockPatience, existingOrNew)
	if err != nil {
		return false, err
	}
	defer s.leave()
	return s.publish(files)
}

// Read returns the set's current files, sorted by name, with the modes and
// owners they have on disk. They are of one generation even while another
// process publishes. The error wraps fs.ErrNotExist if nothing is published.
// Read needs no right to write.
func (d *Dir) Read(set string) (files []File, err error) {
	defer d.wrap(&err, "read", set)
	if err := validateName(set); err != nil {
		return nil, err
	}
	dir, err := existing(d.root, set)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return readCurrent(dir)
}

// Remove withdraws the set and reports whether there was anything to remove.
// The set's empty directory stays, because a pod that has mounted it would
// otherwise never see files published there later; so do files that are not
// ours. Readers lose all names at one instant, but unlike after Publish the
// files themselves are gone at once. Safe to repeat; errors are Publish's.
func (d *Dir) Remove(set string) (changed bool, err error) {
	defer d.wrap(&err, "remove", set)
	if err := validateName(set); err != nil {
		return false, err
	}
	if _, err := d.root.Lstat(set); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	s, err := enter(d.root, set, lockPatience, existing)
	if err != nil {
		return false, err
	}
	defer s.leave()
	return s.withdraw()
}

func (d *Dir) wrap(err *error, operation, set string) {
	if *err != nil {
		*err = fmt.Errorf("%s set %q in %s: %w", operation, set, d.root.Name(), *err)
	}
}
