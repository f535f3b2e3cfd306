package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The strict decoder of sigs.k8s.io/yaml stops at the first unknown key and at
// the first wrong type, gives no path for a repeated key, and does not see a
// second document. So the tree is walked here, against the Go types.

// maxValues bounds the walk, because an alias can stand for any number of
// values. A file with 1,000 targets has about 6,000.
const maxValues = 100_000

// parse returns the root of the one document, or nil with the reasons.
func parse(data []byte) (*yaml.Node, problems) {
	var ps problems
	if len(data) > maxBytes {
		ps.addBare("", "the file is longer than %d bytes, the most that a ConfigMap holds", maxBytes)
		return nil, ps
	}
	var root *yaml.Node
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		err := dec.Decode(&doc)
		switch {
		case errors.Is(err, io.EOF) && root == nil:
			ps.addBare("", "the file is empty; it must begin with apiVersion: %s and kind: %s", APIVersion, Kind)
			return nil, ps
		case errors.Is(err, io.EOF):
			return root, ps
		case err != nil:
			return nil, append(ps, notYAML(data, err))
		case isNull(doc.Content[0]):
		case root != nil:
			ps = append(ps, Problem{Line: doc.Content[0].Line, Message: "a second document begins here; want one"})
			return root, ps
		default:
			root = doc.Content[0]
		}
	}
}

// decoder walks a document. It is used once.
type decoder struct {
	found  problems
	lines  map[string]int  // where each key path stands
	failed map[string]bool // key paths whose value could not be decoded
	values int             // how many were seen
}

func newDecoder() *decoder {
	return &decoder{lines: map[string]int{}, failed: map[string]bool{}}
}

// decode sets what the document says and leaves the rest of cfg as it is.
func (d *decoder) decode(root *yaml.Node, cfg *Config) {
	d.lines[""] = root.Line
	d.value(root, reflect.ValueOf(cfg).Elem(), "")
	if d.overflow() {
		d.found = problems{{Message: fmt.Sprintf("the file holds more than %d values, aliases written out", maxValues)}}
	}
}

// overflow reports whether the walk was given up.
func (d *decoder) overflow() bool { return d.values > maxValues }

// fail reports the value n of the key at path.
func (d *decoder) fail(n *yaml.Node, path, message string) {
	p := Problem{Path: path, Message: message}
	if n.Kind == yaml.ScalarNode && !isNull(n) {
		p.Value = quote(n.Value)
	}
	d.found = append(d.found, p)
	d.failed[path] = true
}

// failKey reports a key. Its value is not shown: what stands under a key that is
// not ours may be a secret.
func (d *decoder) failKey(key *yaml.Node, path, message string) {
	d.found = append(d.found, Problem{Line: key.Line, Path: path, Message: message})
	d.values++
}

// line finds where a key stands, or else the nearest key around it.
func (d *decoder) line(path string) int {
	for path != "" && d.lines[path] == 0 {
		path = around(path)
	}
	return d.lines[path]
}

// reported tells whether the value at path, or one around it, could not be
// decoded. It still holds its default then, and needs no second report.
func (d *decoder) reported(path string) bool {
	for path != "" && !d.failed[path] {
		path = around(path)
	}
	return d.failed[path]
}

