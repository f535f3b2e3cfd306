package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// CacheDir returns where binaries, data directories and the state of Up live:
// $CHANDLER_CACHE, or else "chandler" in the user's cache directory.
func CacheDir() (string, error) {
	if dir := os.Getenv("CHANDLER_CACHE"); dir != "" {
		if !filepath.IsAbs(dir) {
			return "", fmt.Errorf("CHANDLER_CACHE=%s: not an absolute path", dir)
		}
		return dir, nil
	}
	parent, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory, CHANDLER_CACHE being unset: %w", err)
	}
	return filepath.Join(parent, "chandler"), nil
}

// scratch makes a data directory and returns what removes it. Before that it
// removes those whose owner was killed before it could: each is locked for as
// long as its owner lives, and holds 64 MB of etcd's log.
func scratch() (string, func() error, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", nil, err
	}
	parent := filepath.Join(cache, "run")
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", nil, err
	}
	unlock, err := Lock(context.Background(), parent+".lock", func() {})
	if err != nil {
		return "", nil, err
	}
	defer unlock()
	if err := sweep(parent); err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp(parent, "")
	if err != nil {
		return "", nil, err
	}
	release, err := tryLock(filepath.Join(dir, "owner"))
	if err != nil {
		return "", nil, err
	}
	discard := func() error {
		unlock, err := Lock(context.Background(), parent+".lock", func() {})
		if err != nil {
			return err
		}
		defer unlock()
		defer release()
		return os.RemoveAll(dir)
	}
	return dir, discard, nil
}

func sweep(parent string) error {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		dir := filepath.Join(parent, entry.Name())
		release, err := tryLock(filepath.Join(dir, "owner"))
		if errors.Is(err, errLocked) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = os.RemoveAll(dir)
		release()
		if err != nil {
			return fmt.Errorf("remove what a killed run left: %w", err)
		}
	}
	return nil
}

var errLocked = errors.New("locked by another process")

// tryLock takes the exclusive lock of a file, which it creates in an existing
// directory, or returns errLocked. The lock ends with the process at the latest
// and is not inherited.
func tryLock(path string) (release func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errLocked
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	// Closing unlocks; there is nothing written that could be lost.
	return func() { _ = file.Close() }, nil
}

// Lock waits for the exclusive lock of a file until ctx ends, and calls waiting
// once if another process holds it.
func Lock(ctx context.Context, path string, waiting func()) (release func(), err error) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for told := false; ; told = true {
		release, err := tryLock(path)
		if !errors.Is(err, errLocked) {
			return release, err
		}
		if !told {
			waiting()
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for lock %s: %w", path, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}
