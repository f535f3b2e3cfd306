package leader

import (
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Values of the label result of chandler_leader_campaigns_total.
const (
	campaignWon    = "won"    // the Lease became ours
	campaignLost   = "lost"   // another replica was faster
	campaignFailed = "failed" // the API server refused or did not answer
)

// metrics are registered once for the process. Series of tasks appear with the
// first term, so that thousands of followers do not show zeros for chores that
// they never did.
type metrics struct {
	leading, agents, lookInterval, leaseAge, tokenExpiry prometheus.Gauge
	terms, refusedWrites, droppedEvents                  prometheus.Counter
	looks, campaigns, tokenRequests                      *prometheus.CounterVec

	runs, errors, panics                        *prometheus.CounterVec
	duration                                    *prometheus.HistogramVec
	lastSuccess, queueDepth, missingPermissions *prometheus.GaugeVec
	unsynced                                    *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		leading:      gauge("chandler_leader", "1 while this replica leads, else 0."),
		agents:       gauge("chandler_leader_agents", "Replicas that look at the Lease, as last read from it or counted."),
		lookInterval: gauge("chandler_leader_look_interval_seconds", "Time between two looks of this replica at the Lease."),
		leaseAge: gauge("chandler_leader_lease_age_seconds",
			"Age of the Lease's last renewal when this replica last looked, by the API server's clock."),
		tokenExpiry: gauge("chandler_leader_token_expiry_timestamp_seconds",
			"When the leader's token expires; 0 without one."),
		terms:         counter("chandler_leader_terms_total", "Terms begun by this replica."),
		refusedWrites: counter("chandler_leader_refused_writes_total", "Writes refused because the Lease was not renewed in time."),
		droppedEvents: counter("chandler_leader_dropped_events_total", "Events dropped by the rate limit."),
		looks:         counters("chandler_leader_looks_total", "Looks at the Lease by what they found.", "result"),
		campaigns:     counters("chandler_leader_campaigns_total", "Campaigns for the Lease by outcome.", "result"),
		tokenRequests: counters("chandler_leader_token_requests_total", "Requests for the leader's token by outcome.", "result"),

		runs:   counters("chandler_task_runs_total", "Syncs that ended, also in failure.", "task"),
		errors: counters("chandler_task_errors_total", "Syncs that failed, panics included.", "task"),
		panics: counters("chandler_task_panics_total", "Syncs that panicked.", "task"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "chandler_task_duration_seconds",
			Help:    "Duration of Syncs.",
			Buckets: []float64{.01, .1, 1, 10, 60},
		}, []string{"task"}),
		lastSuccess: gauges("chandler_task_last_success_timestamp_seconds",
			"When a Sync last succeeded in this replica's term; 0 before the first.", "task"),
		queueDepth:         gauges("chandler_task_queue_depth", "Keys that wait for a worker.", "task"),
		missingPermissions: gauges("chandler_task_missing_permissions", "Permissions that the task names and the leader's account lacks.", "task"),
		unsynced: gauges("chandler_task_unsynced_informers",
			"Informers that have not synced after half a minute. The task waits for them, or does without what is optional.", "task"),
	}
	m.zero()
	return m, register(reg, m.leading, m.agents, m.lookInterval, m.leaseAge, m.tokenExpiry,
		m.terms, m.refusedWrites, m.droppedEvents, m.looks, m.campaigns, m.tokenRequests,
		m.runs, m.errors, m.panics, m.duration, m.lastSuccess, m.queueDepth, m.missingPermissions, m.unsynced)
}

func (m *metrics) zero() {
	for _, found := range verdicts() {
		m.looks.WithLabelValues(string(found))
	}
	for _, result := range []string{campaignWon, campaignLost, campaignFailed} {
		m.campaigns.WithLabelValues(result)
	}
	for _, result := range []string{tokenGranted, tokenRefused} {
		m.tokenRequests.WithLabelValues(result)
	}
}

// task returns the series of one task, all of them present from here on.
func (m *metrics) task(name string) taskMetrics {
	t := taskMetrics{
		runs:        m.runs.WithLabelValues(name),
		errors:      m.errors.WithLabelValues(name),
		panics:      m.panics.WithLabelValues(name),
		duration:    m.duration.WithLabelValues(name),
		lastSuccess: m.lastSuccess.WithLabelValues(name),
		queueDepth:  m.queueDepth.WithLabelValues(name),
		unsynced:    m.unsynced.WithLabelValues(name),
	}
	t.lastSuccess.Set(0)
	m.missingPermissions.WithLabelValues(name).Set(0)
	return t
}

// forget removes the series that describe the present; a former leader knows
// nothing of it. Counters stay.
func (m *metrics) forget(tasks []Task) {
	for _, task := range tasks {
		m.lastSuccess.DeleteLabelValues(task.Name())
		m.queueDepth.DeleteLabelValues(task.Name())
		m.missingPermissions.DeleteLabelValues(task.Name())
		m.unsynced.DeleteLabelValues(task.Name())
	}
}

type taskMetrics struct {
	runs, errors, panics    prometheus.Counter
	duration                prometheus.Observer
	lastSuccess, queueDepth prometheus.Gauge
	unsynced                prometheus.Gauge
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

func gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func register(reg prometheus.Registerer, collectors ...prometheus.Collector) error {
	var errs []error
	for _, collector := range collectors {
		errs = append(errs, reg.Register(collector))
	}
	return errors.Join(errs...)
}

// termRegisterer remembers what a term registers and removes it at its end.
type termRegisterer struct {
	prometheus.Registerer

	mu         sync.Mutex
	registered []prometheus.Collector
}

// Register implements prometheus.Registerer.
func (t *termRegisterer) Register(collector prometheus.Collector) error {
	if err := t.Registerer.Register(collector); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.registered = append(t.registered, collector)
	return nil
}

// MustRegister implements prometheus.Registerer, which demands the panic.
func (t *termRegisterer) MustRegister(collectors ...prometheus.Collector) {
	for _, collector := range collectors {
		if err := t.Register(collector); err != nil {
			panic(err)
		}
	}
}

func (t *termRegisterer) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, collector := range t.registered {
		t.Unregister(collector)
	}
	t.registered = nil
}
