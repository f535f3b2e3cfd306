package cli

import (
	"context"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/chandler-k8s/chandler/agent"
)

func (e *env) leaderCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "leader",
		Short: "Do the cluster's chores while elected, without the node half: the split installation's Deployment",
	}
	e.longRunning(c, agent.RunLeader)
	return c
}

// longRunning makes c run one of the two processes, with the flags that they share.
func (e *env) longRunning(c *cobra.Command, run func(context.Context, agent.Options) error) {
	var configFile, podName, namespace, memoryLimit string
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := requireConfig(configFile); err != nil {
			return err
		}
		log, err := e.logger()
		if err != nil {
			return err
		}
		log = log.With("node", e.nodeName)
		if err := e.limitMemory(memoryLimit, log); err != nil {
			return err
		}
		klog.SetSlogLogger(log)
		return run(c.Context(), agent.Options{
			ConfigFile: configFile, Kubeconfig: e.kubeconfig, NodeName: e.nodeName, PodName: podName, Namespace: namespace,
			Version: build().version, Log: log,
		})
	}
	configFlag(c, &configFile)
	c.Flags().StringVar(&podName, "pod-name", e.getenv("POD_NAME"), "name of our pod, under which we lead ($POD_NAME)")
	c.Flags().StringVar(&namespace, "namespace", e.getenv("POD_NAMESPACE"), "namespace of our pod and of the Lease ($POD_NAMESPACE)")
	c.Flags().StringVar(&memoryLimit, "memory-limit", e.getenv("MEMORY_LIMIT"), "memory limit of our container, e.g. 256Mi ($MEMORY_LIMIT)")
}
