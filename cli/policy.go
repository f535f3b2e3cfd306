package cli

import (
	"github.com/spf13/cobra"

	"github.com/chandler-k8s/chandler/agent"
	"github.com/chandler-k8s/chandler/config"
)

func (e *env) policyCommand() *cobra.Command {
	var configFile string
	c := &cobra.Command{
		Use:   "policy",
		Short: "Print the admission policies that go with a configuration",
		Long: `Prints the admission policies that depend on a configuration, as YAML: those that pin
scraper certificates to its common name, signer and longest duration. Apply them instead
of deploy/base/csrapproval-policies.yaml, which holds what is printed for the default
configuration. The other policies in deploy/ are the same for every configuration.`,
		RunE: func(*cobra.Command, []string) error {
			if err := requireConfig(configFile); err != nil {
				return err
			}
			cfg, err := config.Load(configFile)
			if err != nil {
				return err
			}
			policies, err := agent.AdmissionPolicies(cfg)
			if err != nil {
				return err
			}
			_, err = e.out.Write(policies)
			return err
		},
	}
	configFlag(c, &configFile)
	return c
}
