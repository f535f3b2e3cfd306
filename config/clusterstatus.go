package config

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// ClusterStatus is about one CloudWatch metric that is 1 while every target is
// healthy and 0 while one is not. Its keys are kubestatus2cloudwatch's and more.
type ClusterStatus struct {
	// Enabled is false by default. True requires metric and targets.
	Enabled bool `json:"enabled"`
	// Region is the AWS region of the metric, e.g. "eu-west-1". Empty means the one
	// of the process's AWS configuration (AWS_REGION), else identity.region, else the
	// one that the node was found to be in.
	Region string `json:"region"`
	// Seconds is the time between two data. Default: 60.
	Seconds int `json:"seconds"`
	// DryRun decides and logs but publishes nothing. False by default.
	DryRun bool `json:"dryRun"`
	// Logging is accepted for files of kubestatus2cloudwatch and ignored, with a
	// warning.
	Logging Ignored `json:"logging,omitempty"`
	// Metric names the CloudWatch metric.
	Metric Metric `json:"metric"`
	// PerTarget publishes metrics of single targets besides.
	PerTarget PerTarget `json:"perTarget"`
	// Targets lists the workloads that must be healthy.
	Targets []Target `json:"targets"`
}

// Ignored is a key that is accepted with any value. True means that it was given.
type Ignored bool

// Metric names a CloudWatch metric.
type Metric struct {
	// Namespace is the CloudWatch namespace, e.g. "Kubernetes/Status".
	Namespace string `json:"namespace"`
	// Name is the metric's name, e.g. "Healthy".
	Name string `json:"name"`
	// Dimensions tells the metric from others of its name, e.g. by cluster. Empty
	// means none; CloudWatch allows 30.
	Dimensions []Dimension `json:"dimensions"`
}

// Dimension is one CloudWatch dimension.
type Dimension struct {
	// Name is for example "Cluster". Required.
	Name string `json:"name"`
	// Value is for example "prod-eu". Required.
	Value string `json:"value"`
}

// PerTarget is about metrics of single entries of targets. They are named like
// the metric, with the dimensions Kind, Namespace and Name besides; Name is the
// selector where the target has one.
type PerTarget struct {
	// Enabled is false by default. Each target then costs one CloudWatch metric.
	Enabled bool `json:"enabled"`
	// Ratio adds a second metric to each target, <name>Ratio: the ready share of
	// the desired replicas, 0 to 1. False by default.
	Ratio bool `json:"ratio"`
	// MaxMetrics bounds the metrics of all targets together, against surprises on
	// the bill. Default: 50.
	MaxMetrics int `json:"maxMetrics"`
}

// What PerTarget adds: dimensions, and to the metric's name with Ratio.
const (
	DimensionKind      = "Kind"
	DimensionNamespace = "Namespace"
	DimensionName      = "Name"
	RatioSuffix        = "Ratio"
)

func defaultClusterStatus() ClusterStatus {
	return ClusterStatus{Seconds: 60, PerTarget: PerTarget{MaxMetrics: 50}}
}

// CloudWatch's limits, from the API's documentation of PutMetricData.
const (
	maxDimensions = 30
	maxData       = 1000 // data in one request, and we make one a tick
	maxPutBytes   = 1_000_000
	metricBytes   = 255  // of a metric's name
	valueBytes    = 1024 // of a dimension's value

	// What a datum takes in CBOR besides its texts, and a dimension of it.
	datumOverhead     = 80
	dimensionOverhead = 20
)

var (
	metricNamespaceRule = newRule(`^[A-Za-z0-9._/#-][A-Za-z0-9._/#: -]*$`, 255,
		`want 1 to 255 letters, digits, spaces and ._-/#: as the CloudWatch namespace, such as "Kubernetes/Status"`)
	metricNameRule     = newRule(`^[ -~]*[!-~][ -~]*$`, 255, "want 1 to 255 printable ASCII characters, not spaces alone, as the name of the CloudWatch metric")
	dimensionNameRule  = newRule(`^[!-9;-~][ -~]*$`, 255, "want 1 to 255 printable ASCII characters, not beginning with ':' or a space")
	dimensionValueRule = newRule(`^[ -~]*[!-~][ -~]*$`, 1024, "want 1 to 1024 printable ASCII characters, not spaces alone")
)

func (c ClusterStatus) validate(path string, ps *problems) {
	if c.Region != "" {
		ps.matches(path+".region", c.Region, regionRule)
	}
	ps.number(path+".seconds", c.Seconds, 1, 86400, "a CloudWatch alarm looks back a day at most")
	c.Metric.validate(path+".metric", c.Enabled, c.PerTarget.Enabled, ps)
	if c.Enabled && len(c.Targets) == 0 {
		ps.addBare(path+".targets", "want at least one target while %s.enabled is true", path)
	}
	for i, t := range c.Targets {
		t.validate(fmt.Sprintf("%s.targets[%d]", path, i), ps)
	}
	c.validateSelectors(path, ps)
	c.PerTarget.validate(path+".perTarget", len(c.Targets), ps)
	if c.PerTarget.Enabled {
		c.validateSeries(path, ps)
	}
}

