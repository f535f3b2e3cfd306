package nodes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// Import gives a node an image from a tar, as `make image` writes it, under the name
// that the tar has for it. Kubernetes reads a name without a host as one of
// docker.io: "chandler.test/probe:1" means itself.
func Import(ctx context.Context, name string, tar io.Reader) error {
	n, err := lookUp(ctx, name)
	if err != nil {
		return err
	}
	return n.load(ctx, tar)
}

// Exec runs a command of this machine on a node, as root of its namespaces, with our
// standard streams. `ctr -n k8s.io` is one, and shows containers.
func Exec(ctx context.Context, name string, argv []string) error {
	if len(argv) == 0 {
		return errors.New("exec: want a command")
	}
	n, err := lookUp(ctx, name)
	if err != nil {
		return err
	}
	command := n.inside(ctx, argv...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	return command.Run()
}

// lookUp returns a node that runs, and does not keep others from working meanwhile.
func lookUp(ctx context.Context, name string) (*node, error) {
	s, unlock, err := open(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	n, err := s.find(name)
	if err != nil {
		return nil, err
	}
	return n, n.running()
}

func (n *node) load(ctx context.Context, tar io.Reader) error {
	command := n.inside(ctx, "ctr", "--namespace", "k8s.io", "images", "import", "--local", "-")
	command.Stdin = tar
	if err := run(command); err != nil {
		return fmt.Errorf("import image into %s: %w", n.Name, err)
	}
	return nil
}

// importPause waits for containerd, whose socket comes when it is ready to serve.
func (n *node) importPause(ctx context.Context, path string) error {
	err := retry(ctx, patience, func() error { return run(n.inside(ctx, "ctr", "version")) })
	if err != nil {
		return fmt.Errorf("wait for containerd: %w\n%s", err, n.logs(15))
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return n.load(ctx, file)
}
