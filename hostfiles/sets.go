package hostfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// ReadSet is Dir.Read for one who never publishes, such as a consumer with a
// read-only mount: it makes no directory and sweeps nothing. The error wraps
// fs.ErrNotExist also when path itself does not exist.
func ReadSet(path, set string) (files []File, err error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open host directory %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return (&Dir{root: root}).Read(set)
}

// Sets lists, sorted, the sets that have ever been published here, also by
// other processes and also those that were removed since.
func (d *Dir) Sets() ([]string, error) {
	sets, err := locked(d.root)
	if err != nil {
		return nil, fmt.Errorf("list sets in %s: %w", d.root.Name(), err)
	}
	slices.Sort(sets)
	return sets, nil
}

// locked knows the sets by their lock files, so that a directory that only
// looks like a set, such as a kubelet's own volume, is not taken for one.
func locked(host *os.Root) ([]string, error) {
	names, err := list(host)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrDeleted, err)
	}
	if err != nil {
		return nil, err
	}
	var sets []string
	for _, name := range names {
		if set, ok := lockedBy(name); ok {
			sets = append(sets, set)
		}
	}
	return sets, nil
}

func sweepSets(host *os.Root) error {
	sets, err := locked(host)
	if err != nil {
		return err
	}
	for _, set := range sets {
		// Deliberately dropped: one damaged set must not keep the agent from
		// serving the others, and its next Publish meets and reports the same.
		_ = sweepSet(host, set)
	}
	return nil
}

func sweepSet(host *os.Root, set string) error {
	s, err := enter(host, set, 0, existing)
	if err != nil {
		return err
	}
	defer s.leave()
	if err := s.look(); err != nil {
		return err
	}
	_, err = s.tidy()
	return err
}
