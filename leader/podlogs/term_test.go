package podlogs_test

import (
	"fmt"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/podlogs"
	"github.com/chandler-k8s/chandler/test/expect"
	testterm "github.com/chandler-k8s/chandler/test/term"
)

type term struct{ *testterm.Term }

// run starts a term with the given options on top of the usual ones.
func (s *scene) run(t testing.TB, change ...func(*podlogs.Options)) *term {
	t.Helper()
	return s.runAs(t, s.leader(t), change...)
}

func (s *scene) runAs(t testing.TB, config *rest.Config, change ...func(*podlogs.Options)) *term {
	t.Helper()
	return &term{testterm.Run(t, config, home, func(about leader.Term) (leader.Task, error) {
		counters, err := podlogs.NewMetrics(about.Metrics)
		expect.OK(t, err)
		opts := podlogs.Options{CreateServiceAccounts: true, ListPods: true, Metrics: counters}
		for _, c := range change {
			c(&opts)
		}
		return podlogs.New(about, opts)
	})}
}

// metric returns the sum of a metric's series that carry all the labels given as
// name=value.
func (r *term) metric(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	sum, _ := expect.Metric(t, r.Registry, name, labels...)
	return sum
}

func (r *term) wantMetric(t testing.TB, want float64, name string, labels ...string) {
	t.Helper()
	eventually(t, func() error {
		if got := r.metric(t, name, labels...); got != want {
			return fmt.Errorf("metric %s%v: got %v, want %v", name, labels, got, want)
		}
		return nil
	})
}
