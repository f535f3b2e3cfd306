package clusterstatus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sigs.k8s.io/yaml"
)

// ErrNoAlarm is wrapped by the errors of Alarm that a configuration or the name
// asked for causes.
var ErrNoAlarm = errors.New("no alarm goes with this configuration")

// Formats lists what Alarm can print.
func Formats() []string { return []string{formatCloudFormation, "terraform", "cli"} }

const formatCloudFormation = "cloudformation"

const (
	// alarmPeriods in a row must be bad, or more where a killed leader may leave more
	// of them empty: see docs/clusterstatus.md.
	alarmPeriods = 3
	// longestLook is how far an alarm looks back.
	longestLook = 24 * time.Hour

	maxAlarmName     = 255 // of CloudWatch
	dynamicReference = "{{resolve:"
	alarmDescription = "Health of chosen Kubernetes workloads, published by chandler. Missing data means that nobody knows."
	policyVersion    = "2012-10-17"
)

// alarm is the alarm that goes with a metric.
type alarm struct {
	name       string
	region     string // empty if the configuration names none
	metric     Metric
	period     int // seconds
	evaluation int // periods
}

// newAlarm chooses a period that holds a datum whenever all is well, which is the
// interval in whole minutes, and more periods than a killed leader leaves empty until
// its Lease has expired and the minute of its end has passed.
func newAlarm(o Options, name string) alarm {
	period := (o.Interval + time.Minute - 1) / time.Minute * time.Minute
	empty := (o.LeaseDuration + time.Minute + period - 1) / period
	if name == "" {
		name = "chandler " + o.Metric.Namespace + " " + o.Metric.Name
		for _, d := range o.Metric.Dimensions {
			name += " " + d.Name + "=" + d.Value
		}
	}
	return alarm{
		name: name, region: o.Region, metric: o.Metric,
		period: int(period / time.Second), evaluation: int(min(max(alarmPeriods, empty+1), longestLook/period)),
	}
}

// check holds to CloudWatch's limits what the configuration's checks have not.
func (a alarm) check(format string) error {
	if a.metric.Namespace == "" || a.metric.Name == "" {
		return fmt.Errorf("%w: leader.clusterStatus names no metric, give metric.namespace and metric.name", ErrNoAlarm)
	}
	if length := utf8.RuneCountInString(a.name); length > maxAlarmName {
		return fmt.Errorf("%w: its name %q has %d characters and CloudWatch takes %d, give a shorter one", ErrNoAlarm, a.name, length, maxAlarmName)
	}
	if strings.ContainsFunc(a.name, unicode.IsControl) {
		return fmt.Errorf("%w: its name %q has control characters", ErrNoAlarm, a.name)
	}
	if format != formatCloudFormation {
		return nil
	}
	texts := []string{a.name, a.metric.Namespace, a.metric.Name}
	for _, d := range a.metric.Dimensions {
		texts = append(texts, d.Name, d.Value)
	}
	for _, text := range texts {
		if strings.Contains(text, dynamicReference) {
			return fmt.Errorf("%w: CloudFormation would replace %q in %q and knows no way to quote it, use another format", ErrNoAlarm, dynamicReference, text)
		}
	}
	return nil
}

// Alarm prints the alarm that goes with a configuration, and the IAM policy that
// publishing needs, in one of Formats. An empty name means one made of the metric's.
// It calls nothing. The error wraps ErrNoAlarm, or is that of out, or of an unknown
// format.
func Alarm(out io.Writer, o Options, format, name string) error {
	a := newAlarm(o, name)
	if err := a.check(format); err != nil {
		return err
	}
	var text string
	var err error
	switch format {
	case formatCloudFormation:
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

// place tells in a comment where the alarm belongs.
func (a alarm) place() string {
	if a.region == "" {
		return "# It belongs in the region that the metric is published to; leader.clusterStatus.region names none.\n"
	}
	return "# It belongs in region " + a.region + ", where the metric is published.\n"
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
	return a.place() + `# aws cloudformation deploy --stack-name chandler-alarm --template-file FILE --capabilities CAPABILITY_IAM
# and --parameter-overrides Topic=ARN to be notified. The capability is for the IAM policy.
` + quoteIndicators(string(template)), err
}

// quoteIndicators quotes the texts that YAML 1.1 gives a meaning and our encoder leaves
// plain. Lines that a folded text goes on in are longer, or end in a quote.
func quoteIndicators(template string) string {
	return regexp.MustCompile(`(?m)^( *(?:- )?(?:AlarmName|MetricName|Name|Namespace|Value|cloudwatch:namespace): )(=|<<)$`).ReplaceAllString(template, "$1'$2'")
}

func (a alarm) terraform() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	b.WriteString(a.place())
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
	region := ""
	if a.region != "" {
		region = " --region " + shell(a.region)
	}
	return fmt.Sprintf(`%s# Add --alarm-actions with the ARN of an SNS topic to be notified.
aws cloudwatch put-metric-alarm%s --cli-input-json %s

# Attach this policy to the role that chandler runs with.
aws iam create-policy --policy-name chandler-publish --policy-document %s
`, a.place(), region, shell(string(properties)), shell(string(policy))), errors.Join(err1, err2)
}

// shell quotes a text for a POSIX shell.
func shell(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
