package clusterstatus

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files anew")

// awkward has everything that a name may hold and some language takes for its own.
func awkward() Options {
	return Options{Interval: 90 * time.Second, Region: "eu-west-1", Metric: Metric{
		Namespace: "Kubernetes/Status", Name: `It's "healthy" ${x} %{y} \ #`,
		Dimensions: []Dimension{{"Cluster", "prod-eu"}, {"a: b", "yes"}, {"x", "2026-03-01"}},
	}}
}

func printed(t *testing.T, o Options, format string) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Alarm(&out, o, format, ""); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestAlarmGolden(t *testing.T) {
	for format, ending := range map[string]string{"cloudformation": "yaml", "terraform": "tf", "cli": "sh"} {
		t.Run(format, func(t *testing.T) {
			got, file := printed(t, awkward(), format), filepath.Join("testdata", "alarm."+ending+".golden")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(got), string(want)); diff != "" {
				t.Errorf("-got +want:\n%s", diff)
			}
		})
	}
	if err := Alarm(&bytes.Buffer{}, awkward(), "pulumi", ""); err == nil {
		t.Error("an unknown format is no error")
	}
}

// TestAlarmSaysWhatIsMeant reads the outputs back as their readers do.
func TestAlarmSaysWhatIsMeant(t *testing.T) {
	want := newAlarm(awkward(), "")
	var template struct {
		Resources struct {
			Alarm struct {
				Properties struct {
					MetricName, TreatMissingData string
					Period, EvaluationPeriods    int
					Dimensions                   []Dimension
				}
			}
			PublishPolicy struct {
				Properties struct{ PolicyDocument object }
			}
		}
	}
	if err := yaml.Unmarshal(printed(t, awkward(), "cloudformation"), &template); err != nil {
		t.Fatal(err)
	}
	got := template.Resources.Alarm.Properties
	if got.MetricName != want.metric.Name || got.TreatMissingData != "breaching" || got.Period != 120 || got.EvaluationPeriods != 3 {
		t.Errorf("got %+v", got)
	}
	if diff := cmp.Diff(got.Dimensions, want.metric.Dimensions); diff != "" {
		t.Errorf("dimensions of CloudFormation (-got +want):\n%s", diff)
	}
	if got := template.Resources.PublishPolicy.Properties.PolicyDocument["Version"]; got != policyVersion {
		t.Errorf("got policy version %v, want the text %s", got, policyVersion)
	}

	// A shell with an aws that prints its last argument.
	script := "aws() { for last; do :; done; printf '%s' \"$last\"; printf '\\0'; }\n" + string(printed(t, awkward(), "cli"))
	out, err := exec.CommandContext(t.Context(), "sh", "-c", script).Output()
	if err != nil {
		t.Fatal(err)
	}
	documents := bytes.Split(bytes.TrimSuffix(out, []byte{0}), []byte{0})
	if len(documents) != 2 {
		t.Fatalf("got %d commands, want 2", len(documents))
	}
	var input struct{ MetricName, AlarmName string }
	if err := json.Unmarshal(documents[0], &input); err != nil {
		t.Fatal(err)
	}
	if input.MetricName != want.metric.Name || input.AlarmName != want.name {
		t.Errorf("got %+v, want %s of %s", input, want.name, want.metric.Name)
	}
	var policy object
	if err := json.Unmarshal(documents[1], &policy); err != nil {
		t.Fatal(err)
	}
	if policy["Version"] != policyVersion {
		t.Errorf("got policy %v", policy)
	}
}

// TestAlarmQuotesIndicators: YAML 1.1 gives them a meaning of their own, and PyYAML,
// for one, refuses a document that has them plain.
func TestAlarmQuotesIndicators(t *testing.T) {
	// A long one is folded, and its text stays what it is.
	folded := strings.Repeat("x", 60) + " Name: = and so on, for more than a line of the template"
	for _, text := range []string{"=", "<<", folded} {
		o := Options{Interval: time.Minute, Metric: Metric{Namespace: text, Name: text, Dimensions: []Dimension{{text, text}, {"D", text}}}}
		var out bytes.Buffer
		if err := Alarm(&out, o, "cloudformation", text); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if strings.HasSuffix(line, ": =\n") || strings.HasSuffix(line, ": <<\n") {
				t.Errorf("not quoted: %s", line)
			}
		}
		var back any
		if err := yaml.Unmarshal(out.Bytes(), &back); err != nil {
			t.Fatal(err)
		}
		// AlarmName, Namespace twice, MetricName, a dimension's name and two values.
		if got := strings.Count(fmt.Sprintf("%q", back), strconv.Quote(text)); got != 7 {
			t.Errorf("%q: got it %d times, want 7:\n%s", text, got, out.String())
		}
	}
}

