package hostfiles

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long a change may go on before the hint for it: the kubelet's
// swap of a volume, some ten events, ends within it.
const settle = 50 * time.Millisecond

// Watch calls hint once the directories are watched, and again after anything
// has changed in them, until ctx ends; then it returns nil. A hint says no more
// than "look again": several changes may share one, and some hints follow no
// change. Changes during a hint lead to another. Hints come one at a time.
//
// A directory may be absent, be removed, be replaced, or be a link that is
// turned: its parent is watched too, or the nearest directory above that
// exists. Directories below it are not watched.
//
// Watch fails with the system's error, e.g. syscall.EMFILE or ENOSPC, when the
// machine's inotify limits are reached; callers that look on a slow tick as
// well can go on without it.
func Watch(ctx context.Context, dirs []string, hint func()) error {
	paths, err := absolute(dirs)
	if err != nil {
		return err
	}
	// A fresh watcher for every round cannot lose track of a directory that was
	// replaced, and what happens between two rounds the hint after it covers.
	for ctx.Err() == nil {
		watcher, err := watchAll(paths)
		if err != nil {
			return err
		}
		hint()
		err = awaitChange(ctx, watcher, paths)
		if err := errors.Join(err, watcher.Close()); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
	}
	return nil
}

func absolute(dirs []string) ([]string, error) {
	paths := make([]string, len(dirs))
	for i, dir := range dirs {
		path, err := filepath.Abs(dir)
		if err != nil {
			return nil, fmt.Errorf("watch %s: %w", dir, err)
		}
		paths[i] = path
	}
	return paths, nil
}

func watchAll(dirs []string) (*fsnotify.Watcher, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	for _, dir := range dirs {
		if err := watchDir(watcher, dir); err != nil {
			return nil, errors.Join(fmt.Errorf("watch %s: %w", dir, err), watcher.Close())
		}
	}
	return watcher, nil
}

// watchDir watches the parent first, which then reports whatever happens to
// the directory. A parent that may be searched but not read is done without.
func watchDir(watcher *fsnotify.Watcher, dir string) error {
	if err := watchNearest(watcher, filepath.Dir(dir)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return watchNearest(watcher, dir)
}

// watchNearest watches dir, or in its absence the nearest directory above. It
// tries again once that one is watched: dir may have appeared before it was.
func watchNearest(watcher *fsnotify.Watcher, dir string) error {
	err := watcher.Add(dir)
	if !absent(err) {
		return err
	}
	if err := watchNearest(watcher, filepath.Dir(dir)); err != nil {
		return err
	}
	if err := watcher.Add(dir); !absent(err) {
		return err
	}
	return nil
}

func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// awaitChange returns when a change that matters has had time to settle, or
// when ctx ends. Lost events matter.
func awaitChange(ctx context.Context, watcher *fsnotify.Watcher, dirs []string) error {
	for changed := false; !changed; {
		select {
		case <-ctx.Done():
			return nil
		case event := <-watcher.Events:
			changed = concerns(event.Name, dirs)
		case err := <-watcher.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return err
			}
			changed = true
		}
	}
	select {
	case <-ctx.Done():
	case <-time.After(settle):
	}
	return nil
}

// concerns tells events in, of and on the way to the directories from those of
// their neighbours in a watched parent.
func concerns(path string, dirs []string) bool {
	path = filepath.Clean(path)
	for _, dir := range dirs {
		if path == dir || filepath.Dir(path) == dir || strings.HasPrefix(dir, path+"/") {
			return true
		}
	}
	return false
}
