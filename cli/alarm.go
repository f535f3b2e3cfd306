package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/chandler-k8s/chandler/agent"
	"github.com/chandler-k8s/chandler/config"
)

func (e *env) alarmCommand() *cobra.Command {
	var configFile, format, name string
	c := &cobra.Command{
		Use:   "alarm",
		Short: "Print the CloudWatch alarm and IAM policy that go with a configuration",
		RunE: func(*cobra.Command, []string) error {
			if err := requireConfig(configFile); err != nil {
				return err
			}
			if formats := agent.AlarmFormats(); !slices.Contains(formats, format) {
				return usageError{fmt.Errorf("--format %q: want one of %s", format, strings.Join(formats, ", "))}
			}
			cfg, err := config.Load(configFile)
			if err != nil {
				return err
			}
			if err := agent.Alarm(e.out, cfg, format, name); errors.Is(err, agent.ErrNoAlarm) {
				return usageError{err}
			} else if err != nil {
				return err
			}
			return nil
		},
	}
	configFlag(c, &configFile)
	c.Flags().StringVar(&format, "format", "cloudformation", strings.Join(agent.AlarmFormats(), ", "))
	c.Flags().StringVar(&name, "name", "", "name of the alarm (default: made of the metric's)")
	return c
}
