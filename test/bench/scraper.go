package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

func measureScraper(ctx context.Context, binary string) (tables string, err error) {
	err = inWorld(ctx, binary, func(w *world) error {
		w.scraper = scraperOn()
		tables, err = w.scraperTable(ctx)
		return err
	})
	return tables, err
}

// scraperOn is the section of that name, with files that whoever measures may own.
func scraperOn() string {
	return fmt.Sprintf(`{files: {mode: "0440", uid: %d, gid: %d}}`, os.Getuid(), os.Getgid())
}

func (w *world) scraperTable(ctx context.Context) (_ string, err error) {
	leader, err := w.newAgent(ctx, fixtures.KubeadmNode, leaderOn, nil)
	if err != nil {
		return "", err
	}
	if err := leader.start(); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, leader.stop()) }()
	// It leads by the time that its own request has been approved.
	if err := appear(ctx, pairOf(leader)); err != nil {
		return "", err
	}
	var times []time.Duration
	var requests int
	for range starts {
		took, n, err := w.startToPair(ctx)
		if err != nil {
			return "", err
		}
		times, requests = append(times, took), max(requests, n)
	}
	return table([][]string{
		{"figure, approved by the leader", "measured", "budget"},
		{"start of the process to the `scraper` files", spread(times), "2 s"},
		{"API requests of the agent for a certificate", fmt.Sprint(requests), ""},
	}), nil
}

func pairOf(a *agent) string { return filepath.Join(a.hostDir, "scraper", "tls.pem") }

// startToPair takes the time from the start of a process to its certificate, and
// counts the requests that its agent made for it.
func (w *world) startToPair(ctx context.Context) (took time.Duration, requests int, err error) {
	a, err := w.newAgent(ctx, fixtures.EKSNode, leaderOn, nil)
	if err != nil {
		return 0, 0, err
	}
	mark, err := w.Mark()
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	if err := a.start(); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	if err := appear(ctx, pairOf(a)); err != nil {
		return 0, 0, err
	}
	took = time.Since(begin)
	counted, err := w.Requests(mark)
	if err != nil {
		return 0, 0, err
	}
	return took, counted.Where(func(r cluster.Request) bool {
		return r.Pod == a.pod && r.Resource == "certificatesigningrequests"
	}).Total(), nil
}
