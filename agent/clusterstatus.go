package agent

import (
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chandler-k8s/chandler/config"
	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/clusterstatus"
)

func clusterStatusTask(cfg config.ClusterStatus, aws *ownAWS, region func() string, reg prometheus.Registerer) ([]newTask, error) {
	metrics, err := clusterstatus.NewMetrics(reg)
	if err != nil {
		return nil, err
	}
	o := statusOptions(cfg)
	o.AWS, o.NodeRegion, o.Metrics = aws.load, region, metrics
	return []newTask{func(term leader.Term) (leader.Task, error) { return clusterstatus.New(term, o) }}, nil
}

// statusOptions is what of the configuration concerns the task.
func statusOptions(cfg config.ClusterStatus) clusterstatus.Options {
	o := clusterstatus.Options{
		Interval: time.Duration(cfg.Seconds) * time.Second, DryRun: cfg.DryRun,
		Metric: clusterstatus.Metric{Namespace: cfg.Metric.Namespace, Name: cfg.Metric.Name},
		Region: cfg.Region,
	}
	if cfg.PerTarget.Enabled {
		o.PerTarget = &clusterstatus.Series{
			Kind: config.DimensionKind, Namespace: config.DimensionNamespace, Name: config.DimensionName,
		}
		if cfg.PerTarget.Ratio {
			o.PerTarget.Ratio = config.RatioSuffix
		}
	}
	for _, d := range cfg.Metric.Dimensions {
		o.Metric.Dimensions = append(o.Metric.Dimensions, clusterstatus.Dimension{Name: d.Name, Value: d.Value})
	}
	for _, t := range cfg.Targets {
		o.Targets = append(o.Targets, clusterstatus.Target{
			Kind: t.Kind, Namespace: t.Namespace, Name: t.Name, Selector: t.Selector, AllowEmpty: t.AllowEmpty,
			Mode: clusterstatus.Mode(t.Mode), Count: t.Count, Percentage: t.Percentage, Within: t.Within.Duration,
		})
	}
	return o
}

// ErrNoAlarm is wrapped by Alarm's errors that the configuration or the name causes.
var ErrNoAlarm = clusterstatus.ErrNoAlarm

// AlarmFormats lists the formats of Alarm.
func AlarmFormats() []string { return clusterstatus.Formats() }

// Alarm prints the CloudWatch alarm and the IAM policy that go with a
// configuration, in one of AlarmFormats. An empty name means one made of the metric's.
// It calls nothing.
func Alarm(out io.Writer, cfg *config.Config, format, name string) error {
	o := statusOptions(cfg.Leader.ClusterStatus)
	o.LeaseDuration = cfg.Leader.LeaseDuration.Duration
	return clusterstatus.Alarm(out, o, format, name)
}
