package pullsecrets

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const irish = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"

func labelled(labels map[string]string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "team-a", Labels: labels}}
}

func TestDecide(t *testing.T) {
	ending := labelled(map[string]string{irish: "true"})
	ending.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	const malformed = "123456789012.dkr.ecr.eu-west-1.amazonaws.com.cn"
	tests := map[string]struct {
		namespace *metav1.PartialObjectMetadata
		host      string
		public    bool
		want      action
		problem   string
	}{
		"labelled":              {labelled(map[string]string{irish: "true"}), irish, false, supply, ""},
		"gone":                  {nil, irish, false, forget, ""},
		"ending":                {ending, irish, false, wait, ""},
		"not labelled":          {labelled(nil), irish, false, remove, ""},
		"declined":              {labelled(map[string]string{irish: "false"}), irish, false, remove, ""},
		"empty value":           {labelled(map[string]string{irish: ""}), irish, false, remove, `its value must be "true"`},
		"True":                  {labelled(map[string]string{irish: "True"}), irish, false, remove, `its value must be "true"`},
		"yes":                   {labelled(map[string]string{irish: "yes"}), irish, false, remove, `its value must be "true"`},
		"malformed host":        {labelled(map[string]string{malformed: "true"}), malformed, false, remove, "it would be " + irish},
		"public":                {labelled(map[string]string{PublicHost: "true"}), PublicHost, true, supply, ""},
		"public, switched off":  {labelled(map[string]string{PublicHost: "true"}), PublicHost, false, remove, "ecrPublic is off"},
		"public, declined":      {labelled(map[string]string{PublicHost: "false"}), PublicHost, false, remove, ""},
		"another registry only": {labelled(map[string]string{PublicHost: "true"}), irish, false, remove, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, problem := decide(test.namespace, test.host, test.public)
			if got != test.want {
				t.Errorf("got action %d, want %d", got, test.want)
			}
			if (problem == "") != (test.problem == "") || !strings.Contains(problem, test.problem) {
				t.Errorf("got problem %q, want %q in it", problem, test.problem)
			}
		})
	}
}

func TestParsePair(t *testing.T) {
	p := pair{"team-a", irish}
	if got, ok := parsePair(p.key()); !ok || got != p {
		t.Errorf("got %v, %t, want %v", got, ok, p)
	}
	for _, key := range []string{irish, ledgerKey} {
		if got, ok := parsePair(key); ok {
			t.Errorf("key %s: got the pair %v, want none", key, got)
		}
	}
}

func TestChangeAccount(t *testing.T) {
	entries := func(names ...string) []corev1.LocalObjectReference {
		var list []corev1.LocalObjectReference
		for _, name := range names {
			list = append(list, corev1.LocalObjectReference{Name: name})
		}
		return list
	}
	tests := map[string]struct {
		list    []corev1.LocalObjectReference
		present bool
		want    string
	}{
		"first entry": {
			nil, true,
			`[{"op":"test","path":"/imagePullSecrets","value":null},{"op":"add","path":"/imagePullSecrets","value":[{"name":"ecr"}]}]`,
		},
		"behind others": {
			entries("a"), true,
			`[{"op":"test","path":"/imagePullSecrets","value":[{"name":"a"}]},{"op":"add","path":"/imagePullSecrets/-","value":{"name":"ecr"}}]`,
		},
		"there already":   {entries("a", "ecr"), true, `null`},
		"nothing to take": {entries("a"), false, `null`},
		"taken out": {
			entries("a", "ecr", "b"), false,
			`[{"op":"test","path":"/imagePullSecrets","value":[{"name":"a"},{"name":"ecr"},{"name":"b"}]},` +
				`{"op":"remove","path":"/imagePullSecrets/1","value":null}]`,
		},
		"taken out twice, from the end": {
			entries("ecr", "a", "ecr"), false,
			`[{"op":"test","path":"/imagePullSecrets","value":[{"name":"ecr"},{"name":"a"},{"name":"ecr"}]},` +
				`{"op":"remove","path":"/imagePullSecrets/2","value":null},{"op":"remove","path":"/imagePullSecrets/0","value":null}]`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := json.Marshal(changeAccount(test.list, "ecr", test.present))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
