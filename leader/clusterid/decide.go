package clusterid

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// survey counts nodes by what their metadata says.
type survey map[answer]*count

type answer struct {
	id    string // empty if it is not in the metadata
	known bool
}

type count struct {
	nodes int
	first string // the name that sorts first
}

func (s survey) add(node, id string, known bool) {
	c := s[answer{id, known}]
	if c == nil {
		c = &count{first: node}
		s[answer{id, known}] = c
	}
	c.nodes++
	c.first = min(c.first, node)
}

// maxShown bounds the answers that a difference lists.
const maxShown = 5

// difference describes the answers if nodes would differ, e.g. `none: 1 Node(s), e.g. b;
// payments: 3 Node(s), e.g. a`, and is empty if they all say the same. A known ID that
// is not in the metadata is taken for the one that is.
func (s survey) difference() string {
	named := 0
	for a := range s {
		if a.id != "" {
			named++
		}
	}
	_, hidden := s[answer{known: true}]
	_, none := s[answer{}]
	if named > 1 || none && (hidden || named > 0) {
		return s.String()
	}
	return ""
}

// String lists the answers in a constant order.
func (s survey) String() string {
	var all []string
	for _, a := range s.answers() {
		name := a.id
		switch {
		case !a.known:
			name = "none"
		case name == "":
			name = "in the providerID"
		}
		if len(all) == maxShown {
			all = append(all, "…")
			break
		}
		all = append(all, fmt.Sprintf("%s: %d Node(s), e.g. %s", name, s[a].nodes, s[a].first))
	}
	return strings.Join(all, "; ")
}

// answers are sorted by ID. Those without one come first, the hidden one after none.
func (s survey) answers() []answer {
	return slices.SortedFunc(maps.Keys(s), func(a, b answer) int {
		if a.id == b.id && b.known {
			return -1
		}
		return cmp.Compare(a.id, b.id)
	})
}
