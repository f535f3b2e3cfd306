package config

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var update = flag.Bool("update", false, "rewrite schema.json and the golden files")

const header = "apiVersion: chandler.dev/v1alpha1\nkind: Config\n"

// golden compares got with a checked-in file, or writes it with -update.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is stale; go test ./config -update (-want +got):\n%s", path, diff)
	}
}

func files(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("glob %s: got %d files, %v", pattern, len(names), err)
	}
	return names
}

func TestLoadValid(t *testing.T) {
	for _, path := range files(t, "testdata/valid/*.yaml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			cfg, err := Load(path)
			if err != nil {
				t.Fatal(err)
			}
			checkRoundTrip(t, cfg)
		})
	}
}

// checkRoundTrip encodes cfg and decodes it again. JSON is YAML.
func checkRoundTrip(t *testing.T, cfg *Config) {
	t.Helper()
	data, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Decode(data)
	if err != nil {
		t.Fatalf("decode %s: %v", data, err)
	}
	if diff := cmp.Diff(cfg, again); diff != "" {
		t.Errorf("encoding and decoding changed the config (-before +after):\n%s", diff)
	}
}

// Each file's golden file holds the whole error, one problem a line.
func TestDecodeInvalid(t *testing.T) {
	for _, path := range files(t, "testdata/invalid/*.yaml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := Decode(data)
			if cfg != nil || err == nil {
				t.Fatalf("got %+v, %v; want an error alone", cfg, err)
			}
			if got, want := len(Problems(err)), strings.Count(err.Error(), "\n")+1; got != want {
				t.Errorf("got %d problems in %d lines:\n%v", got, want, err)
			}
			golden(t, strings.TrimSuffix(path, ".yaml")+".golden", []byte(err.Error()+"\n"))
		})
	}
}

func TestMinimalIsDefault(t *testing.T) {
	got, err := Load("testdata/valid/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), got); diff != "" {
		t.Errorf("a file of two lines (-want +got):\n%s", diff)
	}
	if got := got.Warnings(); got != nil {
		t.Errorf("got warnings %q, want none", got)
	}
}

