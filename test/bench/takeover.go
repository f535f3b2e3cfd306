package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/chandler-k8s/chandler/test/fixtures"
)

const takeovers = 20

func measureTakeover(ctx context.Context, binary string) (tables string, err error) {
	err = inWorld(ctx, binary, func(w *world) error {
		tables, err = w.takeoverTable(ctx)
		return err
	})
	return tables, err
}

// trio is three agents and what their Lease says.
type trio struct {
	agents []*agent
	lease  watch.Interface
}

func (w *world) takeoverTable(ctx context.Context) (_ string, err error) {
	t := &trio{}
	defer func() { err = errors.Join(err, t.stop()) }()
	for _, node := range []string{fixtures.EKSNode, fixtures.KubeadmNode, fixtures.OpenShiftNode} {
		a, err := w.newAgent(ctx, node, leaderOn, nil)
		if err != nil {
			return "", err
		}
		t.agents = append(t.agents, a)
		if err := a.start(); err != nil {
			return "", err
		}
	}
	t.lease, err = w.admin.CoordinationV1().Leases(fixtures.Namespace).Watch(ctx, metav1.SingleObject(metav1.ObjectMeta{Name: "chandler"}))
	if err != nil {
		return "", err
	}
	defer t.lease.Stop()
	// The followers learn how many they are some seconds after the first election.
	if err := pause(ctx, 20*time.Second); err != nil {
		return "", err
	}
	graceful, err := t.rounds(ctx, "graceful", (*agent).stop)
	if err != nil {
		return "", err
	}
	killed, err := t.rounds(ctx, "killed", (*agent).kill)
	if err != nil {
		return "", err
	}
	return table([][]string{
		{"figure", "measured", "budget"},
		{"SIGTERM to the leader until another holds the Lease", spread(graceful), "2 s"},
		{"SIGKILL of the leader until another holds the Lease", spread(killed), "30 s"},
	}), nil
}

func (t *trio) stop() error {
	var errs []error
	for _, a := range t.agents {
		errs = append(errs, a.stop())
	}
	return errors.Join(errs...)
}

// rounds ends the leader again and again and takes the times to its successor.
func (t *trio) rounds(ctx context.Context, name string, end func(*agent) error) ([]time.Duration, error) {
	var times []time.Duration
	old, err := t.next(ctx, nil)
	if err != nil {
		return nil, err
	}
	for range takeovers {
		// At any moment between two renewals.
		if err := pause(ctx, 4*time.Second+rand.N(2*time.Second)); err != nil {
			return nil, err
		}
		begin, ended := time.Now(), make(chan error, 1)
		go func() { ended <- end(old) }()
		successor, err := t.next(ctx, old)
		times = append(times, time.Since(begin))
		if err := errors.Join(err, <-ended); err != nil {
			return nil, err
		}
		progress("%s: %s", name, times[len(times)-1].Round(time.Millisecond))
		// As kubelet would, but late enough not to win its own Lease again.
		if err := old.start(); err != nil {
			return nil, err
		}
		old = successor
	}
	return times, nil
}

// next waits until the Lease names an agent other than the one given.
func (t *trio) next(ctx context.Context, besides *agent) (*agent, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a leader: %w", ctx.Err())
		case event, ok := <-t.lease.ResultChan():
			lease, isLease := event.Object.(*coordinationv1.Lease)
			if !ok || !isLease {
				return nil, fmt.Errorf("the watch of the Lease ended: %v", event.Object)
			}
			if a := t.named(lease.Spec.HolderIdentity); a != nil && a != besides {
				return a, nil
			}
		}
	}
}

func (t *trio) named(holder *string) *agent {
	for _, a := range t.agents {
		if holder != nil && a.pod == *holder {
			return a
		}
	}
	return nil
}