func TestAlarmPeriods(t *testing.T) {
	for _, test := range []struct {
		interval, lease    time.Duration
		period, evaluation int
	}{
		{time.Second, 15 * time.Second, 60, 3},
		{time.Minute, 0, 60, 3},
		{time.Minute, 15 * time.Second, 60, 3},
		{time.Minute, time.Minute, 60, 3},
		{time.Minute, 61 * time.Second, 60, 4},
		{time.Minute, 5 * time.Minute, 60, 7},
		{61 * time.Second, 15 * time.Second, 120, 3},
		{2 * time.Minute, 5 * time.Minute, 120, 4},
		{8 * time.Hour, 5 * time.Minute, 28800, 3},
		{12 * time.Hour, 15 * time.Second, 43200, 2},
		{24 * time.Hour, 5 * time.Minute, 86400, 1},
	} {
		got := newAlarm(Options{Interval: test.interval, LeaseDuration: test.lease, Metric: awkward().Metric}, "")
		if got.period != test.period || got.evaluation != test.evaluation {
			t.Errorf("%s, lease of %s: got %d periods of %d s, want %d of %d", test.interval, test.lease, got.evaluation, got.period, test.evaluation, test.period)
		}
	}
}

// TestAlarmBelongsInTheRegion of the metric: in another it would fire for ever.
func TestAlarmBelongsInTheRegion(t *testing.T) {
	for _, format := range Formats() {
		o := awkward()
		if got := string(printed(t, o, format)); !strings.Contains(got, "eu-west-1") {
			t.Errorf("%s does not name the region:\n%s", format, got)
		}
		o.Region = ""
		if got := string(printed(t, o, format)); !strings.Contains(got, "the region that the metric is published to") {
			t.Errorf("%s does not say that a region is to be chosen:\n%s", format, got)
		}
	}
	if got := string(printed(t, awkward(), "cli")); !strings.Contains(got, "put-metric-alarm --region 'eu-west-1' ") {
		t.Errorf("the command goes to the region of whoever runs it:\n%s", got)
	}
}

// TestNoAlarm: what CloudWatch would refuse, and what CloudFormation would take for its
// own.
func TestNoAlarm(t *testing.T) {
	long := Options{Interval: time.Minute, Metric: Metric{Namespace: "N", Name: "M", Dimensions: []Dimension{{"D", strings.Repeat("x", 256)}}}}
	secret := Options{Interval: time.Minute, Metric: Metric{Namespace: "N", Name: "M", Dimensions: []Dimension{{"D", "{{resolve:ssm:password}}"}}}}
	for _, test := range []struct {
		name, format, called string
		o                    Options
		want                 string // empty: there is one
	}{
		{"name of dimensions", "cli", "", long, "255"},
		{"the same, named", "cli", "short", long, ""},
		{"name of 255", "terraform", strings.Repeat("n", 255), long, ""},
		{"name of 256", "terraform", strings.Repeat("n", 256), awkward(), "255"},
		{"name of 255 characters in more bytes", "terraform", strings.Repeat("ü", 255), awkward(), ""},
		{"name of 256 characters in more bytes", "terraform", strings.Repeat("ü", 256), awkward(), "has 256 characters"},
		{"name of two lines", "cli", "a\nb", awkward(), "control characters"},
		{"no metric", "cli", "", Options{Interval: time.Minute}, "leader.clusterStatus"},
		{"dynamic reference", "cloudformation", "", secret, "{{resolve:"},
		{"dynamic reference in the name", "cloudformation", "{{resolve:ssm:x}}", awkward(), "{{resolve:"},
		{"dynamic reference for others", "terraform", "", secret, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := Alarm(&bytes.Buffer{}, test.o, test.format, test.called)
			if test.want == "" && err != nil {
				t.Errorf("got %v", err)
			}
			if test.want != "" && (!errors.Is(err, ErrNoAlarm) || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want it to name %q", err, test.want)
			}
		})
	}
}
