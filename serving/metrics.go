package serving

import "github.com/prometheus/client_golang/prometheus"

// reasons are why requests are refused.
var reasons = [...]string{"no_certificate", "untrusted", "expired", "token", "not_allowed", "unavailable"}

type metrics struct {
	refusals *prometheus.CounterVec
	notAfter prometheus.Gauge
	cas      *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chandler_serving_refusals_total", Help: "Requests for metrics that were refused, by reason.",
		}, []string{"reason"}),
		notAfter: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chandler_serving_certificate_not_after_timestamp_seconds", Help: "When the serving certificate of the last handshake expires.",
		}),
		cas: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "chandler_serving_client_cas", Help: "CA certificates that verify clients, by where they come from, at the last request.",
		}, []string{"source"}),
	}
	for _, reason := range reasons {
		m.refusals.WithLabelValues(reason)
	}
	for _, source := range []string{"cluster", "file"} {
		m.cas.WithLabelValues(source)
	}
	reg.MustRegister(m.refusals, m.notAfter, m.cas)
	return m
}
