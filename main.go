// Command chandler supplies every node of a Kubernetes cluster with the files
// that its local exporter and Prometheus pods need.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	// The image has no files but this program, so also no CAs for calls to AWS.
	_ "golang.org/x/crypto/x509roots/fallback"

	"github.com/chandler-k8s/chandler/cli"
)

func main() {
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := cli.Run(ctx, cli.Args(os.Args), os.Getenv, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chandler:", err)
	}
	return cli.ExitCode(err)
}
