// Command cluster starts and stops the control plane of package cluster on this
// machine, and the real nodes of package nodes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/cluster/nodes"
)

const usage = `Usage: cluster COMMAND

  up                   start a control plane and leave it running; prints its
                       kubeconfig
  up --nodes N         the same with N real nodes, as root
  down                 stop what up started and remove its data
  check                tell whether this machine and user can have nodes
  env                  print the environment of the end-to-end tests
  stop|start NODE      take a node's power away; boot it again
  cut|join NODE        take a node's network away; give it back
  import NODE FILE     give a node an image, from a tar
  exec NODE COMMAND…   run a command on a node, e.g. ctr -n k8s.io containers list
  binaries             build etcd, kube-apiserver and kube-controller-manager into
                       the cache and print where they are

Environment:
  CHANDLER_CACHE      directory for binaries and data (default: chandler in the
                      user's cache directory)
  KUBEBUILDER_ASSETS  directory of binaries to use instead of building them
`

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

var errUsage = errors.New("wrong usage")

// run returns the exit code: 0 done, 1 failed, 2 wrong usage, and that of a command
// on a node.
func run(args []string, out, errs io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := dispatch(ctx, args, out)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && args[0] == "exec" {
		return exit.ExitCode()
	}
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprint(errs, usage)
		return 2
	case err != nil:
		fmt.Fprintln(errs, "cluster:", err)
		return 1
	}
	return 0
}

func dispatch(ctx context.Context, args []string, out io.Writer) error {
	plain := map[string]func(context.Context, io.Writer) error{
		"up": up, "down": down, "check": nodes.Check, "env": nodes.Env, "binaries": binaries,
	}
	ofNode := map[string]func(context.Context, string) error{
		"stop": nodes.Stop, "start": nodes.Start, "cut": nodes.Cut, "join": nodes.Join,
	}
	switch {
	case len(args) == 1 && plain[args[0]] != nil:
		return plain[args[0]](ctx, out)
	case len(args) == 2 && ofNode[args[0]] != nil:
		return ofNode[args[0]](ctx, args[1])
	case len(args) == 3 && args[0] == "up" && args[1] == "--nodes":
		count, err := strconv.Atoi(args[2])
		if err != nil {
			return errUsage
		}
		return nodes.Up(ctx, out, count)
	case len(args) == 3 && args[0] == "import":
		return load(ctx, args[1], args[2])
	case len(args) > 2 && args[0] == "exec":
		return nodes.Exec(ctx, args[1], args[2:])
	}
	return errUsage
}

func up(ctx context.Context, out io.Writer) error { return cluster.Up(ctx, out, cluster.Options{}) }

func down(ctx context.Context, out io.Writer) error {
	if err := nodes.Down(ctx, out); err != nil {
		return err
	}
	return cluster.Down(ctx, out)
}

func load(ctx context.Context, node, path string) error {
	tar, err := os.Open(path)
	if err != nil {
		return err
	}
	defer tar.Close()
	return nodes.Import(ctx, node, tar)
}

func binaries(ctx context.Context, out io.Writer) error {
	found, err := cluster.Find(ctx, out)
	if err != nil {
		return err
	}
	for _, path := range []string{found.Etcd, found.APIServer, found.ControllerManager} {
		fmt.Fprintln(out, path)
	}
	return nil
}
