// Package debian unpacks packages of Debian into the cache, for tests that need a
// program which this machine may not have. Nothing is installed, no service starts,
// and no rights are needed.
package debian

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// Unpack fills dir, e.g. with dir/usr/bin/runc, from packages unless dir exists. It
// does not follow dependencies: name the libraries as well. Progress goes to log.
// The directory appears whole at once, so that several processes may do it together.
func Unpack(ctx context.Context, dir string, log io.Writer, packages ...string) (err error) {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	fmt.Fprintln(log, "fetching from Debian, once:", packages) //nolint:errcheck // progress
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(filepath.Dir(dir), "debian-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	if err := download(ctx, scratch, log, packages); err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(scratch, "*.deb"))
	if err != nil || len(archives) != len(packages) {
		return fmt.Errorf("apt-get left %d packages, want %d", len(archives), len(packages))
	}
	unpacked := filepath.Join(scratch, "unpacked")
	for _, archive := range archives {
		if err := run(ctx, scratch, log, "dpkg-deb", "-x", archive, unpacked); err != nil {
			return err
		}
	}
	if err := os.Rename(unpacked, dir); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// download asks the lists of this machine, or else fetches lists of its own.
func download(ctx context.Context, dir string, log io.Writer, packages []string) error {
	// apt-get would use a user who may not look into the cache.
	options := []string{"-qq", "-o", "APT::Sandbox::User=root"}
	if run(ctx, dir, log, "apt-get", append(append(options, "download"), packages...)...) == nil {
		return nil
	}
	own := append(options, "-o", "Dir::State="+dir, "-o", "Dir::Cache="+dir, "-o", "Debug::NoLocking=true")
	if err := os.MkdirAll(filepath.Join(dir, "lists", "partial"), 0o755); err != nil {
		return err
	}
	if err := run(ctx, dir, log, "apt-get", append(own, "update")...); err != nil {
		return err
	}
	return run(ctx, dir, log, "apt-get", append(append(own, "download"), packages...)...)
}

func run(ctx context.Context, dir string, log io.Writer, name string, args ...string) error {
	command := exec.CommandContext(ctx, name, args...)
	command.Dir, command.Stdout, command.Stderr = dir, log, log
	if err := command.Run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
