package expect

import (
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Metric is Sum for a test.
func Metric(t testing.TB, from prometheus.Gatherer, name string, labels ...string) (sum float64, found bool) {
	t.Helper()
	sum, found, err := Sum(from, name, labels...)
	OK(t, err)
	return sum, found
}

// Sum returns the sum of the gauges and counters of a name that carry all the
// labels given as name=value, and whether there are any.
func Sum(from prometheus.Gatherer, name string, labels ...string) (sum float64, found bool, err error) {
	families, err := from.Gather()
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			has := map[string]bool{}
			for _, label := range metric.GetLabel() {
				has[label.GetName()+"="+label.GetValue()] = true
			}
			if !slices.ContainsFunc(labels, func(l string) bool { return !has[l] }) {
				sum, found = sum+metric.GetGauge().GetValue()+metric.GetCounter().GetValue(), true
			}
		}
	}
	return sum, found, err
}
