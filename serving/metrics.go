package serving

import "github.com/prometheus/client_golang/prometheus"

// reasons are why requests are refused.
var reasons = [...]string{"no_certificate", "untrusted", "expired", "token", "not_allowed", "too_many_tokens", "unavailable"}

type metrics struct {
	refusals  *prometheus.CounterVec
	displaced *prometheus.CounterVec
	notAfter  prometheus.Gauge
	cas       *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chandler_serving_refusals_total", Help: "Requests for metrics that were refused, by reason.",
		}, []string{"reason"}),
		displaced: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chandler_serving_displaced_connections_total", Help: "Connections that were closed because newer ones came, by what they were to.",
		}, []string{"server"}),
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
	for _, server := range []string{metricsServer, healthServer} {
		m.displaced.WithLabelValues(server)
	}
	reg.MustRegister(m.refusals, m.displaced, m.notAfter, m.cas)
	return m
}
