package clusterstatus

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files anew")

// awkward has everything that a name may hold and some language takes for its own.
func awkward() Options {
	return Options{Interval: 90 * time.Second, Metric: Metric{
		Namespace: "Kubernetes/Status", Name: `It's "healthy" ${x} %{y} \ #`,
		Dimensions: []Dimension{{"Cluster", "prod-eu"}, {"a: b", "yes"}, {"x", "2026-03-01"}},
	}}
}

func printed(t *testing.T, o Options, format string) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Alarm(&out, o, format); err != nil {
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
	if err := Alarm(&bytes.Buffer{}, awkward(), "pulumi"); err == nil {
		t.Error("an unknown format is no error")
	}
}

// TestAlarmSaysWhatIsMeant reads the outputs back as their readers do.
func TestAlarmSaysWhatIsMeant(t *testing.T) {
	want := newAlarm(awkward().Metric, awkward().Interval)
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

func TestAlarmPeriods(t *testing.T) {
	for _, test := range []struct {
		interval           time.Duration
		period, evaluation int
	}{
		{time.Second, 60, 3},
		{time.Minute, 60, 3},
		{61 * time.Second, 120, 3},
		{8 * time.Hour, 28800, 3},
		{12 * time.Hour, 43200, 2},
		{24 * time.Hour, 86400, 1},
	} {
		got := newAlarm(awkward().Metric, test.interval)
		if got.period != test.period || got.evaluation != test.evaluation {
			t.Errorf("%s: got %d periods of %d s, want %d of %d", test.interval, got.evaluation, got.period, test.evaluation, test.period)
		}
	}
}
