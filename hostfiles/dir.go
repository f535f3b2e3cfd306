package hostfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const (
	// dirMode is open to all: each file's own mode guards its content.
	dirMode fs.FileMode = 0o755

	// readFlags keep an open from waiting for the other end of a planted FIFO.
	// They also save the four fcntl calls with which package os would try to
	// make the descriptor non-blocking itself.
	readFlags = os.O_RDONLY | syscall.O_NONBLOCK
)

// openRoot opens the host directory itself. Its path is the administrator's
// word, so symbolic links in it are followed.
func openRoot(path string) (*os.Root, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(path, dirMode); err != nil {
			return nil, err
		}
		if err := os.Chmod(path, dirMode); err != nil {
			return nil, err
		}
	}
	return os.OpenRoot(path)
}

// openDir opens the directory called name in parent. Unlike Root.OpenRoot it
// does not follow a symbolic link, also not one that is put there meanwhile.
func openDir(parent *os.Root, name string) (*os.Root, fs.FileInfo, error) {
	seen, err := parent.Lstat(name)
	if err != nil {
		return nil, nil, err
	}
	if !seen.IsDir() {
		return nil, nil, inTheWay(parent, name, syscall.ENOTDIR)
	}
	dir, err := parent.OpenRoot(name)
	if err != nil {
		return nil, nil, err
	}
	opened, err := dir.Stat(".")
	if err == nil && !os.SameFile(seen, opened) {
		err = fmt.Errorf("%s was replaced while it was opened", pathIn(parent, name))
	}
	if err != nil {
		return nil, nil, errors.Join(err, dir.Close())
	}
	return dir, opened, nil
}

// makeDir makes and opens a directory of exactly dirMode.
func makeDir(parent *os.Root, name string) (*os.Root, error) {
	if err := parent.Mkdir(name, dirMode); err != nil {
		return nil, err
	}
	if err := parent.Chmod(name, dirMode); err != nil {
		return nil, err
	}
	dir, _, err := openDir(parent, name)
	return dir, err
}

// list returns the names in a directory, in no order. It does without types:
// for a file opened through a Root, ReadDir asks for each one separately.
func list(dir *os.Root) ([]string, error) {
	f, err := dir.OpenFile(".", readFlags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// syncDir makes the names in a directory durable.
func syncDir(dir *os.Root) error {
	f, err := dir.OpenFile(".", readFlags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// putLink makes name a symbolic link to target in one rename, in place of any
// file or link. A directory is removed first, if it is empty.
func putLink(dir *os.Root, target, name string) error {
	if err := dir.Symlink(target, scratchLink); err != nil {
		return err
	}
	err := dir.Rename(scratchLink, name)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := dir.Remove(name); err != nil {
		return inTheWay(dir, name, err)
	}
	return dir.Rename(scratchLink, name)
}

// inTheWay says of what only an administrator can put right where it is.
func inTheWay(dir *os.Root, name string, err error) error {
	return fmt.Errorf("%s is not as it was made, remove it: %w", pathIn(dir, name), err)
}

func pathIn(dir *os.Root, name string) string {
	return filepath.Join(dir.Name(), name)
}
