package pullsecrets

import (
	"errors"
	"slices"
	"time"

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
	stateCurrent = "current" // holds the newest token
	stateWaiting = "waiting" // has not got the newest token yet
	stateExpired = "expired" // waits, and what it holds, or all there is for it, has expired
	stateForeign = "foreign" // left alone: not ours
)

const (
	// maxRegistries bounds the label registry. Namespace labels make registries, so
	// there is no natural bound.
	maxRegistries = 100
	// otherRegistries stands for those beyond it.
	otherRegistries = "other"
)

// Metrics are the task's counters, which outlive a term. What describes the
// present is registered with each term.
type Metrics struct {
	created, renewals prometheus.Counter
	calls, writes     *prometheus.CounterVec
}

// NewMetrics registers the counters, once in a process. eatr's two are among
// them; they have lost their labels namespace and name, so sum() of the old
// series equals the new one.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		created: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "secrets_created_total", Help: "Pull secrets created or updated.",
		}),
		renewals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "secret_renewals_total", Help: "Renewals of a registry's token that went into its pull secrets.",
		}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chandler_pullsecrets_token_requests_total", Help: "Requests to AWS for a registry token, by outcome. Retries of the SDK are not counted.",
		}, []string{"result"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chandler_pullsecrets_writes_total", Help: "Pull secrets written, by operation.",
		}, []string{"operation"}),
	}
	for _, result := range []string{resultGranted, resultThrottled, resultDenied, resultFailed} {
		m.calls.WithLabelValues(result)
	}
	for _, operation := range []string{opCreate, opUpdate, opDelete} {
		m.writes.WithLabelValues(operation)
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.created, m.renewals, m.calls, m.writes} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

// called counts a call for a token.
func (m *Metrics) called(err error) { m.calls.WithLabelValues(outcome(err)).Inc() }

// wrote counts a write that succeeded, and returns err.
func (m *Metrics) wrote(operation string, err error) error {
	if err == nil {
		m.writes.WithLabelValues(operation).Inc()
	}
	return err
}

var (
	expiryDesc = prometheus.NewDesc("chandler_pullsecrets_expiry_timestamp_seconds",
		"When the first of a registry's pull secrets expires, by what is written in them; 0 if none is known. The earliest of the registries beyond the limit is under registry=\"other\".",
		[]string{"registry"}, nil)
	failingDesc = prometheus.NewDesc("chandler_pullsecrets_failing_registries",
		"Registries for which no new token could be had last time.", nil, nil)
	secretsDesc = prometheus.NewDesc("chandler_pullsecrets_secrets",
		"Pull secrets that namespaces ask for, by state.", []string{"state"}, nil)
)

// collector shows the present of one term.
type collector struct{ task *Task }

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	out <- expiryDesc
	out <- failingDesc
	out <- secretsDesc
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	present := c.task.present(time.Now())
	for host, expires := range present.expiries {
		out <- prometheus.MustNewConstMetric(expiryDesc, prometheus.GaugeValue, expires, host)
	}
	for state, count := range present.secrets {
		out <- prometheus.MustNewConstMetric(secretsDesc, prometheus.GaugeValue, count, state)
	}
	out <- prometheus.MustNewConstMetric(failingDesc, prometheus.GaugeValue, present.failing)
}

// present is what the metrics show.
type present struct {
	expiries map[string]float64
	secrets  map[string]float64
	failing  float64
}

func (t *Task) present(now time.Time) present {
	p := present{
		expiries: map[string]float64{},
		secrets:  map[string]float64{stateCurrent: 0, stateWaiting: 0, stateExpired: 0, stateForeign: 0},
	}
	asked := t.namespaces.ListIndexFuncValues(byHost)
	slices.Sort(asked)
	for _, host := range asked {
		found := t.expiryOf(host)
		p.add(host, found.first)
		namespaces := t.asking(host)
		t.mu.Lock()
		state := t.registries[host]
		if state != nil && state.failing {
			p.failing++
		}
		for _, namespace := range namespaces {
			p.secrets[t.stateOf(pair{namespace, host}, state, found.recorded, now)]++
		}
		t.mu.Unlock()
	}
	return p
}

func (p *present) add(host string, expires time.Time) {
	value := 0.0
	if !expires.IsZero() {
		value = float64(expires.Unix())
	}
	if len(p.expiries) < maxRegistries {
		p.expiries[host] = value
		return
	}
	if least, ok := p.expiries[otherRegistries]; !ok || value < least {
		p.expiries[otherRegistries] = value
	}
}

// stateOf names the state of a Secret. recorded is what the ledger knows of the
// registry's expiry. The caller holds mu.
func (t *Task) stateOf(p pair, registry *registryState, recorded, now time.Time) string {
	secret, known := t.secrets[p]
	var current *content
	newest := recorded
	if registry != nil && registry.current != nil {
		current, newest = registry.current, registry.current.expires
	}
	past := func(expires time.Time) bool { return !expires.IsZero() && !now.Before(expires) }
	switch {
	case known && !secret.foreign.IsZero():
		return stateForeign
	case current.usable(now) && secret.content == current:
		return stateCurrent
	case past(newest), known && past(secret.expires(recorded)):
		return stateExpired
	default:
		return stateWaiting
	}
}
