package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each case begins on line 3, below the two lines of the header.
func TestLineOfSyntaxError(t *testing.T) {
	tests := []struct {
		name string
		yaml string
		want string
	}{
		{"flow mapping not closed at the end", "leader: {enabled: true\n",
			"line 3: is not YAML: did not find expected ',' or '}' while parsing a flow mapping"},
		{"flow mapping not closed before the next key", "leader: {enabled: true\nscraper: {}\n",
			"line 4: is not YAML: did not find expected ',' or '}' while parsing a flow mapping that begins on line 3"},
		{"comma missing in a flow mapping of several lines", "# note\n\nserving: {\n  # note\n  address: ':1'\n  healthAddress: ':2',\n}\n",
			"line 8: is not YAML: did not find expected ',' or '}' while parsing a flow mapping that begins on line 5"},
		{"comma missing in a nested flow list", "leader: {pullSecrets: {roles: [\n  {registry: a}\n  {registry: b}]}}\n",
			"line 5: is not YAML: did not find expected ',' or ']' while parsing a flow sequence that begins on line 3"},
		{"bracket too many", "leader:\n  podLogs: ]\n",
			"line 4: is not YAML: did not find expected node content while parsing a block node"},
		{"flow mapping not closed, Windows line ends", "leader:\r\n  podLogs: {enabled: true\r\n",
			"line 4: is not YAML: did not find expected ',' or '}' while parsing a flow mapping"},
		{"key less indented than its siblings", "leader:\n  enabled: true\n podLogs: {}\n",
			"line 5: is not YAML: did not find expected key while parsing a block mapping that begins on line 1"},
		{"key more indented than its siblings", "leader:\n  enabled: true\n\n    podLogs: {}\n",
			"line 6: is not YAML: mapping values are not allowed in this context"},
		{"entry of a list among keys", "awsCredentials:\n  - name: a\n  source: /a\n",
			"line 5: is not YAML: did not find expected '-' indicator while parsing a block collection that begins on line 4"},
		{"key without a colon", "leader\n# note\n\nscraper: {}\n",
			"line 3: is not YAML: could not find expected ':' while scanning a simple key"},
		{"quote not closed", "hostDir: \"/var/lib\n\nleader: {}\n",
			"line 3: is not YAML: found unexpected end of stream while scanning a quoted scalar"},
		{"text after a quote", "hostDir: '/var'lib'\n",
			"line 3: is not YAML: did not find expected key while parsing a block mapping that begins on line 1"},
		{"unknown escape", "hostDir: \"\\q\"\n",
			"line 3: is not YAML: found unknown escape character while scanning a quoted scalar"},
		{"unknown anchor", "leader:\n  podLogs: *absent\n",
			"line 4: is not YAML: unknown anchor 'absent' referenced"},
		{"control character", "# note\nhostDir: \x01\n",
			"line 4: is not YAML: control characters are not allowed (value: 1)"},
		{"no UTF-8", "# für\nhostDir: \xff\n",
			"line 4: is not YAML: invalid leading UTF-8 octet (value: 255)"},
		{"second document", "---\nleader: {enabled: true\n",
			"line 4: is not YAML: did not find expected ',' or '}' while parsing a flow mapping"},
		{"tab before the first key of a section", "leader:\n\tenabled: true\n",
			"line 4: is not YAML: a tab where indentation is expected; use spaces"},
		{"tab before a later key", "leader:\n  enabled: true\n\tpodLogs: {}\n",
			"line 5: is not YAML: a tab where indentation is expected; use spaces"},
		{"tab behind spaces", "leader:\n  enabled: true\n  \tpodLogs: {}\n",
			"line 5: is not YAML: a tab where indentation is expected; use spaces"},
		{"tab behind a dash", "awsCredentials:\n-\tname: a\n  source: /a\n",
			"line 4: is not YAML: a tab where indentation is expected; use spaces"},
		{"tab in a block of text", "hostDir: |\n\t/var\n",
			"line 4: is not YAML: a tab where indentation is expected; use spaces"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Decode([]byte(header + tt.yaml))
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestTabsThatYAMLAllows(t *testing.T) {
	for _, yaml := range []string{"leader: {\n\tenabled:\tfalse}\n", "\t\nleader:\t# note\n\t# note\n  enabled: false\n"} {
		if got, err := Decode([]byte(header + yaml)); err != nil || got.Leader.Enabled {
			t.Errorf("%q: got %v, want it to be decoded", yaml, err)
		}
	}
}

// A problem of a key stands where the key does, however it is written.
func TestLineOfKey(t *testing.T) {
	tests := []struct {
		name string
		yaml string
		want []int
	}{
		{"block", "leader:\n\n  # note\n  enabled: 1\n", []int{6}},
		{"flow on one line", "leader: {podLogs: {enabled: 1}}\n", []int{3}},
		{"flow on several lines", "leader: {\n  # note\n\n  enabled: 1,\n  podLogs: {\n    enabled: 2}}\n", []int{6, 8}},
		{"flow inside block", "leader:\n  podLogs: {listPods: true,\n    enabled: 1}\n", []int{5}},
		{"value below its key", "leader:\n  enabled:\n    1\n", []int{4}},
		{"entries of a block list", "leader:\n  pullSecrets:\n    patchServiceAccounts:\n    - a\n    # note\n    - 1\n    -\n    - B\n", []int{8, 9, 10}},
		{"entries of a flow list", "leader: {pullSecrets: {patchServiceAccounts: [a,\n  1,\n  null,\n  B]}}\n", []int{4, 5, 6}},
		{"absent key of an entry", "awsCredentials:\n- name: a\n  source: /a\n\n- name: b\n", []int{7}},
		{"absent key of an entry in flow style", "awsCredentials: [{name: a, source: /a},\n  {\n  name: b}]\n", []int{4}},
		{"anchor and alias", "scraper: {files: &f {\n  uid: a}}\nawsCredentials:\n- {name: a, source: /a, files: *f}\n", []int{4, 4}},
		{"alias of an entry", "awsCredentials:\n- &a {name: a, source: /a}\n\n- *a\n", []int{4}},
		{"second document", "---\n\n# note\nleader: {}\n", []int{6}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Decode([]byte(header + tt.yaml))
			var got []int
			for _, p := range Problems(err) {
				got = append(got, p.Line)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%v\n(-want +got):\n%s", err, diff)
			}
		})
	}
}
