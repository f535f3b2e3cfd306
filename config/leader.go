package config

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Leader is about the replica that does the cluster-wide tasks.
type Leader struct {
	// Enabled is true by default. False means that agents never lead, as in a split
	// installation; "chandler leader" leads all the same.
	Enabled bool `json:"enabled"`
	// LeaseDuration is how long a leader that went silent keeps the Lease. A
	// successor takes over within two of them.
	LeaseDuration metav1.Duration `json:"leaseDuration"`
	// Candidates is a selector of node labels, as kubectl takes it, e.g.
	// "node-role.kubernetes.io/control-plane". Only replicas on such nodes may
	// lead. Empty means all.
	Candidates string `json:"candidates"`
	// PullSecrets renews image pull secrets for ECR.
	PullSecrets PullSecrets `json:"pullSecrets"`
	// PodLogs keeps Roles for reading the logs of chosen workloads.
	PodLogs PodLogs `json:"podLogs"`
	// ClusterStatus publishes the health of chosen workloads to CloudWatch.
	ClusterStatus ClusterStatus `json:"clusterStatus"`
}

// PodLogs is about the Roles podlogreader-<workload>.
type PodLogs struct {
	// Enabled is true by default.
	Enabled bool `json:"enabled"`
	// CreateServiceAccounts also makes a ServiceAccount and a RoleBinding for
	// each Role where they are absent. False by default.
	CreateServiceAccounts bool `json:"createServiceAccounts"`
	// ListPods grants "list pods" in the namespace too, which is what kubectl
	// needs to find a workload's pods. True by default. It shows the
	// specifications of all pods there.
	ListPods bool `json:"listPods"`
}

func defaultLeader() Leader {
	return Leader{
		Enabled:       true,
		LeaseDuration: metav1.Duration{Duration: 15 * time.Second},
		PullSecrets:   defaultPullSecrets(),
		PodLogs:       PodLogs{Enabled: true, ListPods: true},
		ClusterStatus: defaultClusterStatus(),
	}
}

// RenewDeadline is how long the leader tries to renew before it gives up: 2/3 of
// LeaseDuration, 10s for the default 15s, the ratio of client-go's election.
func (l Leader) RenewDeadline() time.Duration { return l.LeaseDuration.Duration * 2 / 3 }

// RetryPeriod is the time between two tries: 2/15 of LeaseDuration, 2s for the
// default 15s, the ratio of client-go's election.
func (l Leader) RetryPeriod() time.Duration { return l.LeaseDuration.Duration * 2 / 15 }

// CandidateSelector returns Candidates in parsed form. It matches everything
// when Candidates is empty, and cannot fail after validation.
func (l Leader) CandidateSelector() (labels.Selector, error) {
	s, err := labels.Parse(l.Candidates)
	if err != nil {
		return nil, fmt.Errorf("parse leader.candidates: %w", err)
	}
	return s, nil
}

func (l Leader) validate(path string, ps *problems) {
	ps.duration(path+".leaseDuration", l.LeaseDuration, 3*time.Second, 5*time.Minute,
		"expiry is judged by whole seconds of the API server's clock, and nobody leads for up to two of these after a leader dies")
	if _, err := l.CandidateSelector(); err != nil {
		ps.add(path+".candidates", l.Candidates, "want a label selector such as %q", "node-role.kubernetes.io/control-plane")
	}
	l.PullSecrets.validate(path+".pullSecrets", ps)
	l.ClusterStatus.validate(path+".clusterStatus", ps)
	l.ClusterStatus.validateRenewals(path+".clusterStatus", l, ps)
}
