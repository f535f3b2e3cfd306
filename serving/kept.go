package serving

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"sync"
)

// kept is what files held when they were last good. They are read again whenever
// it is asked for, which is rare, so no change is missed and nothing is watched.
type kept[T any] struct {
	what  string // for the log, e.g. "serving certificate"
	paths []string
	parse func(contents [][]byte) (T, error)
	log   *slog.Logger

	mu       sync.Mutex // guards the rest
	contents [][]byte   // that were parsed last, good or not
	problem  string     // told last; empty when there was none
	value    T
	valid    bool
}

// get returns the last good value, and false while there was none.
func (k *kept[T]) get() (value T, valid bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.read(); err != nil && err.Error() != k.problem {
		k.problem = err.Error()
		k.log.Error("file not used", "what", k.what, "kept", k.valid, "err", err)
	}
	return k.value, k.valid
}

func (k *kept[T]) read() error {
	contents := make([][]byte, len(k.paths))
	for i, path := range k.paths {
		var err error
		if contents[i], err = os.ReadFile(path); err != nil { //nolint:gosec // the configuration's path
			k.contents = nil
			return err
		}
	}
	if k.same(contents) {
		return nil
	}
	k.contents = contents
	value, err := k.parse(contents)
	if err != nil {
		return fmt.Errorf("%s: %w", k.paths[0], err)
	}
	if k.valid {
		k.log.Info("file changed", "what", k.what, "path", k.paths[0])
	}
	k.value, k.valid, k.problem = value, true, ""
	return nil
}

func (k *kept[T]) same(contents [][]byte) bool {
	if k.contents == nil {
		return false
	}
	for i := range contents {
		if !bytes.Equal(contents[i], k.contents[i]) {
			return false
		}
	}
	return true
}
