package clusterid

import "testing"

func TestDifference(t *testing.T) {
	type node struct {
		name, id string
		known    bool
	}
	for name, tt := range map[string]struct {
		nodes []node
		want  string
	}{
		"no nodes":                       {nil, ""},
		"all fall back alike":            {[]node{{"a", "", false}, {"b", "", false}}, ""},
		"all have it":                    {[]node{{"a", "prod", true}, {"b", "prod", true}}, ""},
		"hybrid nodes beside those":      {[]node{{"a", "prod", true}, {"b", "", true}}, ""},
		"some of eksctl, some without":   {[]node{{"c", "prod", true}, {"b", "prod", true}, {"a", "", false}}, "none: 1 Node(s), e.g. a; prod: 2 Node(s), e.g. b"},
		"hybrid nodes, and some without": {[]node{{"a", "", false}, {"b", "", true}}, "none: 1 Node(s), e.g. a; in the providerID: 1 Node(s), e.g. b"},
		"two names":                      {[]node{{"a", "blue", true}, {"b", "green", true}}, "blue: 1 Node(s), e.g. a; green: 1 Node(s), e.g. b"},
		"a name for each node": {
			[]node{{"a", "1", true}, {"b", "2", true}, {"c", "3", true}, {"d", "4", true}, {"e", "5", true}, {"f", "6", true}},
			"1: 1 Node(s), e.g. a; 2: 1 Node(s), e.g. b; 3: 1 Node(s), e.g. c; 4: 1 Node(s), e.g. d; 5: 1 Node(s), e.g. e; …",
		},
	} {
		t.Run(name, func(t *testing.T) {
			found := survey{}
			for _, n := range tt.nodes {
				found.add(n.name, n.id, n.known)
			}
			if got := found.difference(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
