package identity

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var errDown = errors.New("connection refused")

// answers builds the replies of all sources in rank order: values by source, and
// err for those that could not be asked.
func answers(values map[string]map[Key]string, down ...string) []reply {
	var replies []reply
	for _, s := range Sources() {
		r := reply{source: s, about: Keys(), values: values[s]}
		for _, d := range down {
			if d == s {
				r.err, r.values = errDown, nil
			}
		}
		replies = append(replies, r)
	}
	return replies
}

func TestDecide(t *testing.T) {
	type said = map[string]map[Key]string
	uid := map[Key]string{ClusterID: "6f5a-uid"}
	tests := map[string]struct {
		prev    Facts
		replies []reply
		want    Facts
		odd     int
	}{
		"config beats all": {
			replies: answers(said{SourceConfig: {ClusterID: "mine"}, sourceInfrastructure: {ClusterID: "infra"}, sourceNamespace: uid}),
			want:    Facts{ClusterID: {"mine", SourceConfig}},
			odd:     1,
		},
		"infrastructure beats machine": {
			replies: answers(said{sourceInfrastructure: {Region: "eu-west-1"}, sourceMachine: {Region: "eu-west-2"}}),
			want:    Facts{Region: {"eu-west-1", sourceInfrastructure}, Partition: {"aws", sourceInfrastructure}},
			odd:     1,
		},
		"facts are decided one by one": {
			replies: answers(said{sourceNodeLabel: {Region: "cn-north-1"}, sourceIMDS: {InstanceID: "i-1"}, sourceNamespace: uid}),
			want: Facts{
				Region: {"cn-north-1", sourceNodeLabel}, Partition: {"aws-cn", sourceNodeLabel},
				InstanceID: {"i-1", sourceIMDS}, ClusterID: {"6f5a-uid", sourceNamespace},
			},
		},
		"the UID is the last resort and never disagrees": {
			replies: answers(said{sourceNodeLabel: {ClusterID: "eks"}, sourceNamespace: uid}),
			want:    Facts{ClusterID: {"eks", sourceNodeLabel}},
		},
		"the UID is not taken while a better source is in doubt": {
			replies: answers(said{sourceNamespace: uid}, sourceInfrastructure),
			want:    Facts{},
		},
		"an unreachable metadata service does not hold back the UID": {
			replies: answers(said{sourceNamespace: uid}, sourceIMDS),
			want:    Facts{ClusterID: {"6f5a-uid", sourceNamespace}},
		},
		"a fact known from a better source stays while that source is in doubt": {
			prev:    Facts{Region: {"eu-west-1", sourceInfrastructure}},
			replies: answers(said{sourceNodeLabel: {Region: "eu-west-2"}}, sourceInfrastructure),
			want:    Facts{Region: {"eu-west-1", sourceInfrastructure}, Partition: {"aws", sourceInfrastructure}},
		},
		"what the configuration said goes with it": {
			prev:    Facts{ClusterID: {"wrong", SourceConfig}, Region: {"eu-west-1", SourceConfig}},
			replies: answers(said{sourceNamespace: uid}, sourceIMDS),
			want:    Facts{ClusterID: {"6f5a-uid", sourceNamespace}},
		},
		"doubt about another source does not keep a value": {
			prev:    Facts{ClusterID: {"old", sourceNodeLabel}},
			replies: answers(said{sourceNamespace: uid}, sourceIMDS),
			want:    Facts{ClusterID: {"6f5a-uid", sourceNamespace}},
		},
		"a fact stays when RBAC takes its source away": {
			prev: Facts{ClusterID: {"prod", sourceInfrastructure}},
			replies: []reply{
				{source: sourceInfrastructure, about: Keys(), forbidden: true},
				{source: sourceNamespace, about: Keys(), values: uid},
			},
			want: Facts{ClusterID: {"prod", sourceInfrastructure}},
		},
		"a better source replaces what was known": {
			prev:    Facts{ClusterID: {"6f5a-uid", sourceNamespace}},
			replies: answers(said{sourceIMDS: {ClusterID: "eks"}, sourceNamespace: uid}),
			want:    Facts{ClusterID: {"eks", sourceIMDS}},
		},
		"what every source denies goes": {
			prev: Facts{
				ClusterID: {"a", sourceMachine}, Region: {"eu-west-1", sourceMachine}, Partition: {"aws", sourceMachine},
				InstanceType: {"m7i.large", sourceIMDS},
			},
			replies: answers(said{}),
			want:    Facts{},
		},
		"what its own source denies goes, also where IMDS never answers": {
			prev:    Facts{Region: {"eu-west-1", sourceProviderID}, Partition: {"aws", sourceProviderID}, InstanceID: {"i-1", sourceIMDS}},
			replies: answers(said{}, sourceIMDS),
			want:    Facts{InstanceID: {"i-1", sourceIMDS}},
		},
		"what a source that is gone said goes": {
			prev:    Facts{Zone: {"a", "ouija"}},
			replies: answers(said{}, Sources()...),
			want:    Facts{},
		},
		"a region of another cloud does not outlive the version that took it for one": {
			prev:    Facts{Region: {"europe-west1", sourceNodeLabel}, ClusterID: {"a", sourceNodeLabel}},
			replies: answers(said{}, Sources()...),
			want:    Facts{ClusterID: {"a", sourceNodeLabel}},
		},
		"a Node that does not exist denies nothing": {
			prev: Facts{Region: {"eu-west-1", sourceProviderID}},
			replies: []reply{
				{source: sourceProviderID, about: Keys(), absent: true},
				{source: sourceNamespace, about: []Key{ClusterID}, values: uid},
			},
			want: Facts{Region: {"eu-west-1", sourceProviderID}, Partition: {"aws", sourceProviderID}, ClusterID: {"6f5a-uid", sourceNamespace}},
		},
		"everything down keeps everything": {
			prev:    Facts{ClusterID: {"a", sourceMachine}, InstanceID: {"i-1", sourceProviderID}},
			replies: answers(said{}, Sources()...),
			want:    Facts{ClusterID: {"a", sourceMachine}, InstanceID: {"i-1", sourceProviderID}},
		},
		"a malformed value is refused and the next source taken": {
			replies: answers(said{sourceInfrastructure: {ClusterID: "a\"\nrm -rf /"}, sourceMachine: {ClusterID: "good"}}),
			want:    Facts{ClusterID: {"good", sourceMachine}},
			odd:     1,
		},
		"a region of no known partition has none": {
			replies: answers(said{SourceConfig: {Region: "minio"}}),
			want:    Facts{Region: {"minio", SourceConfig}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, odd := decide(tt.prev, tt.replies)
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("decide (-got +want):\n%s", diff)
			}
			if len(odd) != tt.odd {
				t.Errorf("got %d oddities %v, want %d", len(odd), odd, tt.odd)
			}
		})
	}
}

