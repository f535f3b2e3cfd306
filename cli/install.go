package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/chandler-k8s/chandler/agent"
)

func (e *env) installCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install DIR",
		Short: "Copy this program into a directory, as an init container for another image",
		Long: `Copies this program to DIR/chandler. As an init container, with a volume that a container of another
image shares, it lets that container run chandler reload around its own command.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("want one directory, e.g. chandler install /shared")}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			log, err := e.logger()
			if err != nil {
				return err
			}
			return agent.Install(args[0], log)
		},
	}
}
