package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/fakeaws"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

const (
	logsOn   = "{pullSecrets: {enabled: false}, podLogs: {createServiceAccounts: true}}"
	bothOn   = "{podLogs: {createServiceAccounts: true}}"
	scaleUps = 20
	quietFor = 30 * time.Second
	// budgetSpaces is the number of namespaces in the budget of the leader's memory.
	budgetSpaces = 10000
)

// logRun is what one run with a number of workloads has shown.
type logRun struct {
	made, afterPods, restart time.Duration
	making, starting         cluster.Requests
	memory, bothMemory       float64 // mebibytes
	scaled                   []time.Duration
	scaling                  cluster.Requests
	rollout                  time.Duration
	rolling, steady          cluster.Requests
}

func measurePodLogs(ctx context.Context, binary string) (string, error) {
	var small []logRun
	for range 3 {
		run, err := measureLogs(ctx, binary, 100, 5)
		if err != nil {
			return "", fmt.Errorf("100 workloads: %w", err)
		}
		progress("100 × 5: right %s after the last pod, %d writes; new leader %s", short(run.afterPods), run.making.Where(byLeader, toLogSpaces, with(writing...)).Total(), short(run.restart))
		small = append(small, run)
	}
	large, err := measureLogs(ctx, binary, 1000, 20)
	if err != nil {
		return "", fmt.Errorf("1,000 workloads: %w", err)
	}
	return logTable(small, large) + logRequests(small[0]) + logPeers(small), nil
}