func TestPartitionOf(t *testing.T) {
	for region, want := range map[string]string{
		"eu-west-1": "aws", "mx-central-1": "aws", "cn-northwest-1": "aws-cn", "us-gov-east-1": "aws-us-gov",
		"us-iso-east-1": "aws-iso", "us-isob-west-1": "aws-iso-b", "eu-isoe-west-1": "aws-iso-e",
		"us-isof-south-1": "aws-iso-f", "eusc-de-east-1": "aws-eusc",
		"": "", "westeurope": "", "europe-west1": "", "us-east-1a": "",
	} {
		if got := PartitionOf(region); got != want {
			t.Errorf("PartitionOf(%q): got %q, want %q", region, got, want)
		}
	}
}

func TestRender(t *testing.T) {
	facts := Facts{
		ClusterID: {"prod-x7k2p", sourceInfrastructure}, Region: {"eu-west-1", sourceInfrastructure},
		Zone: {"eu-west-1a", sourceNodeLabel}, Partition: {"aws", sourceInfrastructure},
		InstanceID: {"i-0123456789abcdef0", sourceProviderID}, NodeName: {"ip-10-0-0-1", SourceConfig},
	}
	for name, got := range map[string][]byte{
		"CLUSTERID":     RenderClusterID(facts),
		"cluster-id":    RenderBare(ClusterID)(facts),
		"region":        RenderBare(Region)(facts),
		"node.env":      RenderEnv(facts),
		"identity.json": RenderJSON(facts),
	} {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(got), string(want)); diff != "" {
			t.Errorf("%s (-got +want):\n%s", name, diff)
		}
	}
	back, err := Decode(RenderJSON(facts))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(back, facts); diff != "" {
		t.Errorf("identity.json read back (-got +want):\n%s", diff)
	}
	if got := RenderClusterID(Facts{}); got != nil {
		t.Errorf("CLUSTERID without a cluster ID: got %q, want none", got)
	}
}

// TestDecodeOfAnotherVersion keeps the facts that both versions know.
func TestDecodeOfAnotherVersion(t *testing.T) {
	got, err := Decode([]byte(`{"colour": {"value": "blue", "source": "config"}, "region": {"value": "eu-west-1", "source": "imds"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, Facts{Region: {"eu-west-1", sourceIMDS}}); diff != "" {
		t.Errorf("facts (-got +want):\n%s", diff)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, data := range map[string]string{
		"no JSON": "CLUSTERID",
		"hostile": `{"clusterID": {"value": "$(id)", "source": "config"}}`,
	} {
		if got, err := Decode([]byte(data)); err == nil {
			t.Errorf("%s: got %v, want an error", name, got)
		}
	}
}
