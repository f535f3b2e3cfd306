package clusterstatus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// Formats lists what Alarm can print.
func Formats() []string { return []string{"cloudformation", "terraform", "cli"} }

const (
	// alarmPeriods in a row must be bad. One may be empty when the leader is killed:
	// see docs/clusterstatus.md.
	alarmPeriods = 3
	// longestLook is how far an alarm looks back.
	longestLook = 24 * time.Hour

	maxAlarmName     = 255 // of CloudWatch
	alarmDescription = "Health of chosen Kubernetes workloads, published by chandler. Missing data means that nobody knows."
	policyVersion    = "2012-10-17"
)

// alarm is the alarm that goes with a metric.
type alarm struct {
	name       string
	metric     Metric
	period     int // seconds
	evaluation int // periods
}

// newAlarm chooses a period that holds a datum whenever all is well: the interval,
// in whole minutes.
func newAlarm(metric Metric, interval time.Duration) alarm {
	period := (interval + time.Minute - 1) / time.Minute * time.Minute
	name := "chandler " + metric.Namespace + " " + metric.Name
	for _, d := range metric.Dimensions {
		name += " " + d.Name + "=" + d.Value
	}
	return alarm{
		name: name[:min(len(name), maxAlarmName)], metric: metric,
		period: int(period / time.Second), evaluation: int(min(alarmPeriods, longestLook/period)),
	}
}

// Alarm prints the alarm that goes with a configuration, and the IAM policy that
// publishing needs, in one of Formats. It calls nothing. The error is that of out,
// or of an unknown format.
func Alarm(out io.Writer, o Options, format string) error {
	a := newAlarm(o.Metric, o.Interval)
	var text string
	var err error
	switch format {
	case "cloudformation":
		text, err = a.cloudFormation()
	case "terraform":
		text = a.terraform()
	case "cli":
		text, err = a.commands()
	default:
		return fmt.Errorf("print alarm: format %q: want one of %s", format, strings.Join(Formats(), ", "))
	}
	if err == nil {
		_, err = io.WriteString(out, text)
	}
	if err != nil {
		return fmt.Errorf("print alarm: %w", err)
	}
	return nil
}

// object is a JSON object. Its keys are printed in alphabetical order.
type object = map[string]any

// policy allows to publish, and nothing in other namespaces.
func (a alarm) policy() object {
	return object{
		"Version": policyVersion,
		"Statement": []object{{
			"Effect": "Allow", "Action": "cloudwatch:PutMetricData", "Resource": "*",
			"Condition": object{"StringEquals": object{"cloudwatch:namespace": a.metric.Namespace}},
		}},
	}
}

// properties are those of the alarm, as CloudFormation and the API call them.
func (a alarm) properties() object {
	p := object{
		"AlarmName": a.name, "AlarmDescription": alarmDescription,
		"Namespace": a.metric.Namespace, "MetricName": a.metric.Name,
		"Statistic": "Minimum", "ComparisonOperator": "LessThanThreshold", "Threshold": 1,
		"Period": a.period, "EvaluationPeriods": a.evaluation, "DatapointsToAlarm": a.evaluation,
		"TreatMissingData": "breaching",
	}
	var dimensions []object
	for _, d := range a.metric.Dimensions {
		dimensions = append(dimensions, object{"Name": d.Name, "Value": d.Value})
	}
	if dimensions != nil {
		p["Dimensions"] = dimensions
	}
	return p
}

func (a alarm) cloudFormation() (string, error) {
	properties := a.properties()
	actions := object{"Fn::If": []any{"Notifies", []object{{"Ref": "Topic"}}, object{"Ref": "AWS::NoValue"}}}
	properties["AlarmActions"], properties["OKActions"] = actions, actions
	template, err := yaml.Marshal(object{
		"AWSTemplateFormatVersion": "2010-09-09",
		"Description":              alarmDescription,
		"Parameters": object{"Topic": object{
			"Type": "String", "Default": "", "Description": "ARN of the SNS topic to notify. Empty notifies nobody.",
		}},
		"Conditions": object{"Notifies": object{"Fn::Not": []object{{"Fn::Equals": []any{object{"Ref": "Topic"}, ""}}}}},
		"Resources": object{
			"Alarm": object{"Type": "AWS::CloudWatch::Alarm", "Properties": properties},
			"PublishPolicy": object{"Type": "AWS::IAM::ManagedPolicy", "Properties": object{
				"Description": "Lets chandler publish its metric.", "PolicyDocument": a.policy(),
			}},
		},
		"Outputs": object{"PublishPolicy": object{
			"Description": "Attach this to the role that chandler runs with.", "Value": object{"Ref": "PublishPolicy"},
		}},
	})
	return string(template), err
}

func (a alarm) terraform() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("variable \"chandler_alarm_actions\" {\n  description = \"ARNs to notify, such as that of an SNS topic.\"\n  type        = list(string)\n  default     = []\n}\n")
	line("resource \"aws_cloudwatch_metric_alarm\" \"chandler\" {")
	line("  alarm_name          = %s", hcl(a.name))
	line("  alarm_description   = %s", hcl(alarmDescription))
	line("  namespace           = %s", hcl(a.metric.Namespace))
	line("  metric_name         = %s", hcl(a.metric.Name))
	line("  statistic           = \"Minimum\"\n  comparison_operator = \"LessThanThreshold\"\n  threshold           = 1")
	line("  period              = %d\n  evaluation_periods  = %d\n  datapoints_to_alarm = %d", a.period, a.evaluation, a.evaluation)
	line("  treat_missing_data  = \"breaching\"\n  alarm_actions       = var.chandler_alarm_actions\n  ok_actions          = var.chandler_alarm_actions")
	if len(a.metric.Dimensions) > 0 {
		line("  dimensions = {")
		for _, d := range a.metric.Dimensions {
			line("    %s = %s", hcl(d.Name), hcl(d.Value))
		}
		line("  }")
	}
	line("}\n\n# Attach this to the role that chandler runs with.")
	line("resource \"aws_iam_policy\" \"chandler_publish\" {")
	line("  name_prefix = \"chandler-publish-\"\n  description = \"Lets chandler publish its metric.\"")
	line("  policy = jsonencode({\n    Version = %s\n    Statement = [{", hcl(policyVersion))
	line("      Effect    = \"Allow\"\n      Action    = \"cloudwatch:PutMetricData\"\n      Resource  = \"*\"")
	line("      Condition = { StringEquals = { \"cloudwatch:namespace\" = %s } }\n    }]\n  })\n}", hcl(a.metric.Namespace))
	return b.String()
}

// hcl quotes a text for Terraform, where a template begins with ${ or %{.
func hcl(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "${", "$${", "%{", "%%{").Replace(text) + `"`
}

func (a alarm) commands() (string, error) {
	properties, err1 := json.MarshalIndent(a.properties(), "", "  ")
	policy, err2 := json.MarshalIndent(a.policy(), "", "  ")
	return fmt.Sprintf(`# Add --alarm-actions with the ARN of an SNS topic to be notified.
aws cloudwatch put-metric-alarm --cli-input-json %s

# Attach this policy to the role that chandler runs with.
aws iam create-policy --policy-name chandler-publish --policy-document %s
`, shell(string(properties)), shell(string(policy))), errors.Join(err1, err2)
}

// shell quotes a text for a POSIX shell.
func shell(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
