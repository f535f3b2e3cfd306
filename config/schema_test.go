package config

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"go.yaml.in/yaml/v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSchemaIsCurrent(t *testing.T) {
	got, err := json.MarshalIndent(generate(t), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "schema.json", append(got, '\n'))
}

// beyondSchema lists the invalid files that a JSON schema cannot tell from valid
// ones, with the reason.
var beyondSchema = map[string]string{
	"aws-sets.yaml":           "it cannot compare entries",
	"partitions.yaml":         "it cannot compare two parts of a host, or a host and a role",
	"leader.yaml":             "it cannot compare durations or parse selectors",
	"scraper-escalation.yaml": "it cannot compare durations, and the names are well formed",
	"serving-address.yaml":    "it checks little more than the digits of a port",
	"serving-ports.yaml":      "it cannot compare two keys",
}

func TestSchemaAgainstFiles(t *testing.T) {
	schema := resolved(t)
	for _, path := range files(t, "testdata/valid/*.yaml") {
		if err := schema.Validate(instance(t, path)); err != nil {
			t.Errorf("%s: got %v, want the schema to accept it", path, err)
		}
	}
	refused := map[string]bool{}
	for _, path := range files(t, "testdata/invalid/*.yaml") {
		refused[filepath.Base(path)] = schema.Validate(instance(t, path)) != nil
	}
	for name, ok := range refused {
		if reason, beyond := beyondSchema[name]; ok == beyond {
			t.Errorf("%s: refused by the schema: got %t; beyond it: %q", name, ok, reason)
		}
	}
}

// Each bad entry must be refused by itself, not only as one of many in a file.
func TestSchemaAgainstEntries(t *testing.T) {
	schema := resolved(t)
	tests := []struct {
		file string
		list func(root map[string]any) (section map[string]any, key string)
	}{
		{"cluster-status-targets.yaml", func(root map[string]any) (map[string]any, string) {
			return root["leader"].(map[string]any)["clusterStatus"].(map[string]any), "targets"
		}},
		{"file-modes.yaml", func(root map[string]any) (map[string]any, string) { return root, "awsCredentials" }},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			root := instance(t, "testdata/invalid/"+tt.file).(map[string]any)
			section, key := tt.list(root)
			for i, entry := range section[key].([]any) {
				section[key] = []any{entry}
				if schema.Validate(root) == nil {
					t.Errorf("entry %d: got accepted: %v", i, entry)
				}
			}
		})
	}
}

func TestFullFileHasEveryKey(t *testing.T) {
	var have []string
	paths(instance(t, "testdata/valid/full.yaml"), "", &have)
	for path := range descriptions(t) {
		if !slices.Contains(have, path) {
			t.Errorf("testdata/valid/full.yaml lacks %s", path)
		}
	}
}

// paths collects the key paths of a decoded file, lists as [].
func paths(v any, path string, out *[]string) {
	*out = append(*out, path)
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			paths(inner, join(path, key), out)
		}
	case []any:
		for _, inner := range v {
			paths(inner, path+"[]", out)
		}
	}
}

