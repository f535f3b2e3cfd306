package cli

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/chandler-k8s/chandler/agent"
)

// passedOn are the signals that a wrapped command gets. A command of --exec gets none.
var passedOn = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
}

func (e *env) reloadCommand() *cobra.Command {
	var o agent.ReloadOptions
	var name string
	c := &cobra.Command{
		Use:   "reload --watch DIR (--signal NAME (--pid-file FILE | --process NAME) | --url URL | [--exec] -- COMMAND…)",
		Short: "Watch a set and make its consumer reload: by a signal, a POST, a command, or a restart",
		Long: `Watches directories and acts when the content of their files has changed: it signals a process,
POSTs to a URL, or restarts the command that it wraps. It passes signals on to a wrapped command
and ends with its exit code. With --exec it wraps nothing, and runs the command on each change.`,
		Args: onlyAfterDash,
		RunE: func(c *cobra.Command, args []string) error {
			o.Command = args
			if err := checkReload(&o, name); err != nil {
				return usageError{err}
			}
			log, err := e.logger()
			if err != nil {
				return err
			}
			o.Log, o.Out, o.Err = log, e.out, e.logs
			if len(o.Command) > 0 {
				children := make(chan os.Signal, 1)
				signal.Notify(children, syscall.SIGCHLD)
				defer signal.Stop(children)
				o.Children = children
			}
			if len(o.Command) > 0 && !o.Exec { // else nobody reads them, and they would be lost
				signals := make(chan os.Signal, 16)
				signal.Notify(signals, passedOn...)
				defer signal.Stop(signals)
				o.Signals = signals
			}
			err = agent.Reload(c.Context(), o)
			if errors.Is(err, agent.ErrHoldsSets) {
				return usageError{err}
			}
			return err
		},
	}
	f := c.Flags()
	f.StringArrayVar(&o.Dirs, "watch", nil, "directory to watch, such as that of a set (required, repeatable)")
	f.StringVar(&name, "signal", "", "signal to send, e.g. HUP")
	f.StringVar(&o.PIDFile, "pid-file", "", "file with the number of the process to signal")
	f.StringVar(&o.Process, "process", "", "name of the process to signal, in a shared process namespace")
	f.StringVar(&o.URL, "url", "", "URL to POST to")
	f.BoolVar(&o.Exec, "exec", false, "run the command after -- on each change, instead of wrapping it")
	f.DurationVar(&o.Timeout, "timeout", 30*time.Second, "how long the POST, or the command of --exec, may take")
	f.DurationVar(&o.Grace, "grace", 30*time.Second, "how long a wrapped command has to end before it is killed")
	return c
}

// onlyAfterDash takes no arguments but a command after "--".
func onlyAfterDash(c *cobra.Command, args []string) error {
	if dash := c.ArgsLenAtDash(); dash != 0 && len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q: a command goes after --\nsee %s --help", args[0], c.CommandPath())}
	}
	return nil
}

// checkReload completes the options and refuses a combination that does not say
// one thing to do.
func checkReload(o *agent.ReloadOptions, signalName string) error {
	ways := 0
	for _, given := range []bool{signalName != "", o.URL != "", len(o.Command) > 0} {
		if given {
			ways++
		}
	}
	switch {
	case len(o.Dirs) == 0 || slices.Contains(o.Dirs, ""):
		return errors.New("--watch is required, e.g. --watch /host/scraper")
	case o.Exec && len(o.Command) == 0:
		return errors.New("--exec: want a command after --")
	case ways != 1:
		return errors.New("want one of --signal, --url and a command after --")
	case (signalName != "") != (o.PIDFile != "" || o.Process != ""), o.PIDFile != "" && o.Process != "":
		return errors.New("--signal goes with one of --pid-file and --process")
	case o.Timeout <= 0:
		return fmt.Errorf("--timeout %s: want more than 0s", o.Timeout)
	case o.Grace < 0:
		return fmt.Errorf("--grace %s: want no less than 0s", o.Grace)
	}
	if signalName != "" {
		o.Signal = unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(signalName), "SIG"))
		if o.Signal == 0 {
			return fmt.Errorf("--signal %q: want the name of a signal, such as HUP or USR1", signalName)
		}
	}
	if o.URL != "" {
		if u, err := url.Parse(o.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("--url %q: want http://HOST/PATH or https://HOST/PATH", o.URL)
		}
	}
	return nil
}
