package csrsigning

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Values of the label result.
const (
	resultSigned = "signed"
	resultFailed = "failed"
)

// Metrics lasts as long as the process. The zero value is of no use; see
// NewMetrics.
type Metrics struct {
	certificates *prometheus.CounterVec
	rotations    prometheus.Counter
}

// NewMetrics registers the counters. It fails if they are registered already.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	if reg == nil {
		return nil, errors.New("metrics of scraper certificate signing: no registerer")
	}
	m := &Metrics{
		certificates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chandler_csrsigning_requests_total",
			Help: "Approved requests for scraper certificates, by result: signed, or failed because they break a rule.",
		}, []string{"result"}),
		rotations: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "chandler_csrsigning_ca_rotations_total", Help: "CAs that began to sign, the first included.",
		}),
	}
	for _, result := range []string{resultSigned, resultFailed} {
		m.certificates.WithLabelValues(result)
	}
	return m, errors.Join(reg.Register(m.certificates), reg.Register(m.rotations))
}

// gauges show the present of one term.
type gauges struct{ expiry, foreign prometheus.Gauge }

func newGauges() gauges {
	return gauges{
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chandler_csrsigning_ca_expiry_timestamp_seconds",
			Help: "When the CA that signs scraper certificates expires; 0 while there is none.",
		}),
		foreign: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "chandler_csrsigning_ca_foreign",
			Help: "1 while the CA's Secret or the bundle's ConfigMap is not one that chandler made, so that nothing is signed.",
		}),
	}
}
