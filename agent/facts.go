package agent

import (
	"github.com/chandler-k8s/chandler/config"
	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/clusterid"
	"github.com/chandler-k8s/chandler/node"
	"github.com/chandler-k8s/chandler/node/identity"
)

// factsFunc returns the facts that our own node half has published, none while it has
// not. It is nil where there is no node half.
type factsFunc func() identity.Facts

func (p *process) facts(dir *hostfiles.Dir) factsFunc {
	return func() identity.Facts {
		facts, err := node.Previous(dir)
		if err != nil {
			p.Log.Warn("facts of the node not read", "err", err)
		}
		return facts
	}
}

// region returns a function for the region that the node is in: the configured one, or
// else the one that our own node half has published.
func (f factsFunc) region(cfg *config.Config) func() string {
	return func() string {
		if cfg.Identity.Region != "" || f == nil {
			return cfg.Identity.Region
		}
		return f().Value(identity.Region)
	}
}

// shared answers whether the nodes have their cluster ID from a source that they share,
// as far as our own node half has found out. Without one they may not.
func (f factsFunc) shared() (shared, known bool) {
	if f == nil {
		return false, true
	}
	id, known := f()[identity.ClusterID]
	return identity.Shared(id.Source), known
}

func clusterIDTask(facts factsFunc) ([]newTask, error) {
	return []newTask{func(term leader.Term) (leader.Task, error) {
		return clusterid.New(term, clusterid.Options{IDOf: identity.ByMetadata, Shared: facts.shared, DaemonSet: daemonSet}), nil
	}}, nil
}
