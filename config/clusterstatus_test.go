package config

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// problemsOf validates a configuration with the given cluster status, and returns all
// problems in one text.
func problemsOf(lease time.Duration, change func(*ClusterStatus)) string {
	c := Default()
	c.Leader.LeaseDuration = metav1.Duration{Duration: lease}
	c.Leader.ClusterStatus.Enabled = true
	c.Leader.ClusterStatus.Metric = Metric{Namespace: "N", Name: "M"}
	c.Leader.ClusterStatus.Targets = []Target{{Kind: "Deployment", Namespace: "n", Name: "w", Mode: AllOfThem}}
	change(&c.Leader.ClusterStatus)
	var ps problems
	c.Leader.validate("leader", &ps)
	var text strings.Builder
	for _, p := range ps {
		text.WriteString(p.Error() + "\n")
	}
	return text.String()
}

// TestSecondsAgainstLease: a tick whose datum no renewal can vouch for would always be a
// gap.
func TestSecondsAgainstLease(t *testing.T) {
	for _, test := range []struct {
		lease   time.Duration
		seconds int
		want    string // empty: nothing
	}{
		{15 * time.Second, 1, ""},
		{30 * time.Second, 1, ""},
		{30 * time.Second, 5, ""},
		{45 * time.Second, 6, "want at least 7 "},
		{45 * time.Second, 7, ""},
		{5 * time.Minute, 40, "want at least 41 with a leaseDuration of 5m"},
		{5 * time.Minute, 41, ""},
	} {
		got := problemsOf(test.lease, func(c *ClusterStatus) { c.Seconds = test.seconds })
		if test.want == "" && got != "" || !strings.Contains(got, test.want) || test.want != "" && !strings.Contains(got, "leader.clusterStatus.seconds") {
			t.Errorf("%s, %d seconds: got %q, want %q", test.lease, test.seconds, got, test.want)
		}
	}
	if got := problemsOf(5*time.Minute, func(c *ClusterStatus) { c.Seconds, c.Enabled = 1, false }); got != "" {
		t.Errorf("switched off: got %q", got)
	}
}

// TestSelectorsAreBounded: each costs the API server a watch.
func TestSelectorsAreBounded(t *testing.T) {
	selecting := func(n int) func(*ClusterStatus) {
		return func(c *ClusterStatus) {
			for i := range n {
				c.Targets = append(c.Targets, Target{Kind: "Deployment", Namespace: fmt.Sprint("n", i), Selector: "a=b", Mode: AllOfThem})
			}
		}
	}
	if got := problemsOf(15*time.Second, selecting(100)); got != "" {
		t.Errorf("100 selectors: got %q", got)
	}
	if got := problemsOf(15*time.Second, func(c *ClusterStatus) {
		selecting(100)(c)
		selecting(100)(c) // the same watches
	}); got != "" {
		t.Errorf("100 selectors twice: got %q", got)
	}
	if got := problemsOf(15*time.Second, selecting(101)); !strings.Contains(got, "leader.clusterStatus.targets: want at most 100 different selectors, not 101") {
		t.Errorf("101 selectors: got %q", got)
	}
}
