package identity

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// TestAnotherMachine: which of the facts on a disk outlive the start of a machine.
// Those of a node of another name are not read at all: see node.Inherit.
func TestAnotherMachine(t *testing.T) {
	type said = map[string]map[Key]string
	before := Facts{
		ClusterID: {"tagged", sourceIMDS}, Region: {"eu-west-1", sourceProviderID}, Partition: {"aws", sourceProviderID},
		InstanceID: {"i-0a", sourceProviderID}, InstanceType: {"m7i.large", sourceIMDS},
	}
	everything := []string{sourceInfrastructure, sourceMachine, sourceClusterProperty, sourceProviderID, sourceNodeLabel, sourceNodeAnnotation, sourceIMDS, sourceNamespace}
	uid := map[Key]string{ClusterID: "6f5a-uid"}
	for name, tt := range map[string]struct {
		prev      Facts
		replies   []reply
		want      Facts
		discarded bool
	}{
		"the same, after a reboot, with the API server and IMDS down": {
			before, answers(said{}, everything...), before, false,
		},
		"the same, IMDS down": {
			before, answers(said{sourceProviderID: {Region: "eu-west-1", InstanceID: "i-0a"}, sourceNamespace: uid}, sourceIMDS), before, false,
		},
		"the same, IMDS up, the API server down": {
			before, answers(said{sourceIMDS: {ClusterID: "tagged", InstanceID: "i-0a", InstanceType: "m7i.large"}}, everything[:6]...), before, false,
		},
		"another in the Node's place, IMDS down: nothing of before is kept": {
			before, answers(said{sourceProviderID: {Region: "eu-west-1", InstanceID: "i-0b"}, sourceNamespace: uid}, sourceIMDS),
			Facts{
				ClusterID: {"6f5a-uid", sourceNamespace}, Region: {"eu-west-1", sourceProviderID}, Partition: {"aws", sourceProviderID},
				InstanceID: {"i-0b", sourceProviderID},
			}, true,
		},
		"another, known by IMDS alone, the API server down": {
			Facts{ClusterID: {"prod", sourceInfrastructure}, InstanceID: {"i-0a", sourceIMDS}},
			answers(said{sourceIMDS: {InstanceID: "i-0b"}}, everything[:6]...),
			Facts{InstanceID: {"i-0b", sourceIMDS}}, true,
		},
		"two sources that differ, one of them down, are no other machine": {
			before, answers(said{sourceIMDS: {ClusterID: "tagged", InstanceID: "i-0c", InstanceType: "m7i.large"}}, everything[:6]...), before, false,
		},
		"an ID that is denied is no other machine's": {
			Facts{ClusterID: {"tagged", sourceIMDS}, InstanceID: {"i-0a", sourceProviderID}},
			answers(said{sourceNamespace: uid}, sourceIMDS),
			Facts{ClusterID: {"tagged", sourceIMDS}}, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var logs bytes.Buffer
			r := New(Options{Previous: tt.prev, Log: slog.New(slog.NewTextHandler(&logs, nil)), Metrics: prometheus.NewRegistry()})
			var asked []reply
			for _, reply := range tt.replies {
				switch reply.source {
				case SourceConfig:
				case sourceIMDS:
					r.metadata = reply
				default:
					asked = append(asked, reply)
				}
			}
			r.settle(asked)
			if diff := cmp.Diff(r.Facts(), tt.want); diff != "" {
				t.Errorf("facts (-got +want):\n%s", diff)
			}
			if got := strings.Contains(logs.String(), "facts of another instance discarded"); got != tt.discarded {
				t.Errorf("the log says that facts are another's: got %t, want %t:\n%s", got, tt.discarded, logs.String())
			}
		})
	}
}

// TestMissing: which silences leave a fact in doubt.
func TestMissing(t *testing.T) {
	about := func(r reply) []reply { return []reply{r.of(sourceProviderID)} }
	for name, tt := range map[string]struct {
		replies []reply
		want    string
		doubt   bool
		ofAWS   bool
	}{
		"nobody asked":           {nil, "no source has been asked yet", true, false},
		"answered":               {about(reply{}), "asked provider-id", false, false},
		"down":                   {about(reply{err: errDown}), "asked provider-id (could not be asked)", true, false},
		"refused":                {about(reply{forbidden: true}), "asked provider-id (refused by RBAC)", false, false},
		"no Node":                {about(reply{absent: true}), "asked provider-id (the Node does not exist)", true, false},
		"IMDS has not answered":  {[]reply{{source: sourceIMDS, about: Keys(), err: errPending}}, "asked imds (has not answered yet)", true, false},
		"IMDS is out of reach":   {[]reply{{source: sourceIMDS, about: Keys(), err: errors.New("hop limit")}}, "asked imds (could not be asked)", false, false},
		"of another fact":        {[]reply{{source: sourceNamespace, about: []Key{ClusterID}, err: errDown}}, "asked ", false, false},
		"with the reason of one": {about(reply{why: "not of AWS"}), "asked provider-id (not of AWS)", false, false},
		"of AWS":                 {about(reply{ofAWS: true}), "asked provider-id", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := Resolver{replies: tt.replies}
			if diff := cmp.Diff(r.Missing(Region), Gap{Why: tt.want, InDoubt: tt.doubt, OfAWS: tt.ofAWS}); diff != "" {
				t.Errorf("gap (-got +want):\n%s", diff)
			}
		})
	}
}
