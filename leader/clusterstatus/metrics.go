package clusterstatus

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Values of the label reason of chandler_clusterstatus_gaps_total, the last three
// of which are also values of the label result of ..._puts_total.
const (
	gapUnled      = "unled"     // nobody led, or one that was killed or cut off
	gapMissed     = "missed"    // nobody looked: the process stood still
	gapUnvouched  = "unvouched" // the Lease was not renewed: the API server did not answer
	gapUnknown    = "unknown"   // a target's watch was not current
	putThrottled  = "throttled"
	putDenied     = "denied" // wrong keys, missing permission, invalid request
	putFailed     = "failed" // not reachable, or broken
	putAccepted   = "accepted"
	metricsPrefix = "chandler_clusterstatus_"
)

// Metrics are the counters that outlive a term.
type Metrics struct{ gaps, puts *prometheus.CounterVec }

// NewMetrics registers the counters, once for the process.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		gaps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricsPrefix + "gaps_total", Help: "Ticks without a datum, by reason.",
		}, []string{"reason"}),
		puts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricsPrefix + "puts_total", Help: "Calls of PutMetricData, the SDK's retries not counted, by result.",
		}, []string{"result"}),
	}
	for _, reason := range []string{gapUnled, gapMissed, gapUnvouched, gapUnknown, putThrottled, putDenied, putFailed} {
		m.gaps.WithLabelValues(reason)
	}
	for _, result := range []string{putAccepted, putThrottled, putDenied, putFailed} {
		m.puts.WithLabelValues(result)
	}
	return m, errors.Join(reg.Register(m.gaps), reg.Register(m.puts))
}

// present are the gauges of a term.
type present struct {
	targets              *prometheus.GaugeVec
	value, last, watches prometheus.Gauge
}

func newPresent() *present {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: metricsPrefix + name, Help: help})
	}
	p := &present{
		targets: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: metricsPrefix + "targets", Help: "Targets by what they were found to be at the last look.",
		}, []string{"state"}),
		value:   gauge("value", "The value of the last datum: 1 while every target is healthy, else 0; -1 before the first."),
		last:    gauge("last_published_timestamp_seconds", "The timestamp of the last datum that CloudWatch accepted; before the first of the term, the time that the Lease carried: none of a predecessor's is newer."),
		watches: gauge("watches", "Watches that show the targets."),
	}
	p.value.Set(-1)
	p.show(nil)
	return p
}

func (p *present) register(reg prometheus.Registerer) error {
	return errors.Join(reg.Register(p.targets), reg.Register(p.value), reg.Register(p.last), reg.Register(p.watches))
}

func (p *present) show(verdicts []verdict) {
	count := map[state]int{}
	for _, v := range verdicts {
		count[v.state]++
	}
	for _, s := range states() {
		p.targets.WithLabelValues(string(s)).Set(float64(count[s]))
	}
}
