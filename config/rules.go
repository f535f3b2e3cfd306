package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// rule is a shape of text, its greatest length in bytes, and the words for both.
// The JSON schema uses the same.
type rule struct {
	shape *regexp.Regexp
	most  int
	want  string
}

func newRule(shape string, most int, want string) rule {
	return rule{shape: regexp.MustCompile(shape), most: most, want: want}
}

// matches reports a text that does not fit the rule.
func (ps *problems) matches(path, value string, r rule) {
	if len(value) > r.most || !r.shape.MatchString(value) {
		ps.add(path, value, "%s", r.want)
	}
}

// oneOf reports a value that is not among the known ones.
func (ps *problems) oneOf(path, value string, known ...string) {
	if !slices.Contains(known, value) {
		ps.add(path, value, "want %s", alternatives(known))
	}
}

// dnsLabel reports what Kubernetes accepts neither as the name of a namespace
// nor as another DNS label.
func (ps *problems) dnsLabel(path, value string) {
	if len(validation.IsDNS1123Label(value)) > 0 {
		ps.add(path, value, "want 1 to 63 lower-case letters, digits and '-', with a letter or digit at both ends")
	}
}

// objectName reports what Kubernetes does not accept as the name of an object.
func (ps *problems) objectName(path, value string) {
	if len(validation.IsDNS1123Subdomain(value)) > 0 {
		ps.add(path, value, "want 1 to 253 lower-case letters, digits, '-' and '.', as in the name of a Kubernetes object")
	}
}

// absolutePath reports what is not one clean way to write an absolute path.
func (ps *problems) absolutePath(path, value string) {
	switch {
	case !filepath.IsAbs(value):
		ps.add(path, value, "want an absolute path")
	case strings.ContainsFunc(value, unicode.IsControl):
		ps.add(path, value, "want a path without control characters")
	case filepath.Clean(value) != value:
		ps.add(path, value, "want the path without '..', '.', '//' or '/' at its end: %q", filepath.Clean(value))
	}
}

// duration reports what lies outside least to most, or is no whole number of
// seconds, which is how the Kubernetes API counts.
func (ps *problems) duration(path string, value metav1.Duration, least, most time.Duration, why string) {
	if value.Duration < least || value.Duration > most {
		ps.add(path, brief(value.Duration), "want %s to %s: %s", brief(least), brief(most), why)
	} else if value.Duration%time.Second != 0 {
		ps.add(path, brief(value.Duration), "want whole seconds: the Kubernetes API counts in seconds")
	}
}

// number reports what lies outside least to most.
func (ps *problems) number(path string, value, least, most int, why string) {
	if value < least || value > most {
		ps.add(path, value, "want %d to %d: %s", least, most, why)
	}
}

// unique reports the second of two equal entries. path is where it stands.
func (ps *problems) unique(path, value string, seen map[string]bool) {
	if seen[value] {
		ps.add(path, value, "is given twice; keep one")
	}
	seen[value] = true
}

// printableASCII reports whether every byte of a text is visible or a space.
func printableASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// alternatives writes "a", "b" or "c".
func alternatives(known []string) string {
	var b strings.Builder
	for i, k := range known {
		switch {
		case i > 0 && i == len(known)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", k)
	}
	return b.String()
}

// brief writes 720h0m0s as people do: 720h.
func brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
