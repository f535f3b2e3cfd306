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
			if errors.Is(err, agent.ErrUnknownSet) {
				return usageError{err}
			}
			return err
		},
	}
	f := c.Flags()
	f.StringArrayVar(&o.Sets, "set", nil, "a set to wait for: cluster, aws, aws-NAME or scraper (repeatable)")
	f.StringVar(&o.HostDir, "dir", "/var/lib/chandler", "the host directory, as it is mounted here")
	f.DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait")
	return c
}