func resolved(t *testing.T) *jsonschema.Resolved {
	t.Helper()
	data, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var schema jsonschema.Schema
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	r, err := schema.Resolve(&jsonschema.ResolveOptions{ValidateDefaults: true})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// instance reads a file as an editor does; one that is not YAML becomes a text.
func instance(t *testing.T, path string) any {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := yaml.Unmarshal(data, &v); err != nil {
		return err.Error()
	}
	data, err = json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	var plain any
	if err := json.Unmarshal(data, &plain); err != nil {
		t.Fatal(err)
	}
	return plain
}

// generate builds the schema from the types, the comments on their fields, the
// defaults and the constraints.
func generate(t *testing.T) *jsonschema.Schema {
	g := generator{docs: descriptions(t), constraints: constraints()}
	s := g.schema(reflect.ValueOf(*Default()), "")
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.ID = "https://chandler.dev/schema/v1alpha1/config.json"
	s.Title = "chandler configuration"
	s.Default = nil
	for path := range g.constraints {
		t.Errorf("a constraint is for %s, which is no key", path)
	}
	return s
}

type generator struct {
	docs        map[string]string
	constraints map[string]func(*jsonschema.Schema) // those not used yet
}

func (g *generator) schema(v reflect.Value, path string) *jsonschema.Schema {
	s := &jsonschema.Schema{Description: g.docs[path]}
	switch {
	case v.Type() == reflect.TypeFor[Ignored]():
		return s
	case v.Type() == reflect.TypeFor[metav1.Duration](), v.Type() == reflect.TypeFor[FileMode](), v.Kind() == reflect.String:
		s.Type = "string"
	case v.Kind() == reflect.Bool:
		s.Type = "boolean"
	case v.CanInt():
		s.Type = "integer"
	case v.Kind() == reflect.Slice:
		s.Type = "array"
		s.Items = g.schema(entry(v.Type().Elem()), path+"[]")
	default:
		g.object(s, v, path)
	}
	if v.Kind() != reflect.Struct || s.Type != "object" {
		s.Default = defaultOf(v)
	}
	if c := g.constraints[path]; c != nil {
		c(s)
		delete(g.constraints, path)
	}
	return s
}

func (g *generator) object(s *jsonschema.Schema, v reflect.Value, path string) {
	s.Type = "object"
	s.Properties = map[string]*jsonschema.Schema{}
	s.AdditionalProperties = &jsonschema.Schema{Not: &jsonschema.Schema{}}
	s.PropertyOrder = keys(v.Type())
	for i, name := range s.PropertyOrder {
		s.Properties[name] = g.schema(v.Field(i), join(path, name))
	}
}

// entry is a new list entry with its own defaults.
func entry(t reflect.Type) reflect.Value {
	p := reflect.New(t)
	if d, ok := p.Interface().(defaulter); ok {
		d.setDefaults()
	}
	return p.Elem()
}

// defaultOf leaves out empty values, which the descriptions explain.
func defaultOf(v reflect.Value) json.RawMessage {
	if v.IsZero() && v.Kind() != reflect.Bool {
		return nil
	}
	value := v.Interface()
	if d, ok := value.(metav1.Duration); ok {
		value = brief(d.Duration)
	}
	data, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return data
}

// descriptions returns the comment of each key by its path, with the keys' names
// in place of the fields'.
func descriptions(t *testing.T) map[string]string {
	t.Helper()
	comments := map[string]string{} // by Type.Field
	for _, name := range files(t, "*.go") {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				fieldComments(spec, comments)
			}
			return true
		})
	}
	out := map[string]string{}
	describe(reflect.TypeFor[Config](), "", comments, out)
	for path, text := range out {
		if text == "" {
			t.Errorf("%s has no comment", path)
		}
	}
	return out
}

func fieldComments(spec *ast.TypeSpec, out map[string]string) {
	st, ok := spec.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, f := range st.Fields.List {
		for _, name := range f.Names {
			out[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
		}
	}
}

func describe(t reflect.Type, path string, comments, out map[string]string) {
	if t.Kind() == reflect.Slice {
		describe(t.Elem(), path+"[]", comments, out)
		return
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[metav1.Duration]() {
		return
	}
	for i, name := range keys(t) {
		f, at := t.Field(i), join(path, name)
		out[at] = inKeys(t, comments[t.Name()+"."+f.Name])
		describe(f.Type, at, comments, out)
	}
}

// inKeys writes the keys' names where a comment names fields.
func inKeys(t reflect.Type, text string) string {
	for i, name := range keys(t) {
		word := regexp.MustCompile(`\b` + t.Field(i).Name + `\b`)
		text = word.ReplaceAllString(text, name)
	}
	for name, value := range map[string]string{"SignerKubernetes": SignerKubernetes, "SignerChandler": SignerChandler} {
		text = strings.ReplaceAll(text, name, value)
	}
	return text
}
