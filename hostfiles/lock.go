package hostfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	// lockPatience bounds the wait for another publish of the same set: a few
	// syncs, which take milliseconds, or seconds on a struggling disk.
	lockPatience = 5 * time.Second

	// lockPause lies between two attempts. It is short, as attempts are cheap and
	// somebody who publishes without pause leaves only short openings.
	lockPause = time.Millisecond
)

func lockName(set string) string {
	return ".." + set + ".lock"
}

// lockedBy is the set that a file of this name locks.
func lockedBy(name string) (set string, ok bool) {
	set = strings.TrimSuffix(strings.TrimPrefix(name, ".."), ".lock")
	return set, name == lockName(set) && validateName(set) == nil
}

// takeLock returns with the set's lock held, until releaseLock or the end of
// the process. Each call opens the file anew, so that goroutines exclude
// each other just as processes do, and so that a lock file that was deleted
// is made again.
func takeLock(host *os.Root, set string, patience time.Duration) (*os.File, error) {
	f, err := openLock(host, lockName(set))
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(patience)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		case !time.Now().Before(deadline):
			err := fmt.Errorf("lock %s: held for %v by another: %w", f.Name(), patience, os.ErrDeadlineExceeded)
			return nil, errors.Join(err, f.Close())
		}
		time.Sleep(lockPause)
	}
}

// releaseLock does not leave it to Close: a child process that is being started
// at this moment has the file open as well until it executes its program.
func releaseLock(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}

func openLock(host *os.Root, name string) (*os.File, error) {
	f, err := host.OpenFile(name, readFlags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = makeLock(host, name)
	}
	if err == nil {
		return f, nil
	}
	if seen, e := host.Lstat(name); e == nil && !seen.Mode().IsRegular() {
		return nil, inTheWay(host, name, err)
	}
	return nil, err
}

func makeLock(host *os.Root, name string) (*os.File, error) {
	f, err := host.OpenFile(name, readFlags|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist): // another process was faster
		return host.OpenFile(name, readFlags, 0)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %w", ErrDeleted, err)
	case err != nil:
		return nil, err
	}
	if err := f.Chmod(0o600); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
