package scrapercert

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	notAfter, caGood prometheus.Gauge
	rotations        prometheus.Counter
	requests         *prometheus.CounterVec
	last             *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		notAfter: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chandler_scraper_certificate_not_after_timestamp_seconds",
			Help: "When the scraper certificate in use expires; 0 while there is none.",
		}),
		caGood: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chandler_scraper_ca_bundle_successful",
			Help: "1 if ca.crt holds what its sources hold, 0 if one of them is bad and the last good bundle stands in.",
		}),
		rotations: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "chandler_scraper_rotations_total", Help: "Scraper certificates obtained and put to use.",
		}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chandler_scraper_results_total",
			Help: "What became of requests for a scraper certificate. A request that waits is counted each time that this is reported.",
		}, []string{"result"}),
		last: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "chandler_scraper_last_result", Help: "1 for the result that came last, 0 for the others.",
		}, []string{"result"}),
	}
	reg.MustRegister(m.notAfter, m.caGood, m.rotations, m.requests, m.last)
	for _, result := range results() {
		m.requests.WithLabelValues(result)
		m.last.WithLabelValues(result)
	}
	return m
}

// results lists every value of the label.
func results() []string {
	all := []string{resultIssued}
	for _, k := range kinds() {
		all = append(all, k.result)
	}
	return all
}

func (m *metrics) result(result string) {
	for _, r := range results() {
		m.last.WithLabelValues(r).Set(0)
	}
	m.last.WithLabelValues(result).Set(1)
	m.requests.WithLabelValues(result).Inc()
}
