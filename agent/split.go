package agent

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chandler-k8s/chandler/config"
	"github.com/chandler-k8s/chandler/leader"
)

// splitCandidates is what the leader writes on the Lease as the number of replicas
// that look at it. A Deployment has a handful: up to ten look once a second each.
const splitCandidates = 10

// RunLeader runs the leader half alone until ctx ends, and returns nil then: a
// replica of the split installation's Deployment. It uses the rights of its own
// pod's account, needs no host directory, and leads whatever leader.enabled says,
// which is for the agents. It returns an error as Run does.
func RunLeader(ctx context.Context, o Options) error {
	p := &process{Options: o}
	p.assemble = p.leaderHalf
	return p.run(ctx, "leader")
}

func (p *process) leaderHalf(cfg *config.Config, reg prometheus.Registerer) (*parts, error) {
	if p.PodName == "" || p.Namespace == "" {
		return nil, errors.New(needsPod)
	}
	if cfg.Leader.Candidates != "" {
		p.Log.Warn("leader.candidates has no effect on chandler leader: choose nodes in its Deployment")
	}
	tasks, err := leaderTasks(cfg, nil, reg)
	if err != nil {
		return nil, err
	}
	lead, err := leader.New(leader.Options{
		Config: p.kube, OwnCredentials: true, Namespace: p.Namespace, Identity: p.PodName, NodeName: p.NodeName,
		LeaseDuration: cfg.Leader.LeaseDuration.Duration, Tasks: tasks, Log: p.Log, Metrics: reg,
		Agents: func(context.Context, leader.Term) (int, error) { return splitCandidates, nil },
	})
	if err != nil {
		return nil, err
	}
	return &parts{
		work: []func(context.Context) error{lead.Run}, live: []func() error{lead.Check},
		ready: func() error { return nil }, close: func() {},
	}, nil
}
