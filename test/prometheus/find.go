// Package prometheus finds a real Prometheus and runs it, for tests that let it
// scrape.
package prometheus

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/debian"
)

// Binaries are the paths of the two programs of Debian's package.
type Binaries struct{ Prometheus, Promtool string }

// Find returns those in PATH, or else those of Debian's package "prometheus", which
// it unpacks into the cache the first time. What it does then goes to log.
func Find(ctx context.Context, log io.Writer) (Binaries, error) {
	server, err1 := exec.LookPath("prometheus")
	tool, err2 := exec.LookPath("promtool")
	if err1 == nil && err2 == nil {
		return Binaries{server, tool}, nil
	}
	cache, err := cluster.CacheDir()
	if err != nil {
		return Binaries{}, err
	}
	dir := filepath.Join(cache, "prometheus")
	if err := debian.Unpack(ctx, dir, log, "prometheus"); err != nil {
		return Binaries{}, fmt.Errorf("find prometheus and promtool, which are not in PATH: %w", err)
	}
	return Binaries{filepath.Join(dir, "usr/bin/prometheus"), filepath.Join(dir, "usr/bin/promtool")}, nil
}
