package cli

import (
	"github.com/spf13/cobra"

	"github.com/chandler-k8s/chandler/agent"
)

func (e *env) initCommand() *cobra.Command {
	var o agent.InitOptions
	c := &cobra.Command{
		Use:   "init",
		Short: "Write cluster ID, region and AWS credentials once, as an init container",
		Long: `Writes cluster ID, region and AWS credentials once and exits. Flags, defaults and file
formats are those of OpenShift's managed-prometheus-exporter init container, so that its
image can be replaced by this one. Called by the name of its program, init.py, chandler is this command.`,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := e.logger()
			if err != nil {
				return err
			}
			o.Kubeconfig, o.NodeName, o.Version, o.Log = e.kubeconfig, e.nodeName, build().version, log
			return agent.Init(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVarP(&o.MachineNamespace, "namespace", "n", "openshift-machine-api", "namespace of the Machines")
	f.StringVarP(&o.ClusterIDFile, "cluster-id-file", "c", "/config/env/CLUSTERID", "where to write the cluster ID")
	f.StringVarP(&o.RegionFile, "region-file", "r", "/secrets/aws/config.ini", "where to write the region")
	f.StringVarP(&o.CredentialsFile, "credentials-file", "o", "/secrets/aws/credentials.ini", "where to write the credentials")
	f.StringVarP(&o.AccessKeyFile, "access-key-file", "a", "/secrets/aws_access_key_id", "where the access key ID is mounted")
	f.StringVarP(&o.SecretKeyFile, "secret-key-file", "A", "/secrets/aws_secret_access_key", "where the secret access key is mounted")
	f.IntVar(&o.UID, "uid", -1, "owner of the credentials file, which others cannot read then (-1: as created)")
	f.IntVar(&o.GID, "gid", -1, "group of the credentials file, which others cannot read then (-1: as created)")
	return c
}