func measureLogs(ctx context.Context, binary string, workloads, pods int) (run logRun, err error) {
	err = inWorld(ctx, binary, func(w *world) (err error) {
		fast := w.Admin()
		fast.ContentType = "application/vnd.kubernetes.protobuf"
		if w.admin, err = kubernetes.NewForConfig(fast); err != nil {
			return err
		}
		f, err := newFollowed(ctx, w)
		if err != nil {
			return err
		}
		defer f.stop()
		m := &logMeasure{followed: f, workloads: workloads, pods: pods, run: &run}
		defer func() { err = errors.Join(err, m.agent.stop()) }()
		parts := []func(context.Context) error{m.lead, m.make, m.scale, m.beSteady, m.roll, m.leadAnew}
		if workloads == 1000 {
			parts = []func(context.Context) error{m.lead, m.make, m.scale, m.beSteady, m.leadAnew, m.leadBoth}
		}
		for _, part := range parts {
			if err := part(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	return run, err
}

// logMeasure is one run.
type logMeasure struct {
	*followed
	workloads, pods int
	agent           *agent
	run             *logRun
}

// lead starts an agent and waits until its first Role shows that it leads. That
// workload counts in nothing; it is made, and then removed again.
func (m *logMeasure) lead(ctx context.Context) (err error) {
	if m.agent, err = m.newAgent(ctx, fixtures.EKSNode, logsOn, nil); err != nil {
		return err
	}
	if err := m.agent.start(); err != nil {
		return err
	}
	first := workloadName(m.workloads)
	if err := m.addWorkloads(ctx, m.workloads, 1, 1); err != nil {
		return err
	}
	if _, _, err := m.awaitRight(ctx, 1, 1); err != nil {
		return err
	}
	if err := m.admin.AppsV1().Deployments(first.Namespace).Delete(ctx, first.Name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	_, _, err = m.awaitRight(ctx, 0, 0)
	return err
}

// make makes all workloads while the leader leads.
func (m *logMeasure) make(ctx context.Context) error {
	mark, err := m.Mark()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := m.addWorkloads(ctx, 0, m.workloads, int32(m.pods)); err != nil {
		return err
	}
	done, lastPod, err := m.awaitRight(ctx, m.workloads, m.workloads*m.pods)
	if err != nil {
		return err
	}
	m.run.made, m.run.afterPods = done.Sub(began), done.Sub(lastPod)
	if err := pause(ctx, settling); err != nil {
		return err
	}
	if m.run.making, err = m.requests(mark); err != nil {
		return err
	}
	m.run.memory, err = m.agent.memory()
	return err
}

// scale adds one pod to one workload after the other.
func (m *logMeasure) scale(ctx context.Context) error {
	mark, err := m.Mark()
	if err != nil {
		return err
	}
	for i := range scaleUps {
		if err := m.patch(ctx, workloadName(i), fmt.Sprintf(`{"spec":{"replicas":%d}}`, m.pods+1)); err != nil {
			return err
		}
		done, lastPod, err := m.awaitRight(ctx, m.workloads, m.workloads*m.pods+i+1)
		if err != nil {
			return err
		}
		m.run.scaled = append(m.run.scaled, done.Sub(lastPod))
	}
	m.run.scaling, err = m.requests(mark)
	return err
}

// beSteady leaves everything alone.
func (m *logMeasure) beSteady(ctx context.Context) error {
	mark, err := m.Mark()
	if err != nil {
		return err
	}
	if err := pause(ctx, quietFor); err != nil {
		return err
	}
	m.run.steady, err = m.requests(mark)
	return err
}

// roll replaces the hundred pods of one workload more.
func (m *logMeasure) roll(ctx context.Context) error {
	const pods = 100
	playing, cancel := context.WithCancel(ctx)
	var kubelet sync.WaitGroup
	kubelet.Go(func() { _ = fixtures.RunPods(playing, m.Admin()) }) // without it the wait below fails
	defer func() { cancel(); kubelet.Wait() }()
	total := m.workloads*m.pods + scaleUps + pods
	if err := m.addWorkloads(ctx, m.workloads+1, 1, pods); err != nil {
		return err
	}
	if _, _, err := m.awaitRight(ctx, m.workloads+1, total); err != nil {
		return err
	}
	name := workloadName(m.workloads + 1)
	m.mu.Lock()
	old := maps.Clone(m.followed.pods[name])
	m.mu.Unlock()
	if err := pause(ctx, settling); err != nil {
		return err
	}
	mark, err := m.Mark()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := m.patch(ctx, name, `{"spec":{"template":{"metadata":{"annotations":{"revision":"2"}}}}}`); err != nil {
		return err
	}
	done, err := m.await(ctx, "rollout", func() bool {
		now := m.followed.pods[name]
		return len(now) == pods && len(m.wrong) == 0 && !slices.ContainsFunc(slices.Collect(maps.Keys(old)), func(pod string) bool { return now[pod] })
	})
	if err != nil {
		return err
	}
	m.run.rollout = done.Sub(began)
	if m.run.rolling, err = m.requests(mark); err != nil {
		return err
	}
	if err := m.admin.AppsV1().Deployments(name.Namespace).Delete(ctx, name.Name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	_, _, err = m.awaitRight(ctx, m.workloads, total-pods)
	return err
}

// leadAnew has a leader begin with everything there but what we make.
func (m *logMeasure) leadAnew(ctx context.Context) error {
	if err := m.agent.stop(); err != nil {
		return err
	}
	for i := range logSpaces {
		namespace, all, ours := fmt.Sprint(logNamespaces, i), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "chandler.dev/task=podlogs"}
		err := errors.Join(
			m.admin.RbacV1().Roles(namespace).DeleteCollection(ctx, all, ours),
			m.admin.RbacV1().RoleBindings(namespace).DeleteCollection(ctx, all, ours),
			m.admin.CoreV1().ServiceAccounts(namespace).DeleteCollection(ctx, all, ours),
		)
		if err != nil {
			return err
		}
	}
	_, err := m.await(ctx, "nothing", func() bool { return len(m.roles)+m.besides["*v1.RoleBinding"]+m.besides["*v1.ServiceAccount"] == 0 })
	if err != nil {
		return err
	}
	mark, err := m.Mark()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := m.agent.start(); err != nil {
		return err
	}
	done, _, err := m.awaitRight(ctx, m.workloads, m.workloads*m.pods+scaleUps)
	if err != nil {
		return err
	}
	m.run.restart = done.Sub(began)
	if err := pause(ctx, settling); err != nil {
		return err
	}
	if m.run.starting, err = m.requests(mark); err != nil {
		return err
	}
	memory, err := m.agent.memory()
	m.run.memory = max(m.run.memory, memory)
	return err
}

// leadBoth has a leader with pull secrets in as many namespaces as the budget of
// its memory counts, besides.
func (m *logMeasure) leadBoth(ctx context.Context) (err error) {
	if err := m.agent.stop(); err != nil {
		return err
	}
	aws, err := fakeaws.Listen(fakeaws.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, aws.Close()) }()
	s, err := newSupply(ctx, m.world, scale{budgetSpaces, 1, 1}, aws)
	if err != nil {
		return err
	}
	defer s.secrets.Stop()
	both, err := m.newAgent(ctx, fixtures.EKSNode, bothOn, aws.Env())
	if err != nil {
		return err
	}
	m.agent = both
	if err := both.start(); err != nil {
		return err
	}
	if _, err := s.await(ctx, s.total()); err != nil {
		return err
	}
	if err := pause(ctx, settling); err != nil {
		return err
	}
	m.run.bothMemory, err = both.memory()
	return errors.Join(err, both.stop())
}

// requests counts those of the leader's account since the mark.
func (m *logMeasure) requests(since cluster.Mark) (cluster.Requests, error) {
	counted, err := m.Requests(since)
	return counted.Where(byLeader), err
}

func toLogSpaces(r cluster.Request) bool { return strings.HasPrefix(r.Namespace, logNamespaces) }
