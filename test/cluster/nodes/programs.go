package nodes

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/debian"
)

// pauseImage is what every pod's network belongs to.
const pauseImage = "chandler.test/pause:1"

// packages are runc, the plugins of pods' network, and what kube-proxy sets Services
// up with, each with its libraries.
var packages = []string{
	"runc", "libseccomp2", "containernetworking-plugins",
	"nftables", "libnftables1", "libnftnl11", "libmnl0", "libjansson4", "libgmp10", "libxtables12", "libedit2", "libbsd0", "libmd0",
}

// paths says where everything is that a node runs.
type paths struct {
	kubernetes, containerd, debian string // directories
	pause, pauseImage, script      string // files
}

// findPrograms builds or fetches what is not in the cache, with progress to log.
func findPrograms(ctx context.Context, log io.Writer) (paths, error) {
	found, err := cluster.FindForNodes(ctx, log)
	if err != nil {
		return paths{}, err
	}
	cache, err := cluster.CacheDir()
	if err != nil {
		return paths{}, err
	}
	p := paths{kubernetes: filepath.Dir(found.Kubelet), containerd: found.Containerd, debian: filepath.Join(cache, "node-packages")}
	if err := debian.Unpack(ctx, p.debian, log, packages...); err != nil {
		return paths{}, fmt.Errorf("find runc, CNI plugins and nft: %w", err)
	}
	checkout, err := cluster.Checkout(ctx)
	if err != nil {
		return paths{}, err
	}
	p.script = filepath.Join(checkout, "test/cluster/nodes/files/boot.sh")
	dir, err := pause(ctx, checkout, cache)
	if err != nil {
		return paths{}, fmt.Errorf("build pause: %w", err)
	}
	p.pause, p.pauseImage = filepath.Join(dir, "pause"), filepath.Join(dir, "pause.tar")
	return p, nil
}

// pause returns the directory of the program that holds namespaces open and of its
// image, which it builds where its source is another.
func pause(ctx context.Context, checkout, cache string) (dir string, err error) {
	source, err := os.ReadFile(filepath.Join(checkout, "test/cluster/nodes/pause/main.go"))
	if err != nil {
		return "", err
	}
	key := sha256.Sum256(append(source, runtime.Version()...))
	dir = filepath.Join(cache, "binaries", "pause-"+hex.EncodeToString(key[:10]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	scratch, err := os.MkdirTemp(filepath.Dir(dir), "pause-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	program := filepath.Join(scratch, "pause")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, "./test/cluster/nodes/pause")
	build.Dir = checkout
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := run(build); err != nil {
		return "", err
	}
	pack := exec.CommandContext(ctx, "go", "run", ".", "--out", program+".tar", "--name", pauseImage, "--binary", runtime.GOARCH+"="+program)
	pack.Dir = filepath.Join(checkout, "tools/image")
	if err := run(pack); err != nil {
		return "", err
	}
	if err := os.Chmod(scratch, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(scratch, dir); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return dir, nil
}
