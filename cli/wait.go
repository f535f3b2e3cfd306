package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/chandler-k8s/chandler/agent"
)

func (e *env) waitCommand() *cobra.Command {
	var o agent.WaitOptions
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "wait --set SET [--set SET…]",
		Short: "Wait until file sets are there and valid, as an init container of their consumer",
		Long: `Waits until file sets are there and valid, as an init container of their consumer: one of
the same user and groups, since it checks also that they may be read.

An AWS SDK that finds no credentials.ini, or may not read it, silently falls back to
the node's role. Use --require-credentials to prevent that.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if len(o.Sets) == 0 {
				return usageError{errors.New("--set is required, e.g. --set cluster --set aws")}
			}
			log, err := e.logger()
			if err != nil {
				return err
			}
			o.Log = log
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			err = agent.Wait(ctx, o)
			if errors.Is(err, agent.ErrWrongSets) {
				return usageError{err}
			}
			return err
		},
	}
	f := c.Flags()
	f.StringArrayVar(&o.Sets, "set", nil, "a set to wait for: cluster, aws, aws-NAME or scraper (repeatable)")
	f.BoolVar(&o.RequireCredentials, "require-credentials", false, "wait for credentials.ini in each set of AWS files, too")
	f.StringVar(&o.HostDir, "dir", "/var/lib/chandler", "the host directory, as it is mounted here")
	f.DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait")
	return c
}
