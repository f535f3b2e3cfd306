package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

const (
	starts = 9
	// steady is how long an agent is left alone before and while it is measured.
	steady = 60 * time.Second
	// rounds an hour: the mean of the jittered resync of node/identity.
	rounds = 1
)

func measureNode(ctx context.Context, binary string) (tables string, err error) {
	err = inWorld(ctx, binary, func(w *world) error {
		tables, err = w.nodeTable(ctx)
		return err
	})
	return tables, err
}

func (w *world) nodeTable(ctx context.Context) (_ string, err error) {
	var times []time.Duration
	for range starts {
		took, err := w.startToFiles(ctx)
		if err != nil {
			return "", err
		}
		times = append(times, took)
	}
	alone, err := w.steady(ctx, leaderOff)
	if err != nil {
		return "", err
	}
	stop, err := w.lead(ctx, 5000)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, stop()) }()
	follower, err := w.steady(ctx, leaderOn)
	if err != nil {
		return "", err
	}
	return table([][]string{
		{"figure", "measured", "budget"},
		{"start of the process to `cluster` and `aws` files, API reachable", spread(times), "300 ms"},
		{"resident memory of a steady agent without the leader half (VmRSS)", mebibytes(alone.memory), "30 MiB"},
		{"resident memory of a steady follower (VmRSS)", mebibytes(follower.memory), "30 MiB"},
		{"API requests to find the identity, at the start and then about hourly", fmt.Sprint(alone.round), ""},
		{fmt.Sprintf("API requests in %s after that, without the leader half", steady), fmt.Sprint(alone.after), ""},
		{"API requests an hour, from these", fmt.Sprint(alone.after*int(time.Hour/steady) + rounds*alone.round), "60"},
	}), nil
}

// startToFiles takes the time from the start of a process to the last of its files.
func (w *world) startToFiles(ctx context.Context) (took time.Duration, err error) {
	a, err := w.newAgent(ctx, fixtures.EKSNode, leaderOff, nil)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := a.start(); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	err = appear(ctx, filepath.Join(a.hostDir, "cluster", "CLUSTERID"), filepath.Join(a.hostDir, "aws", "credentials.ini"))
	return time.Since(begin), err
}

type quiet struct {
	memory       float64
	round, after int
}

// steady leaves an agent alone and reads what it takes.
func (w *world) steady(ctx context.Context, leaderHalf string) (q quiet, err error) {
	a, err := w.newAgent(ctx, fixtures.EKSNode, leaderHalf, nil)
	if err != nil {
		return q, err
	}
	mark, err := w.Mark()
	if err != nil {
		return q, err
	}
	if err := a.start(); err != nil {
		return q, err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	if err := appear(ctx, filepath.Join(a.hostDir, "aws", "credentials.ini")); err != nil {
		return q, err
	}
	if q.round, mark, err = w.requestsOf(a.pod, mark); err != nil {
		return q, err
	}
	if err := pause(ctx, steady); err != nil {
		return q, err
	}
	if q.after, _, err = w.requestsOf(a.pod, mark); err != nil {
		return q, err
	}
	q.memory, err = a.memory()
	return q, err
}

// requestsOf counts what a pod has asked the API server since the mark.
func (w *world) requestsOf(pod string, since cluster.Mark) (int, cluster.Mark, error) {
	counted, err := w.Requests(since)
	if err != nil {
		return 0, since, err
	}
	next, err := w.Mark()
	return counted.Where(func(r cluster.Request) bool { return r.Pod == pod }).Total(), next, err
}
