package node

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/node/identity"
)

// grace is how long a set that was good may fail before readiness says so. It is of
// several ticks, so that several passes fail in it, however many hints come at once.
const grace = 3 * tick

// What is noted beside the sets. No set has such a name.
const (
	withdrawn = "/withdrawn" // removing sets of an earlier configuration
	owned     = "/owned"     // being the one agent that publishes here
)

// health is what is known of one set.
type health struct {
	good  bool      // published by this run, or valid from an earlier one
	err   error     // of the last pass
	since time.Time // when passes began to fail; zero unless err
}

// lasting reports a failure that readiness has to tell.
func (h health) lasting() bool {
	return h.err != nil && time.Since(h.since) >= grace
}

// note keeps the outcome for a set and reports whether it is a new one: another
// error than the last, or the end of errors.
func (n *Node) note(set string, err error) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.health[set]
	isNew := innermost(err) != innermost(h.err)
	switch {
	case err == nil:
		h = health{good: true}
	case h.err == nil:
		h.err, h.since = err, time.Now()
	default:
		h.err = err
	}
	n.health[set] = h
	return isNew
}

// innermost is the text of what an error wraps at last. What is around it names the
// directory of an attempt, which is another each time.
func innermost(err error) string {
	if err == nil {
		return ""
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err.Error()
}

// own reports whether sets are this agent's to publish. While they are another's,
// every set counts as failing.
func (n *Node) own() bool {
	from, err := n.Dir.Own(n.Name)
	isNew, taken := n.note(owned, err), errors.Is(err, hostfiles.ErrTaken)
	switch {
	case from != "":
		n.Log.Warn("took over the host directory from another running agent", "path", n.Dir.Path(), "from", from, "by", n.Name)
	case isNew && taken:
		n.Log.Error("another agent owns the host directory, publishing stopped", "err", err)
	case isNew && err != nil:
		n.Log.Error("cannot claim the host directory, publishing without it", "err", err)
	case isNew:
		n.Log.Info("host directory claimed", "path", n.Dir.Path(), "by", n.Name)
	}
	for _, set := range n.sets() {
		if taken {
			n.metrics.failed(set)
		} else if isNew {
			n.metrics.failing.WithLabelValues(set).Set(0) // until this pass finds otherwise
		}
	}
	return !taken
}

func (n *Node) beat() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.passed = time.Now()
}

// Ready returns nil once every set has been published, by this run or by an
// earlier one whose files are valid, and otherwise names a set that has not. It
// also names one that no pass could keep right for the time of grace.
func (n *Node) Ready() error {
	if n.Identity.Facts().Value(identity.ClusterID) == "" {
		return errors.New("the cluster ID is not known yet")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.health[owned]; h.lasting() {
		return h.err
	}
	for _, set := range n.sets() {
		switch h := n.health[set]; {
		case !h.good:
			return fmt.Errorf("set %s has not been published: %s", set, n.cause(set))
		case h.lasting():
			return fmt.Errorf("set %s has not been kept current for %s: %w", set, time.Since(h.since).Round(time.Second), h.err)
		}
	}
	if h := n.health[withdrawn]; h.lasting() {
		return fmt.Errorf("sets of an earlier configuration have not been removed: %w", h.err)
	}
	return nil
}

// cause says why a set is not good. The caller holds mu.
func (n *Node) cause(set string) string {
	if err := cmp.Or(n.health[set].err, n.health[owned].err); err != nil {
		return err.Error()
	}
	if set != setScraper {
		return "the first pass is still running"
	}
	if problem := n.Scraper.Problem(); problem != nil {
		return problem.Error()
	}
	return "the certificate has been requested"
}

// Live returns nil while the loop finishes its passes. A set that fails does not
// count: starting again would mend nothing.
func (n *Node) Live() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if age := time.Since(n.passed); !n.passed.IsZero() && age > overrun {
		return fmt.Errorf("the node loop has not finished a pass for %s", age.Round(time.Second))
	}
	return nil
}

type metrics struct {
	errors, published *prometheus.CounterVec
	failing, success  *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer, sets []string) *metrics {
	m := &metrics{
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chandler_set_errors_total", Help: "Passes that could not publish a set.",
		}, []string{"set"}),
		published: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chandler_set_changes_total", Help: "Times that the files of a set were replaced.",
		}, []string{"set"}),
		failing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "chandler_set_failing", Help: "1 if the last pass could not publish a set, or could not have published a change.",
		}, []string{"set"}),
		success: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "chandler_set_last_success_timestamp_seconds", Help: "When a set was last found or made right.",
		}, []string{"set"}),
	}
	reg.MustRegister(m.errors, m.published, m.failing, m.success)
	for _, set := range sets {
		m.errors.WithLabelValues(set)
		m.published.WithLabelValues(set)
		m.failing.WithLabelValues(set)
		m.success.WithLabelValues(set)
	}
	return m
}

func (m *metrics) succeeded(set string) {
	m.failing.WithLabelValues(set).Set(0)
	m.success.WithLabelValues(set).SetToCurrentTime()
}

func (m *metrics) failed(set string) {
	m.failing.WithLabelValues(set).Set(1)
	m.errors.WithLabelValues(set).Inc()
}
