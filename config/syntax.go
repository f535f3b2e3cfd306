package config

import (
	"bytes"
	"errors"
	"fmt"

	"go.yaml.in/yaml/v4"
)

// notYAML reports what the parser could not read, on the line where its author has to
// look.
func notYAML(data []byte, err error) Problem {
	e, ok := errors.AsType[*yaml.LoadError](err)
	switch {
	case !ok:
		return Problem{Message: fmt.Sprintf("is not YAML: %v", err)}
	case e.Stage == yaml.ReaderStage: // it has no line yet, but the offset of a byte
		return Problem{Line: 1 + bytes.Count(data[:min(e.Mark.Index, len(data))], []byte("\n")), Message: "is not YAML: " + e.Message}
	case bytes.HasPrefix(from(data, e.Mark), []byte("\t")):
		return Problem{Line: e.Mark.Line, Message: "is not YAML: a tab where indentation is expected; use spaces"}
	}
	p := Problem{Line: e.Mark.Line, Message: "is not YAML: " + e.Message}
	if e.ContextMsg == "" {
		return p
	}
	p.Message += " " + e.ContextMsg
	switch begin := e.ContextMark.Line; {
	case tooLate(data, e):
		p.Line = begin
	case begin != p.Line:
		p.Message += fmt.Sprintf(" that begins on line %d", begin)
	}
	return p
}

// tooLate reports whether the place of an error is only where the parser noticed that
// something had not ended: the end of the file, or the next line with anything on it.
func tooLate(data []byte, e *yaml.LoadError) bool {
	line := from(data, yaml.Mark{Line: e.Mark.Line, Column: 1})
	first := len(line) - len(bytes.TrimLeft(line, " "))
	return len(bytes.TrimSpace(from(data, e.Mark))) == 0 || e.Stage == yaml.ScannerStage && e.Mark.Column == 1+first
}

// from returns what follows a place. Its column counts characters: behind others than
// ASCII the result begins early.
func from(data []byte, at yaml.Mark) []byte {
	for range at.Line - 1 {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	return data[min(max(0, at.Column-1), len(data)):]
}
