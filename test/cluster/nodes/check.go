package nodes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/chandler-k8s/chandler/test/cluster"
)

// attempt does for a moment what a node does, in namespaces that end with it.
const attempt = `set -e
mount -t tmpfs none /tmp
mkdir /tmp/lower /tmp/upper /tmp/work /tmp/merged
mount -t overlay overlay -o lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work /tmp/merged
ip link add bridge0 type bridge
ip link add veth0 type veth peer name veth1`

// Check tells what this machine or user lacks to have nodes. What can be installed or
// built is not looked at, nor whether it works.
func Check(ctx context.Context, _ io.Writer) error {
	if err := possible(1); err != nil {
		return err
	}
	command := exec.CommandContext(ctx, "unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "sh")
	command.Stdin = strings.NewReader(attempt)
	if err := run(command); err != nil {
		return fmt.Errorf("real nodes need namespaces, mounts and links: %w", err)
	}
	cache, err := cluster.CacheDir()
	if err != nil {
		return err
	}
	s, err := read(cache)
	if err != nil {
		return err
	}
	dirs, err := hierarchies()
	if err != nil {
		return err
	}
	for _, hierarchy := range dirs {
		dir := filepath.Join(hierarchy, fmt.Sprintf("chandler-%s-check-%d", s.id, os.Getpid()))
		if err := errors.Join(os.Mkdir(dir, 0o755), os.Remove(dir)); err != nil {
			return fmt.Errorf("real nodes need cgroups of their own: %w", err)
		}
	}
	return nil
}
