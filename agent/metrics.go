package agent

import (
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/rest"
)

// registerProcessMetrics registers what belongs to the process and not to one
// configuration: runtime and build.
func registerProcessMetrics(reg prometheus.Registerer, version string) {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "chandler_build_info", Help: "1, with the version as a label.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	reg.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// countRequests counts and times every request that goes out by cfg or a copy of
// it. client-go's own metrics hang on one hook for the whole process; this does not.
func countRequests(cfg *rest.Config, reg prometheus.Registerer) {
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "chandler_client_requests_total", Help: "Requests to the API server by method and status code.",
	}, []string{"method", "code"})
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "chandler_client_request_duration_seconds", Help: "How long requests to the API server took to be answered.",
		Buckets: []float64{.005, .02, .1, .5, 2, 10},
	}, []string{"method"})
	reg.MustRegister(total, duration)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return promhttp.InstrumentRoundTripperCounter(total, promhttp.InstrumentRoundTripperDuration(duration, next))
	})
}
