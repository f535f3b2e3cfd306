package hostfiles

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// ownerFile holds the name of the agent that publishes here, which keeps the
	// file locked as long as it lives. Like a set's lock it is closed to readers.
	ownerFile = "..owner"

	// scratchOwner begins the name of an ownerFile on its way to its name. Each has
	// its own: agents that start together must not rename each other's.
	scratchOwner = "..owner_tmp"

	// staleOwner is how old a scratchOwner is that its agent was killed over. To
	// write and rename it takes milliseconds, or seconds on a struggling disk.
	staleOwner = time.Minute

	// maxOwner is enough for a namespace, a pod and what stands between them.
	maxOwner = 512

	// leastFree is how many blocks and inodes have to be free. A new set of five
	// files takes 14 inodes: the lock, two directories, five files, six links. Fewer
	// may be free on a full disk that nothing more can be published to.
	leastFree = 16
)

var (
	// ErrDeleted says that the host directory was deleted, or another put in its
	// place. Nobody will read what is published to it: it has to be opened again,
	// and where it is mounted, to be mounted again.
	ErrDeleted = errors.New("the host directory has been deleted or replaced")

	// ErrTaken says that a newer agent owns the host directory.
	ErrTaken = errors.New("the host directory belongs to another agent")
)

// Check reports whether a set that changed now could be published. It returns nil, or
// an error that wraps ErrDeleted, syscall.EROFS or syscall.ENOSPC. Publish finds
// these out only when there is something to write.
func (d *Dir) Check() error {
	if err := d.check(); err != nil {
		return fmt.Errorf("host directory %s: %w", d.Path(), err)
	}
	return nil
}

func (d *Dir) check() error {
	f, err := d.root.OpenFile(".", readFlags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// Under a bind mount the path leads to the opened directory for ever. That
	// nothing can be listed in it, not even nothing, is what shows its removal.
	if _, err := f.Readdirnames(1); errors.Is(err, fs.ErrNotExist) {
		return ErrDeleted
	}
	opened, err := f.Stat()
	if err != nil {
		return err
	}
	there, err := os.Stat(d.Path())
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(opened, there) {
		return ErrDeleted
	}
	return errors.Join(err, checkSpace(f))
}

func checkSpace(f *os.File) error {
	var system unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &system); err != nil {
		return err
	}
	switch {
	case system.Flags&unix.ST_RDONLY != 0:
		return syscall.EROFS
	case full(system, os.Geteuid() == 0):
		return syscall.ENOSPC
	default:
		return nil
	}
}

// full reports whether the file system may have no room for another set. Only root may
// use the blocks that are reserved.
func full(system unix.Statfs_t, root bool) bool {
	blocks := system.Bavail
	if root {
		blocks = system.Bfree
	}
	// A file system that has none in all does not count them.
	return system.Blocks > 0 && blocks < leastFree || system.Files > 0 && system.Ffree < leastFree
}

// Own makes the agent called name, e.g. "chandler/chandler-x7k2p", the one that
// publishes here. A Dir's first call takes the directory from an agent that runs,
// and returns the name of it in from. Later calls find out whether the same was
// done to this one: the error wraps ErrTaken then and names both. They take the
// directory back once that agent has ended. So of several agents the newest one
// that lives is the owner.
//
// Own keeps nobody from publishing: callers ask it before they do.
func (d *Dir) Own(name string) (from string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	other, ours, err := d.owner()
	switch {
	case err == nil && ours:
		return "", nil
	case err == nil && other != "" && d.claim != nil:
		err = fmt.Errorf("%w: %.200q publishes here, %q does not: run one agent per node, or give each its own hostDir",
			ErrTaken, other, name)
	case err == nil:
		err = d.take(name)
	}
	if err != nil {
		return "", fmt.Errorf("own %s: %w", d.Path(), err)
	}
	return other, nil
}

// owner reads who else lives and owns the directory, "" for nobody, or that we do.
// What is no file was not made here and is as good as none.
func (d *Dir) owner() (other string, ours bool, err error) {
	seen, err := d.root.Lstat(ownerFile)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !seen.Mode().IsRegular() {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	if d.claim != nil {
		claim, err := d.claim.Stat()
		if err != nil || os.SameFile(seen, claim) {
			return "", err == nil, err
		}
	}
	f, err := d.root.OpenFile(ownerFile, readFlags, 0)
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	if opened, err := f.Stat(); err != nil || !os.SameFile(seen, opened) {
		return "", false, errors.Join(err, fmt.Errorf("%s was replaced while it was opened", f.Name()))
	}
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case err == nil:
		return "", false, nil // who made it has ended
	case !errors.Is(err, syscall.EWOULDBLOCK):
		return "", false, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	written, err := io.ReadAll(io.LimitReader(f, maxOwner))
	return cmp.Or(string(written), "unknown"), false, err
}

// take replaces the owner's file by one that is complete and locked already. What is
// kept open cannot be written to: that would keep the disk from being remounted.
func (d *Dir) take(name string) error {
	if err := d.sweepOwners(); err != nil {
		return err
	}
	scratch := fmt.Sprintf("%s%d", scratchOwner, rand.Uint64())
	if err := writeFile(d.root, File{Name: scratch, Mode: 0o600, UID: asCreated, GID: asCreated, Data: []byte(name)}); err != nil {
		return err
	}
	f, err := d.root.OpenFile(scratch, readFlags, 0)
	if err != nil {
		return err
	}
	if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		err = d.root.Rename(scratch, ownerFile)
	}
	if errors.Is(err, fs.ErrExist) {
		err = inTheWay(d.root, ownerFile, err)
	}
	if err != nil {
		return errors.Join(err, d.root.Remove(scratch), f.Close())
	}
	err = d.disown()
	d.claim = f
	return err
}

// sweepOwners removes what agents have left that were killed while they took the
// directory.
func (d *Dir) sweepOwners() error {
	names, err := list(d.root)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, scratchOwner) {
			continue
		}
		info, err := d.root.Lstat(name)
		if err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > staleOwner {
			err = d.root.Remove(name)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // its agent may just have renamed it
			return err
		}
	}
	return nil
}

// disown lets another agent take the directory. The caller holds mu.
func (d *Dir) disown() error {
	if d.claim == nil {
		return nil
	}
	claim := d.claim
	d.claim = nil
	return releaseLock(claim)
}
