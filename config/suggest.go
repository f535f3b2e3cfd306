package config

import (
	"fmt"
	"strings"
	"unicode"
)

// suggestion names the known key that an unknown one is likely to mean, or all
// of them when none is near.
func suggestion(unknown string, known []string) string {
	if k := nearest(unknown, known); k != "" {
		return fmt.Sprintf("did you mean %q?", k)
	}
	return "known here: " + strings.Join(known, ", ")
}

// nearest returns the known name that another is likely to mean, "" when none is near.
func nearest(unknown string, known []string) string {
	folded := fold(unknown)
	found, least := "", 1+max(2, len(folded)/3)
	for _, k := range known {
		if d := distance(folded, fold(k)); d < least {
			found, least = k, d
		}
	}
	return found
}

// fold makes spellings such as host_dir, host-dir and hostdir equal. Long keys
// are nobody's slip, so they are cut off to bound the comparison.
func fold(key string) string {
	const most = 64
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '_' {
			return -1
		}
		return unicode.ToLower(r)
	}, key[:min(len(key), most)])
}

// distance counts the bytes to insert, remove or replace to get from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1) // distances from the part of a seen so far
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
