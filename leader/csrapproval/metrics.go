package csrapproval

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chandler-k8s/chandler/leader/scrapercsr"
)

// Values of the label decision.
const (
	decisionApproved = "approved"
	decisionDenied   = "denied"
)

// Metrics lasts as long as the process. The zero value is of no use; see
// NewMetrics.
type Metrics struct {
	decisions *prometheus.CounterVec
}

// NewMetrics registers the counters. It fails if they are registered already.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	if reg == nil {
		return nil, errors.New("metrics of scraper certificate approval: no registerer")
	}
	m := &Metrics{decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "chandler_csrapproval_decisions_total",
		Help: "Requests for scraper certificates decided, by decision and reason. Those left alone are not counted.",
	}, []string{"decision", "reason"})}
	m.decisions.WithLabelValues(decisionApproved, reasonApproved)
	for _, reason := range scrapercsr.Reasons() {
		m.decisions.WithLabelValues(decisionDenied, string(reason))
	}
	return m, reg.Register(m.decisions)
}

// newUnissued shows the present of one term.
func newUnissued(count func() int) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "chandler_csrapproval_unissued_requests",
		Help: "Requests approved more than a minute ago for which the signer has issued no certificate.",
	}, func() float64 { return float64(count()) })
}