// DESIGN.md states these; consumers and manifests depend on them.
func TestDefault(t *testing.T) {
	secret := Files{Mode: 0o440, UID: 0, GID: 65534}
	want := &Config{
		APIVersion:     "chandler.dev/v1alpha1",
		Kind:           "Config",
		HostDir:        "/var/lib/chandler",
		AWSCredentials: []AWSCredential{{Name: "default", Source: "/etc/chandler/aws/default", Profile: "default", Files: secret}},
		Scraper: Scraper{
			Enabled:    true,
			CommonName: "system:serviceaccount:openshift-monitoring:prometheus-k8s",
			SignerName: "kubernetes.io/kube-apiserver-client",
			Duration:   metav1.Duration{Duration: 720 * time.Hour},
			Files:      secret,
		},
		Leader: Leader{
			Enabled:       true,
			LeaseDuration: metav1.Duration{Duration: 15 * time.Second},
			PullSecrets:   PullSecrets{Enabled: true, HostNamespace: "ci-cd", CredentialsSecretPrefix: "eatr-aws-credentials"},
			PodLogs:       PodLogs{Enabled: true, ListPods: true},
			ClusterStatus: ClusterStatus{Seconds: 60, PerTarget: PerTarget{MaxMetrics: 50}},
		},
		Serving: Serving{Address: ":9464", HealthAddress: ":9465", ClusterClientCA: true},
	}
	if diff := cmp.Diff(want, Default()); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

func TestExplicitValues(t *testing.T) {
	tests := []struct {
		name string
		yaml string
		want func(*Config)
	}{
		{"absent", "", func(*Config) {}},
		{"keys without values", "scraper:\nleader: {pullSecrets: null, leaseDuration: ~}\nawsCredentials:\n", func(*Config) {}},
		{"false", "scraper: {enabled: false}\nleader: {enabled: false, podLogs: {listPods: false}}", func(c *Config) {
			c.Scraper.Enabled, c.Leader.Enabled, c.Leader.PodLogs.ListPods = false, false, false
		}},
		{"zero and empty", "serving: {address: ''}\nscraper: {files: {gid: 0}}", func(c *Config) {
			c.Serving.Address, c.Scraper.Files.GID = "", 0
		}},
		{"empty lists", "awsCredentials: []\nserving: {allowedUsers: []}", func(c *Config) {
			c.AWSCredentials, c.Serving.AllowedUsers = []AWSCredential{}, []string{}
		}},
		{"defaults of an entry", "awsCredentials: [{name: x, source: /x, files: {uid: 7}}]", func(c *Config) {
			c.AWSCredentials = []AWSCredential{{Name: "x", Source: "/x", Profile: "default", Files: Files{Mode: 0o440, UID: 7, GID: 65534}}}
		}},
		{"a word that YAML 1.1 takes for a boolean", "scraper: {commonName: no}", func(c *Config) { c.Scraper.CommonName = "no" }},
		{"empty documents around", "---\n", func(*Config) {}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Decode([]byte(header + tt.yaml))
			if err != nil {
				t.Fatal(err)
			}
			want := Default()
			tt.want(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			checkRoundTrip(t, got)
		})
	}
}

func TestProblemFields(t *testing.T) {
	_, err := Decode([]byte(header + "leader:\n  clusterStatus:\n    targets:\n" +
		"    - {kind: Job, namespace: a, name: b, mode: LastRunSucceeded}\n" +
		"    - {kind: Deployment, namespace: a, name: b, mode: Sometimes}\n"))
	want := []Problem{{
		Line:    7,
		Path:    "leader.clusterStatus.targets[1].mode",
		Value:   `"Sometimes"`,
		Message: `want "AllOfThem", "AtLeastOne", "AtLeast" or "Percentage"`,
	}}
	if diff := cmp.Diff(want, Problems(fmt.Errorf("check: %w", err))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if p, ok := errors.AsType[Problem](err); !ok || p.Path != want[0].Path {
		t.Errorf("errors.AsType: got %+v, %v", p, ok)
	}
	if got := Problems(errors.New("other")); got != nil {
		t.Errorf("problems of another error: got %v, want nil", got)
	}
}

func TestLongValuesAreCutOff(t *testing.T) {
	_, err := Decode([]byte(header + "hostDir: " + strings.Repeat("ü", 500) + "\n" + strings.Repeat("k", 1000) + ": 1"))
	for _, p := range Problems(err) {
		if got := len(p.Error()); got > 400 {
			t.Errorf("got a problem of %d bytes: %v", got, p)
		}
	}
	if got := len(Problems(err)); got != 2 {
		t.Errorf("got %d problems, want 2: %v", got, err)
	}
}

func TestBounds(t *testing.T) {
	list := "[" + strings.Repeat("*a, ", 1000) + "]"
	tests := []struct {
		name string
		yaml string
		want string
	}{
		{"longer than a ConfigMap", header + strings.Repeat("#", maxBytes), "the file is longer than 1048576 bytes, the most that a ConfigMap holds"},
		{"aliases of long lists", header + "leader: {clusterStatus: {metric: {dimensions: &a [" + strings.Repeat("{name: a, value: b}, ", 1000) +
			"]}, targets: " + strings.ReplaceAll(list, "*a", "{name: b}") + "}, pullSecrets: {roles: *a, patchServiceAccounts: &b [" +
			strings.Repeat("x, ", 200_000) + "]}}", "the file holds more than 100000 values, aliases written out"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Decode([]byte(tt.yaml))
			if ps := Problems(err); len(ps) != 1 || ps[0].Message != tt.want {
				t.Errorf("got %.300v, want %s", err, tt.want)
			}
		})
	}
}

// A bomb multiplies by aliases of aliases. Each level that the types know is
// followed, no other is.
func TestAliasBomb(t *testing.T) {
	bomb := header + "x0: &x0 [a]\n"
	for i := range 30 {
		bomb += fmt.Sprintf("x%d: &x%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*x%d, ", i), 100))
	}
	bomb += "leader: &l {enabled: 1, pullSecrets: {patchServiceAccounts: *x30}, clusterStatus: *l}\n"
	_, err := Decode([]byte(bomb))
	if got := len(Problems(err)); got < 30 || got > 200 {
		t.Errorf("got %d problems, want one an unknown key and one an entry: %.500v", got, err)
	}
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "absent.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent file: got %v, want fs.ErrNotExist", err)
	}
	if _, err := Load(dir); err == nil || Problems(err) != nil {
		t.Errorf("directory: got %v, want an error that is no Problem", err)
	}
	long := filepath.Join(dir, "long.yaml")
	if err := os.WriteFile(long, []byte(header+strings.Repeat("#", maxBytes)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(long); len(Problems(err)) != 1 {
		t.Errorf("long file: got %v, want one Problem", err)
	}
	bad := "testdata/invalid/serving-ports.yaml"
	if _, err := Load(bad); err == nil || !strings.HasPrefix(err.Error(), "config "+bad+":\n") {
		t.Errorf("bad file: got %v, want it to begin with the path", err)
	}
}

func TestWarnings(t *testing.T) {
	cfg, err := Load("testdata/valid/kubestatus2cloudwatch.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"leader.clusterStatus.logging is ignored: use the flags --log-level and --log-format"}
	if diff := cmp.Diff(want, cfg.Warnings()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMetricsUsers(t *testing.T) {
	tests := []struct {
		name string
		yaml string
		want []string
	}{
		{"absent", "scraper: {commonName: prometheus}", []string{"prometheus"}},
		{"nobody", "serving: {allowedUsers: []}", []string{}},
		{"others", "serving: {allowedUsers: [a, b]}", []string{"a", "b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := Decode([]byte(header + tt.yaml))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, cfg.MetricsUsers()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLeaseTimes(t *testing.T) {
	stock := Default().Leader
	if got, want := stock.RenewDeadline(), 10*time.Second; got != want {
		t.Errorf("renew deadline: got %s, want %s", got, want)
	}
	if got, want := stock.RetryPeriod(), 2*time.Second; got != want {
		t.Errorf("retry period: got %s, want %s", got, want)
	}
	for _, d := range []time.Duration{3 * time.Second, 7 * time.Second, 5 * time.Minute} {
		l := Leader{LeaseDuration: metav1.Duration{Duration: d}}
		// client-go refuses anything else; 1.2 is its jitter.
		if d <= l.RenewDeadline() || float64(l.RenewDeadline()) <= 1.2*float64(l.RetryPeriod()) {
			t.Errorf("%s: got renew deadline %s and retry period %s", d, l.RenewDeadline(), l.RetryPeriod())
		}
	}
}

func TestCandidateSelector(t *testing.T) {
	all, err := Leader{}.CandidateSelector()
	if err != nil || !all.Empty() {
		t.Errorf("no candidates: got %v, %v, want everything", all, err)
	}
	if _, err := (Leader{Candidates: "a in ("}).CandidateSelector(); err == nil {
		t.Error("got no error for a broken selector")
	}
}

func TestSetNames(t *testing.T) {
	for _, tt := range []struct{ name, set, want string }{
		{"default", "", "aws"}, {"billing", "", "aws-billing"}, {"billing", "aws", "aws"}, {"default", "aws-x", "aws-x"},
	} {
		if got := (AWSCredential{Name: tt.name, SetName: tt.set}).Set(); got != tt.want {
			t.Errorf("set of %q with set %q: got %q, want %q", tt.name, tt.set, got, tt.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, pattern := range []string{"testdata/valid/*.yaml", "testdata/invalid/*.yaml"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := Decode(data)
		if err == nil {
			checkRoundTrip(t, cfg)
			return
		}
		if len(Problems(err)) == 0 {
			t.Errorf("got an error without a Problem: %v", err)
		}
	})
}
