package cli

import (
	"github.com/spf13/cobra"

	"github.com/chandler-k8s/chandler/agent"
)

func (e *env) agentCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "agent",
		Short: "Run on a node: keep its file sets current, and stand for leader",
	}
	e.longRunning(c, agent.Run)
	return c
}
