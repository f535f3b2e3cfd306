package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// Install copies the running program to "chandler" in a directory, for the other
// containers of a pod to run. It is safe to repeat; what is there is replaced as a
// whole.
func Install(dir string, log *slog.Logger) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = errors.New("not a directory")
	}
	if err != nil {
		return fmt.Errorf("install to %s: %w: mount a volume there that both containers share", dir, err)
	}
	path, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the running program: %w", err)
	}
	program, err := os.Open(path) //nolint:gosec // ourselves
	if err != nil {
		return err
	}
	defer program.Close() //nolint:errcheck // only read from
	if info, err = program.Stat(); err != nil {
		return err
	}
	if err := sweep(dir); err != nil {
		return err
	}
	const mebibyte = 1 << 20
	target := filepath.Join(dir, "chandler")
	if err := replaceFile(target, program, 0o755, -1, -1); err != nil {
		return fmt.Errorf("%w (the program is %d MiB)", err, info.Size()/mebibyte)
	}
	log.Info("program installed", "path", target)
	return nil
}

// sweep removes what runs have left that were killed: a small volume has no room for
// it.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), unfinished) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, entry.Name())))
		}
	}
	return err
}
