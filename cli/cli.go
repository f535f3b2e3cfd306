// Package cli is the command line: one file a command, flags in, an error out.
// It checks usage, makes the logger and calls package agent; it does no work.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/chandler-k8s/chandler/agent"
	"github.com/chandler-k8s/chandler/config"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is an error of the caller: wrong flags, wrong configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// ExitCode turns the error of Run into the exit code of the process: 0 done, 1
// failed, 2 wrong usage or configuration, and that of a wrapped command.
func ExitCode(err error) int {
	var wrapped agent.ExitError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &wrapped):
		return wrapped.Code
	case errors.As(err, &usageError{}):
		return exitUsage
	case errors.Is(err, errProblems):
		return exitFailed // chandler check has done its work
	case len(config.Problems(err)) > 0:
		return exitUsage
	default:
		return exitFailed
	}
}

// env is what every command has in common.
type env struct {
	getenv func(string) string
	out    io.Writer
	logs   io.Writer

	// The common flags.
	kubeconfig, nodeName, logFormat, logLevel string
}

// initScript is the program of the image that `chandler init` replaces. Manifests
// name it.
const initScript = "init.py"

// Args returns the arguments of Run from a whole command line. The program that is
// called by the name init.py is `chandler init`.
func Args(commandLine []string) []string {
	if len(commandLine) == 0 {
		return nil
	}
	if filepath.Base(commandLine[0]) == initScript {
		return append([]string{"init"}, commandLine[1:]...)
	}
	return commandLine[1:]
}

// Run runs one command and returns its error. Results go to out and logs to
// logs. It blocks until the command has ended; ctx ends long-running ones.
func Run(ctx context.Context, args []string, getenv func(string) string, out, logs io.Writer) error {
	e := &env{getenv: getenv, out: out, logs: logs}
	root := &cobra.Command{
		Use:           "chandler",
		Short:         "Supplies every node of a Kubernetes cluster with what its exporter and Prometheus pods need",
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(logs)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w\nsee %s --help", err, c.CommandPath())}
	})
	flags := root.PersistentFlags()
	flags.StringVar(&e.kubeconfig, "kubeconfig", "", "kubeconfig file (default: in-cluster, then the usual kubeconfig rules)")
	flags.StringVar(&e.nodeName, "node-name", getenv("NODE_NAME"), "name of this node")
	flags.StringVar(&e.logFormat, "log-format", "json", "json or text")
	flags.StringVar(&e.logLevel, "log-level", "info", "debug, info, warn or error")
	root.AddCommand(
		e.agentCommand(), e.leaderCommand(), e.initCommand(), e.installCommand(), e.waitCommand(), e.reloadCommand(),
		e.checkCommand(), e.policyCommand(), e.alarmCommand(), e.versionCommand(),
	)
	for _, c := range root.Commands() {
		if c.Args == nil {
			c.Args = noArgs
		}
	}
	return root.ExecuteContext(ctx)
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unknown command or argument %q\nsee %s --help", args[0], c.CommandPath())}
	}
	return nil
}

// logger makes the logger that the flags ask for.
func (e *env) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(e.logLevel)); err != nil {
		return nil, usageError{fmt.Errorf("--log-level %q: want debug, info, warn or error", e.logLevel)}
	}
	options := &slog.HandlerOptions{Level: level}
	switch strings.ToLower(e.logFormat) {
	case "json":
		return slog.New(slog.NewJSONHandler(e.logs, options)), nil
	case "text":
		return slog.New(slog.NewTextHandler(e.logs, options)), nil
	default:
		return nil, usageError{fmt.Errorf("--log-format %q: want json or text", e.logFormat)}
	}
}

// configFlag adds --config, which is required.
func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "config", "", "configuration file (required)")
}

func requireConfig(path string) error {
	if path == "" {
		return usageError{errors.New("--config is required")}
	}
	return nil
}
