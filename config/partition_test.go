package config

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The SDK's own file keeps the table current: each update of the SDK is held to it.
func TestPartitionsAreTheSDKs(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws/aws-sdk-go-v2").Output()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "internal/endpoints/awsrulesfn/partitions.json"))
	if err != nil {
		t.Fatal(err)
	}
	var sdk struct {
		Partitions []struct {
			ID      string
			Regions map[string]any
			Outputs struct{ DNSSuffix string }
		}
	}
	if err := json.Unmarshal(data, &sdk); err != nil {
		t.Fatal(err)
	}
	got, want := map[string][]string{}, map[string][]string{}
	for _, p := range partitions {
		got[p.name] = append([]string{p.suffix}, p.regions...)
	}
	for _, p := range sdk.Partitions {
		var regions []string
		for region := range p.Regions {
			if strings.HasSuffix(region, "-global") {
				continue // a pseudo-region
			}
			regions = append(regions, region)
			if home := partitionOf(region).name; home != p.ID {
				t.Errorf("%s: got partition %s, want %s", region, home, p.ID)
			}
		}
		slices.Sort(regions)
		want[p.ID] = append([]string{p.Outputs.DNSSuffix}, regions...)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-SDK +ours):\n%s", diff)
	}
}

func TestRegionWarnings(t *testing.T) {
	typo := ` is no AWS region that this version knows; did you mean "eu-west-1"?`
	tests := []struct {
		name string
		yaml string
		want []string
	}{
		{"of AWS", "identity: {region: eu-west-1}", nil},
		{"of another partition", "identity: {region: us-isob-east-1}", nil},
		{"letters swapped", "identity: {region: eu-wset-1}", []string{`identity.region: "eu-wset-1"` + typo}},
		{"dash forgotten", "identity: {region: eu-west1}", []string{`identity.region: "eu-west1"` + typo}},
		{"number forgotten", "identity: {region: eu-west}", []string{`identity.region: "eu-west"` + typo}},
		{"a zone", "identity: {region: eu-west-1a}", []string{`identity.region: "eu-west-1a"` + typo}},
		{"new, or of a store that is called like AWS's", "identity: {region: us-ashburn-1}",
			[]string{`identity.region: "us-ashburn-1" is no AWS region that this version knows`}},
		{"of MinIO", "identity: {region: minio}", nil},
		{"of Scaleway", "identity: {region: fr-par}", nil},
		{"of Backblaze", "identity: {region: us-west-004}", nil},
		{"of R2", "identity: {region: auto}", nil},
		{"of the metric", "leader: {clusterStatus: {region: eu-wset-1}}", []string{`leader.clusterStatus.region: "eu-wset-1"` + typo}},
		{"of registries", "leader: {pullSecrets: {defaultChainFor: [123456789012.dkr.ecr.eu-wset-1.amazonaws.com, '123456789012']," +
			" roles: [{registry: 123456789012.dkr.ecr.eu-wset-1.amazonaws.com, roleARN: 'arn:aws:iam::123456789012:role/x'}]}}",
			[]string{`leader.pullSecrets.roles[0].registry: "eu-wset-1"` + typo, `leader.pullSecrets.defaultChainFor[0]: "eu-wset-1"` + typo}},
		{"of another store, for the metric", "identity: {region: minio}\nleader: {clusterStatus: {enabled: true, metric: {namespace: a, name: b}," +
			" targets: [{kind: Deployment, namespace: a, name: b, mode: AllOfThem}]}}",
			[]string{`leader.clusterStatus.region is not set: without AWS_REGION the metric would go to identity.region, and "minio" is no AWS region`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := Decode([]byte(header + tt.yaml))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, cfg.Warnings()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
