package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/chandler-k8s/chandler/config"
)

var errProblems = errors.New("the configuration has problems")

func (e *env) checkCommand() *cobra.Command {
	var configFile string
	c := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration file and print every problem",
		RunE: func(*cobra.Command, []string) error {
			if err := requireConfig(configFile); err != nil {
				return err
			}
			cfg, err := config.Load(configFile)
			problems := config.Problems(err)
			if err != nil && len(problems) == 0 {
				return err
			}
			for _, p := range problems {
				if _, err := fmt.Fprintln(e.out, p); err != nil {
					return err
				}
			}
			if len(problems) > 0 {
				return fmt.Errorf("%s: %w: %d", configFile, errProblems, len(problems))
			}
			for _, w := range cfg.Warnings() {
				if _, err := fmt.Fprintln(e.out, "warning:", w); err != nil {
					return err
				}
			}
			for _, n := range cfg.Notes() {
				if _, err := fmt.Fprintln(e.out, "note:", n); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintf(e.out, "%s: valid\n", configFile)
			return err
		},
	}
	configFlag(c, &configFile)
	return c
}
