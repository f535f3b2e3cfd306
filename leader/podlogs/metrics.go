package podlogs

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Values of the label operation.
const (
	opCreate = "create"
	opUpdate = "update"
	opDelete = "delete"
)

// Values of the label state.
const (
	stateCurrent   = "current"   // lists its workload's pods
	stateEmpty     = "empty"     // lists none, since there are none
	stateFull      = "full"      // lists as many as a Role can hold, not all
	stateContested = "contested" // lists one workload's pods; another of that name goes without
	stateForeign   = "foreign"   // left alone: not ours
)

// Metrics are the task's counters, which outlive a term. What describes the
// present is registered with each term.
type Metrics struct{ writes *prometheus.CounterVec }

// NewMetrics registers the counters, once in a process.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{writes: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "chandler_podlogs_writes_total", Help: "Objects written for access to pod logs, by resource and operation.",
	}, []string{"resource", "operation"})}
	for _, resource := range []string{roles, bindings, accounts} {
		for _, operation := range []string{opCreate, opDelete} {
			m.writes.WithLabelValues(resource, operation)
		}
	}
	m.writes.WithLabelValues(roles, opUpdate)
	if err := reg.Register(m.writes); err != nil {
		return nil, errors.Join(errors.New("register metrics of pod logs"), err)
	}
	return m, nil
}

func (m *Metrics) wrote(resource, operation string) {
	m.writes.WithLabelValues(resource, operation).Inc()
}

var (
	rolesDesc = prometheus.NewDesc("chandler_podlogs_roles", "Names of workloads that ask for a Role, by its state.", []string{"state"}, nil)
	strayDesc = prometheus.NewDesc("chandler_podlogs_ignored_pods", "Labelled pods that belong to no workload.", nil, nil)
)

// collector shows the present of one term.
type collector struct{ task *Task }

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	out <- rolesDesc
	out <- strayDesc
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	counts := map[string]float64{stateCurrent: 0, stateEmpty: 0, stateFull: 0, stateContested: 0, stateForeign: 0}
	c.task.mu.Lock()
	for _, s := range c.task.states {
		if s.status != "" {
			counts[s.status]++
		}
	}
	c.task.mu.Unlock()
	for state, count := range counts {
		out <- prometheus.MustNewConstMetric(rolesDesc, prometheus.GaugeValue, count, state)
	}
	out <- prometheus.MustNewConstMetric(strayDesc, prometheus.GaugeValue, float64(c.task.strays.count()))
}