// join makes one error of what was found, in the order of the file.
func (d *decoder) join(found problems) error {
	for i, p := range found {
		if p.Line == 0 {
			found[i].Line = d.line(p.Path)
		}
	}
	slices.SortStableFunc(found, func(a, b Problem) int { return a.Line - b.Line })
	errs := make([]error, len(found))
	for i, p := range found {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// around is the path of the section or list that a key is in.
func around(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// defaulter is an entry of a list whose keys have defaults of their own.
type defaulter interface{ setDefaults() }

// value decodes n into out. A key without a value leaves out as it is.
func (d *decoder) value(n *yaml.Node, out reflect.Value, path string) {
	if d.values++; d.overflow() {
		return
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case isNull(n):
	case out.Type() == reflect.TypeFor[Ignored]():
		out.SetBool(true)
	case out.Kind() == reflect.Struct && !isText(out):
		d.mapping(n, out, path)
	case out.Kind() == reflect.Slice:
		d.list(n, out, path)
	default:
		d.scalar(n, out, path)
	}
}

func (d *decoder) mapping(n *yaml.Node, out reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "want keys and values")
		return
	}
	known := keys(out.Type())
	first := map[string]int{} // the line where each key stands
	for i := 0; i+1 < len(n.Content) && !d.overflow(); i += 2 {
		key := n.Content[i]
		name := key.Value
		at := join(path, name)
		switch index := slices.Index(known, name); {
		case key.Kind != yaml.ScalarNode:
			d.failKey(key, join(path, "?"), "want plain words as keys")
		case key.ShortTag() == "!!merge":
			d.failKey(key, at, "merge keys are not supported; write the keys out")
		case first[name] > 0:
			d.failKey(key, at, fmt.Sprintf("is given twice, first on line %d; keep one", first[name]))
		case index < 0:
			d.failKey(key, at, "unknown key; "+suggestion(name, known))
		default:
			d.lines[at] = key.Line
			d.value(n.Content[i+1], out.Field(index), at)
		}
		if first[name] == 0 {
			first[name] = key.Line
		}
	}
}

func (d *decoder) list(n *yaml.Node, out reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.fail(n, path, "want a list")
		return
	}
	elements := reflect.MakeSlice(out.Type(), 0, 0)
	for i, entry := range n.Content {
		if d.overflow() {
			return
		}
		at := fmt.Sprintf("%s[%d]", path, i)
		d.lines[at] = entry.Line
		element := reflect.New(out.Type().Elem())
		if e, ok := element.Interface().(defaulter); ok {
			e.setDefaults()
		}
		if isNull(entry) {
			d.fail(entry, at, "is empty; remove the entry or fill it in")
		}
		d.value(entry, element.Elem(), at)
		elements = reflect.Append(elements, element.Elem())
	}
	out.Set(elements)
}

// scalar decodes one plain value. Its type must be the wanted one as written:
// 0440 and "0440" differ, and so do 5 and "5".
func (d *decoder) scalar(n *yaml.Node, out reflect.Value, path string) {
	tag, want := "!!str", "want text in quotes"
	switch {
	case out.Type() == reflect.TypeFor[metav1.Duration]():
		want = `want a duration such as "90s", "15m" or "720h"`
	case out.Type() == reflect.TypeFor[FileMode]():
		want = `want a file mode of three or four octal digits in quotes, such as "0440"`
	case out.Kind() == reflect.Bool:
		tag, want = "!!bool", "want true or false, without quotes"
	case out.CanInt():
		tag, want = "!!int", "want a whole number, without quotes"
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != tag || set(n, out) != nil {
		d.fail(n, path, want)
	}
}

// set converts the value of n. out is left as it is on an error.
func set(n *yaml.Node, out reflect.Value) error {
	target := reflect.New(out.Type())
	var err error
	if u, ok := target.Interface().(json.Unmarshaler); ok {
		var text []byte
		if text, err = json.Marshal(n.Value); err == nil {
			err = u.UnmarshalJSON(text)
		}
	} else {
		err = n.Decode(target.Interface())
	}
	if err == nil {
		out.Set(target.Elem())
	}
	return err
}

// isText reports whether a type has a text form of its own.
func isText(out reflect.Value) bool {
	_, ok := out.Addr().Interface().(json.Unmarshaler)
	return ok
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// keys lists the keys of a section in the order of its fields.
func keys(t reflect.Type) []string {
	out := make([]string, t.NumField())
	for i := range out {
		out[i], _, _ = strings.Cut(t.Field(i).Tag.Get("json"), ",")
	}
	return out
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// join appends a key to a path. A key that could disturb the line is quoted.
func join(path, key string) string {
	if !plainKey.MatchString(key) {
		key = quote(key)
	}
	return strings.TrimPrefix(path+"."+key, ".")
}
