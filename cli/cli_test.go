package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chandler-k8s/chandler/cli"
)

func TestRun(t *testing.T) {
	dir := t.TempDir()
	valid := write(t, dir, "valid.yaml", "apiVersion: chandler.dev/v1alpha1\nkind: Config\n")
	broken := write(t, dir, "broken.yaml", "apiVersion: chandler.dev/v1alpha1\nkind: Config\nhostDir: relative\nserving: {adresss: x}\n")
	kubeconfig := write(t, dir, "kubeconfig", `{"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}], "contexts": [{"name": "c", "context": {"cluster": "c"}}]}`)
	metric := write(t, dir, "metric.yaml", "apiVersion: chandler.dev/v1alpha1\nkind: Config\n"+
		"leader: {leaseDuration: 5m, clusterStatus: {metric: {namespace: N, name: M}}}\n")
	tests := map[string]struct {
		args []string
		code int
		out  string // a part of what is printed
		err  string // a part of the error
	}{
		"help":                {args: nil, out: "Available Commands"},
		"version":             {args: []string{"version"}, out: "chandler "},
		"unknown command":     {args: []string{"nonsense"}, code: 2, err: "nonsense"},
		"unknown flag":        {args: []string{"agent", "--nonsense"}, code: 2, err: "--nonsense"},
		"stray argument":      {args: []string{"version", "stray"}, code: 2, err: "stray"},
		"check valid":         {args: []string{"check", "--config", valid}, out: "valid"},
		"check notes":         {args: []string{"check", "--config", valid}, out: "note: identity.clusterID is not set"},
		"check broken":        {args: []string{"check", "--config", broken}, code: 1, out: "serving.adresss", err: "2"},
		"check without file":  {args: []string{"check"}, code: 2, err: "--config is required"},
		"check absent file":   {args: []string{"check", "--config", filepath.Join(dir, "absent")}, code: 1, err: "absent"},
		"policy":              {args: []string{"policy", "--config", valid}, out: "name: chandler-scraper-requests"},
		"policy without file": {args: []string{"policy"}, code: 2, err: "--config is required"},
		"policy broken":       {args: []string{"policy", "--config", broken}, code: 2, err: "hostDir"},
		"agent without file":  {args: []string{"agent"}, code: 2, err: "--config is required"},
		"leader without file": {args: []string{"leader"}, code: 2, err: "--config is required"},
		"leader broken":       {args: []string{"leader", "--config", broken}, code: 2, err: "hostDir"},
		"leader without pod":  {args: []string{"leader", "--config", valid, "--kubeconfig", kubeconfig}, code: 1, err: "$POD_NAME"},
		"leader elsewhere": {
			args: []string{"leader", "--config", valid, "--kubeconfig", kubeconfig, "--pod-name", "p", "--namespace", "kube-system"},
			code: 1, err: `namespace "chandler" alone`,
		},
		"agent broken config": {args: []string{"agent", "--config", broken, "--node-name", "n"}, code: 2, err: "hostDir"},
		"agent log level":     {args: []string{"agent", "--config", valid, "--log-level", "loud"}, code: 2, err: "loud"},
		"agent log format":    {args: []string{"agent", "--config", valid, "--log-format", "xml"}, code: 2, err: "xml"},
		"alarm":               {args: []string{"alarm", "--config", metric}, out: "AWS::CloudWatch::Alarm"},
		"alarm that waits":    {args: []string{"alarm", "--config", metric}, out: "EvaluationPeriods: 7"},
		"alarm for terraform": {args: []string{"alarm", "--config", metric, "--format", "terraform"}, out: "aws_cloudwatch_metric_alarm"},
		"alarm of no format":  {args: []string{"alarm", "--config", metric, "--format", "pulumi"}, code: 2, err: "pulumi"},
		"alarm of no metric":  {args: []string{"alarm", "--config", valid}, code: 2, err: "leader.clusterStatus"},
		"alarm by a name":     {args: []string{"alarm", "--config", metric, "--name", "prod-eu"}, out: "AlarmName: prod-eu"},
		"alarm of a long one": {args: []string{"alarm", "--config", metric, "--name", strings.Repeat("n", 256)}, code: 2, err: "255"},
		"alarm broken config": {args: []string{"alarm", "--config", broken}, code: 2, err: "hostDir"},
		"wait without a set":  {args: []string{"wait"}, code: 2, err: "--set is required"},
		"wait for no set":     {args: []string{"wait", "--dir", dir, "--set", "clutser"}, code: 2, err: "clutser"},
		"wait for keys":       {args: []string{"wait", "--dir", dir, "--set", "cluster", "--require-credentials"}, code: 2, err: "add --set aws or --set aws-NAME"},
		"wait in vain":        {args: []string{"wait", "--dir", dir, "--set", "cluster", "--timeout", "10ms"}, code: 1, err: "set cluster"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out, logs bytes.Buffer
			err := cli.Run(t.Context(), tt.args, func(string) string { return "" }, &out, &logs)
			if got := cli.ExitCode(err); got != tt.code {
				t.Errorf("got exit code %d for error %v, want %d", got, err, tt.code)
			}
			if !strings.Contains(out.String(), tt.out) {
				t.Errorf("got output %q, want it to hold %q", out.String(), tt.out)
			}
			if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got error %v, want it to hold %q", err, tt.err)
			}
		})
	}
}

// TestInitKeepsTheSeedsFlags is the contract with those who swap the image.
func TestInitKeepsTheSeedsFlags(t *testing.T) {
	var out bytes.Buffer
	if err := cli.Run(t.Context(), []string{"init", "--help"}, os.Getenv, &out, &out); err != nil {
		t.Fatal(err)
	}
	for flag, value := range map[string]string{
		"-n": "openshift-machine-api", "-c": "/config/env/CLUSTERID", "-r": "/secrets/aws/config.ini",
		"-o": "/secrets/aws/credentials.ini", "-a": "/secrets/aws_access_key_id", "-A": "/secrets/aws_secret_access_key",
	} {
		found := false
		for line := range strings.Lines(out.String()) {
			found = found || strings.Contains(line, flag+", ") && strings.Contains(line, `(default "`+value+`")`)
		}
		if !found {
			t.Errorf("flag %s with default %s is not in the help:\n%s", flag, value, out.String())
		}
	}
}

// TestPolicyIsWhatDeployShips holds deploy/ to the default configuration.
func TestPolicyIsWhatDeployShips(t *testing.T) {
	file := write(t, t.TempDir(), "config.yaml", "apiVersion: chandler.dev/v1alpha1\nkind: Config\n")
	var out bytes.Buffer
	if err := cli.Run(t.Context(), []string{"policy", "--config", file}, os.Getenv, &out, &out); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("..", "deploy", "base", "csrapproval-policies.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Error("deploy/base/csrapproval-policies.yaml is not what is printed for the default configuration: run make golden")
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
