package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

const (
	// window is how long Lease requests are counted.
	window = 60 * time.Second
	// spreading is how long after their first request stock electors, which all
	// start at once, are left to drift apart.
	spreading = 15 * time.Second
	// stockNamespace holds the Lease of the stock electors, and no other.
	stockNamespace = metav1.NamespaceDefault
)

func measureElection(ctx context.Context, binary string) (tables string, err error) {
	rows := [][]string{
		{"replicas"},
		{"followers' Lease requests a second"},
		{"the leader's Lease requests a second"},
		{"together"},
		{"Lease requests of one follower an hour"},
		{"stock client-go electors: Lease requests a second"},
	}
	err = inWorld(ctx, binary, func(w *world) error {
		for _, n := range []int{50, 200, 1000, 5000} {
			cells, err := w.electionColumn(ctx, n)
			if err != nil {
				return err
			}
			for i := range rows {
				rows[i] = append(rows[i], cells[i])
			}
		}
		return nil
	})
	for i, budget := range []string{"budget at 5,000", "", "", "12", "60, with all else", ""} {
		rows[i] = append(rows[i], budget)
	}
	return table(rows), err
}

// electionColumn measures one number of replicas.
func (w *world) electionColumn(ctx context.Context, n int) ([]string, error) {
	followers, leading, err := w.ours(ctx, n)
	if err != nil {
		return nil, err
	}
	cells := []string{
		thousands(n), perSecond(followers), perSecond(leading), perSecond(followers + leading),
		fmt.Sprintf("%.1f", float64(followers)*float64(time.Hour/window)/float64(n)), "not run",
	}
	if n <= 200 {
		stock, err := w.stock(ctx, n)
		if err != nil {
			return nil, err
		}
		cells[len(cells)-1] = perSecond(stock)
	}
	progress("%s replicas: %s", cells[0], cells[1:])
	return cells, nil
}

func perSecond(requests int) string {
	return fmt.Sprintf("%.1f", float64(requests)/window.Seconds())
}

// lead runs a leader without tasks in this process, on OpenShiftNode, and returns
// once the Lease says that there are so many agents.
func (w *world) lead(ctx context.Context, agents int) (stop func() error, err error) {
	token, err := fixtures.AgentPod(ctx, w.Cluster, fixtures.OpenShiftNode)
	if err != nil {
		return nil, err
	}
	l, err := leader.New(leader.Options{
		Config: token, Namespace: fixtures.Namespace,
		Identity: fixtures.PodName(fixtures.OpenShiftNode), NodeName: fixtures.OpenShiftNode,
		Agents:  func(context.Context, leader.Term) (int, error) { return agents, nil },
		Tasks:   func(leader.Term) ([]leader.Task, error) { return nil, nil },
		Log:     slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		return nil, err
	}
	leading, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- l.Run(leading) }()
	stop = func() error { cancel(); return <-ended }
	for {
		lease, err := w.admin.CoordinationV1().Leases(fixtures.Namespace).Get(ctx, "chandler", metav1.GetOptions{})
		if err == nil && lease.Annotations[leader.AgentsAnnotation] == strconv.Itoa(agents) {
			return stop, nil
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return nil, errors.Join(err, stop())
		}
	}
}

// ours counts, over the window, the Lease requests of n followers and of the
// leader that they follow.
func (w *world) ours(ctx context.Context, n int) (followers, leading int, err error) {
	stop, err := w.lead(ctx, n)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	mark, err := w.Mark()
	if err != nil {
		return 0, 0, err
	}
	unfollow, err := w.follow(ctx, n)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, unfollow()) }()
	counted, err := w.countLease(ctx, fixtures.Namespace, n, mark)
	following := func(r cluster.Request) bool { return r.Pod == fixtures.PodName(fixtures.KubeadmNode) }
	followers = counted.Where(following).Total()
	return followers, counted.Total() - followers, err
}

// follow runs n followers in this process, with a token of KubeadmNode's pod.
func (w *world) follow(ctx context.Context, n int) (stop func() error, err error) {
	token, err := fixtures.AgentPod(ctx, w.Cluster, fixtures.KubeadmNode)
	if err != nil {
		return nil, err
	}
	following, cancel := context.WithCancel(ctx)
	ended := make(chan error, n)
	var running sync.WaitGroup
	stop = func() error {
		cancel()
		running.Wait()
		close(ended)
		var errs []error
		for err := range ended {
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	for i := range n {
		l, err := leader.New(leader.Options{
			Config: token, Namespace: fixtures.Namespace, Identity: fmt.Sprint("follower-", i),
			Tasks: func(leader.Term) ([]leader.Task, error) { return nil, errors.New("a follower leads") },
			Log:   slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		})
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		running.Go(func() { ended <- l.Run(following) })
	}
	return stop, nil
}

// stock counts, over the window, the Lease requests of n of client-go's electors
// with the durations that its documentation gives.
func (w *world) stock(ctx context.Context, n int) (requests int, err error) {
	mark, err := w.Mark()
	if err != nil {
		return 0, err
	}
	electing, cancel := context.WithCancel(klog.NewContext(ctx, logr.Discard()))
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for i := range n {
		client, err := coordinationclient.NewForConfig(w.Admin())
		if err != nil {
			return 0, err
		}
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta:  metav1.ObjectMeta{Namespace: stockNamespace, Name: "stock"},
				Client:     client,
				LockConfig: resourcelock.ResourceLockConfig{Identity: fmt.Sprint(n, "-", i)},
			},
			LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
			ReleaseOnCancel: true,
			Callbacks:       leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) {}, OnStoppedLeading: func() {}},
		})
		if err != nil {
			return 0, err
		}
		running.Go(func() { elector.Run(electing) })
	}
	counted, err := w.countLease(ctx, stockNamespace, n, mark)
	return counted.Total(), err
}

// countLease waits until n requests for the Lease of a namespace have come since
// the mark, lets them spread, and counts those of the window that follows.
func (w *world) countLease(ctx context.Context, namespace string, n int, since cluster.Mark) (cluster.Requests, error) {
	leases := func(r cluster.Request) bool { return r.Resource == "leases" && r.Namespace == namespace }
	for first := 0; first < n; {
		if err := pause(ctx, time.Second); err != nil {
			return nil, err
		}
		counted, err := w.Requests(since)
		if err != nil {
			return nil, err
		}
		first = counted.Where(leases).Total()
	}
	if err := pause(ctx, spreading); err != nil {
		return nil, err
	}
	since, err := w.Mark()
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, window); err != nil {
		return nil, err
	}
	counted, err := w.Requests(since)
	return counted.Where(leases), err
}
