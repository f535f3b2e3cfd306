package agent

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/config"
	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/podlogs"
	"github.com/chandler-k8s/chandler/leader/pullsecrets"
)

// daemonSet is the name of ours in deploy/. The leader counts its pods.
const daemonSet = "chandler"

const needsPod = "a leader needs to know its pod: set --pod-name or $POD_NAME and --namespace or $POD_NAMESPACE"

// newLeader assembles the leader half.
func (p *process) newLeader(cfg *config.Config, dir *hostfiles.Dir, reg prometheus.Registerer) (*leader.Leader, error) {
	if p.PodName == "" || p.Namespace == "" {
		return nil, errors.New(needsPod + ", or leader.enabled: false")
	}
	client, err := kubernetes.NewForConfig(p.kube)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	candidate, err := leader.NodeCandidate(client, p.NodeName, cfg.Leader.Candidates)
	if err != nil {
		return nil, err
	}
	tasks, err := leaderTasks(cfg, p.facts(dir), reg)
	if err != nil {
		return nil, err
	}
	return leader.New(leader.Options{
		Config: p.kube, Namespace: p.Namespace, Identity: p.PodName, NodeName: p.NodeName,
		LeaseDuration: cfg.Leader.LeaseDuration.Duration, Candidate: candidate,
		Agents: leader.CountAgents(daemonSet, cfg.Leader.Candidates), Tasks: tasks, Log: p.Log, Metrics: reg,
	})
}

// newTask makes a task for one term.
type newTask = func(leader.Term) (leader.Task, error)

// leaderTasks lists the tasks. What lasts as long as the process is made here,
// the rest again for each term. facts are those of our own node half, nil without one.
func leaderTasks(cfg *config.Config, facts factsFunc, reg prometheus.Registerer) (func(leader.Term) ([]leader.Task, error), error) {
	var all []newTask
	aws := &ownAWS{}
	for _, part := range []struct {
		enabled bool
		prepare func() ([]newTask, error)
	}{
		{cfg.Leader.PullSecrets.Enabled, func() ([]newTask, error) { return pullSecretsTask(cfg.Leader.PullSecrets, aws, reg) }},
		{cfg.Scraper.Enabled, func() ([]newTask, error) { return scraperTasks(cfg, reg) }},
		{cfg.Leader.PodLogs.Enabled, func() ([]newTask, error) { return podLogsTask(cfg.Leader.PodLogs, reg) }},
		{cfg.Leader.ClusterStatus.Enabled, func() ([]newTask, error) {
			return clusterStatusTask(cfg.Leader.ClusterStatus, aws, facts.region(cfg), reg)
		}},
		{cfg.Identity.ClusterID == "", func() ([]newTask, error) { return clusterIDTask(facts) }},
	} {
		if !part.enabled {
			continue
		}
		prepared, err := part.prepare()
		if err != nil {
			return nil, err
		}
		all = append(all, prepared...)
	}
	return func(term leader.Term) ([]leader.Task, error) {
		var tasks []leader.Task
		for _, fresh := range all {
			task, err := fresh(term)
			if err != nil {
				return nil, err
			}
			tasks = append(tasks, task)
		}
		return tasks, nil
	}, nil
}

func podLogsTask(cfg config.PodLogs, reg prometheus.Registerer) ([]newTask, error) {
	metrics, err := podlogs.NewMetrics(reg)
	if err != nil {
		return nil, err
	}
	return []newTask{func(term leader.Term) (leader.Task, error) {
		return podlogs.New(term, podlogs.Options{
			CreateServiceAccounts: cfg.CreateServiceAccounts, ListPods: cfg.ListPods, Metrics: metrics,
		})
	}}, nil
}

func pullSecretsTask(cfg config.PullSecrets, aws *ownAWS, reg prometheus.Registerer) ([]newTask, error) {
	metrics, err := pullsecrets.NewMetrics(reg)
	if err != nil {
		return nil, err
	}
	return []newTask{func(term leader.Term) (leader.Task, error) { return newPullSecrets(cfg, aws, metrics, term) }}, nil
}

func newPullSecrets(cfg config.PullSecrets, aws *ownAWS, metrics *pullsecrets.Metrics, term leader.Term) (leader.Task, error) {
	roles := map[string]pullsecrets.Role{}
	for _, r := range cfg.Roles {
		roles[r.Registry] = pullsecrets.Role{ARN: r.RoleARN, ExternalID: r.ExternalID}
	}
	return pullsecrets.New(term, pullsecrets.Options{
		HostNamespace: cfg.HostNamespace, CredentialsSecretPrefix: cfg.CredentialsSecretPrefix, Adopt: cfg.Adopt,
		ServiceAccounts: cfg.PatchServiceAccounts, OwnIdentityFor: cfg.DefaultChainFor,
		Roles: roles, Public: cfg.ECRPublic, AWS: aws.load, Metrics: metrics,
	})
}
