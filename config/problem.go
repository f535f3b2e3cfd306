package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with a file. Find them with errors.As, or
// all of them with Problems.
type Problem struct {
	// Line is where the key stands in the file, counted from 1, or the nearest key
	// around it when it is absent. Zero means the file as a whole.
	Line int
	// Path is the key path, e.g. "leader.clusterStatus.targets[2].mode". Empty
	// means the file as a whole.
	Path string
	// Value is the offending value in double quotes, e.g. `"Sometimes"`, cut off
	// where it is long. Empty when there is none to show.
	Value string
	// Message says what is wanted instead, and why where that is not obvious.
	Message string
}

// Error returns one line, e.g. `line 3: serving.address: invalid value "x": want …`.
func (p Problem) Error() string {
	var b strings.Builder
	if p.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", p.Line)
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	switch p.Value {
	case "":
	case `""`:
		b.WriteString("is missing or empty: ")
	default:
		b.WriteString("invalid value " + p.Value + ": ")
	}
	return b.String() + p.Message
}

// Problems returns every Problem that err wraps or joins, in order; nil when
// there is none.
func Problems(err error) []Problem {
	if p, ok := err.(Problem); ok { //nolint:errorlint // this walks the wrapped ones itself
		return []Problem{p}
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []Problem
		for _, e := range joined.Unwrap() {
			out = append(out, Problems(e)...)
		}
		return out
	}
	if inner := errors.Unwrap(err); inner != nil {
		return Problems(inner)
	}
	return nil
}

// problems collects what the sections find.
type problems []Problem

// add records a bad value and what is wanted in its place.
func (ps *problems) add(path string, value any, format string, args ...any) {
	*ps = append(*ps, Problem{Path: path, Value: quote(value), Message: fmt.Sprintf(format, args...)})
}

// addBare records a problem that has no value to show.
func (ps *problems) addBare(path, format string, args ...any) {
	*ps = append(*ps, Problem{Path: path, Message: fmt.Sprintf(format, args...)})
}

// quote shows a value on one line, whatever it holds.
func quote(value any) string {
	const most = 100
	s := fmt.Sprint(value)
	if len(s) > most {
		return strconv.Quote(strings.ToValidUTF8(s[:most], "")) + "…"
	}
	return strconv.Quote(s)
}