// maxSelectors bounds the watches that the API server holds open for us.
const maxSelectors = 100

// validateSelectors is about their number; names share watches where they are many.
func (c ClusterStatus) validateSelectors(path string, ps *problems) {
	distinct := map[Target]bool{}
	for _, t := range c.Targets {
		if t.Selector != "" {
			distinct[Target{Kind: t.Kind, Namespace: t.Namespace, Selector: t.Selector}] = true
		}
	}
	if len(distinct) > maxSelectors {
		ps.addBare(path+".targets", "want at most %d different selectors, not %d: each costs the API server a watch of its own; name the workloads, or select more of them at once",
			maxSelectors, len(distinct))
	}
}

// validateRenewals is about how soon a datum can follow its tick: not before the next
// renewal of the Lease. Short of five seconds, an older one will do.
func (c ClusterStatus) validateRenewals(path string, lease Leader, ps *problems) {
	least := lease.RetryPeriod() + time.Second
	if seconds := time.Duration(c.Seconds) * time.Second; c.Enabled && least > max(seconds, 5*time.Second) {
		ps.add(path+".seconds", c.Seconds, "want at least %d with a leaseDuration of %s: each datum needs a renewal of the Lease, which comes every %s",
			int(math.Ceil(least.Seconds())), brief(lease.LeaseDuration.Duration), lease.RetryPeriod())
	}
}

// validateSeries is about the metrics of single targets: each must be another one,
// and all must fit into one request.
func (c ClusterStatus) validateSeries(path string, ps *problems) {
	if c.PerTarget.Ratio && len(c.Metric.Name)+len(RatioSuffix) > metricBytes {
		ps.add(path+".metric.name", c.Metric.Name, "want at most %d characters while perTarget.ratio is true, which appends %q", metricBytes-len(RatioSuffix), RatioSuffix)
	}
	own := datumOverhead + len(c.Metric.Name) + len(RatioSuffix)
	for _, d := range c.Metric.Dimensions {
		own += dimensionOverhead + len(d.Name) + len(d.Value)
	}
	total, seen := own, map[Target]bool{}
	for i, t := range c.Targets {
		at := fmt.Sprintf("%s.targets[%d]", path, i)
		series := Target{Kind: t.Kind, Namespace: t.Namespace, Name: t.Name + t.Selector}
		if seen[series] {
			ps.addBare(at, "another target has the same kind, namespace and name or selector, and with perTarget the same metric; keep one, or switch perTarget off")
		}
		seen[series] = true
		if len(t.Selector) > valueBytes {
			ps.addBare(at+".selector", "want at most %d characters: with perTarget it is the value of a dimension", valueBytes)
		}
		size := own + 3*dimensionOverhead + len(DimensionKind+DimensionNamespace+DimensionName) + len(t.Kind+t.Namespace+t.Name+t.Selector)
		if c.PerTarget.Ratio {
			size *= 2
		}
		total += size
	}
	if total > maxPutBytes {
		ps.addBare(path+".perTarget.enabled", "the metrics of all targets take about %d bytes, and a PutMetricData request takes %d: name fewer targets, or shorten the dimensions", total, maxPutBytes)
	}
}

func (p PerTarget) validate(path string, targets int, ps *problems) {
	ps.number(path+".maxMetrics", p.MaxMetrics, 1, maxData-1, "one PutMetricData request takes 1000, and the cluster's own is among them")
	series := targets
	if p.Ratio {
		series *= 2
	}
	if p.Enabled && series > p.MaxMetrics {
		ps.add(path+".maxMetrics", p.MaxMetrics, "the targets need %d metrics: raise it, or name fewer targets", series)
	}
}

func (m Metric) validate(path string, required, perTarget bool, ps *problems) {
	if required || m.Namespace != "" {
		ps.matches(path+".namespace", m.Namespace, metricNamespaceRule)
	}
	if strings.HasPrefix(m.Namespace, "AWS/") {
		ps.add(path+".namespace", m.Namespace, "want a namespace outside AWS/, which CloudWatch keeps to itself")
	}
	if required || m.Name != "" {
		ps.matches(path+".name", m.Name, metricNameRule)
	}
	most, taken := maxDimensions, map[string]bool{}
	if perTarget {
		taken = map[string]bool{DimensionKind: true, DimensionNamespace: true, DimensionName: true}
		most -= len(taken)
	}
	if n := len(m.Dimensions); n > most {
		ps.addBare(path+".dimensions", "want at most %d dimensions, not %d: CloudWatch allows 30, and perTarget takes 3 of them", most, n)
	}
	for i, d := range m.Dimensions {
		at := fmt.Sprintf("%s.dimensions[%d]", path, i)
		ps.matches(at+".name", d.Name, dimensionNameRule)
		ps.matches(at+".value", d.Value, dimensionValueRule)
		if taken[d.Name] {
			ps.add(at+".name", d.Name, "is taken, by another entry or by perTarget; choose another name")
		}
		taken[d.Name] = true
	}
}
