package chart_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// TestLabels: everything is found by one label, and what an uninstallation leaves, by
// its command of docs/install.md, is the policy that has to outlive it.
func TestLabels(t *testing.T) {
	for _, m := range append(parts(), variants()...) {
		var kept []string
		for _, object := range objects(t, deploy(m.file)) {
			name := object.GetKind() + "/" + object.GetName()
			if got := object.GetLabels()["app.kubernetes.io/part-of"]; got != "chandler" {
				t.Errorf("%s: %s is part of %q, want chandler", m.file, name, got)
			}
			if _, ok := object.GetLabels()["chandler.dev/keep"]; ok {
				kept = append(kept, name)
			}
		}
		want := []string{"ValidatingAdmissionPolicy/chandler-leader-token", "ValidatingAdmissionPolicyBinding/chandler-leader-token"}
		if diff := cmp.Diff(want, kept); m.template == "" && m.objects == nil && diff != "" {
			t.Errorf("%s keeps (-want +got):\n%s", m.file, diff)
		}
	}
}

// TestAnotherDirectory: with another hostDir the chart changes what docs/install.md says
// is to be changed by hand, which is the directory wherever the DaemonSet has it.
func TestAnotherDirectory(t *testing.T) {
	for _, m := range variants() {
		t.Run(m.file, func(t *testing.T) {
			usual, _, err := unstructured.NestedString(find(t, objects(t, deploy(m.file)), "ConfigMap").Object, "data", "config.yaml")
			expect.OK(t, err)
			file := filepath.Join(t.TempDir(), "config.yaml")
			expect.OK(t, os.WriteFile(file, []byte(usual+"hostDir: /opt/chandler\n"), 0o600))
			args := []string{"--set-file", "config=" + file}
			if m.values != "" {
				args = append(args, "--values", deploy("chart", "values", m.values))
			}
			text, err := os.ReadFile(deploy(m.file))
			expect.OK(t, err)
			for _, d := range template(t, args...) {
				if by := strings.ReplaceAll(string(text), "/var/lib/chandler", "/opt/chandler"); d.kind == "DaemonSet" && !strings.Contains(by, d.text) {
					t.Errorf("the file, edited, has another DaemonSet than:\n%s", d.text)
				}
			}
		})
	}
}

// TestTakenAway: without a value, whichever, the objects are whole, or a message names it.
func TestTakenAway(t *testing.T) {
	text, err := os.ReadFile(deploy("chart", "values.yaml"))
	expect.OK(t, err)
	var values map[string]any
	expect.OK(t, yaml.Unmarshal(text, &values))
	all := []string{
		"template", "chandler", deploy("chart"), "--namespace", fixtures.Namespace, "--values", deploy("chart", "values", "split.yaml"),
		"--set", "openshift.enabled=true,networkPolicy.enabled=true,namespace.create=true",
	}
	for _, key := range keys("", values) {
		t.Run(key, func(t *testing.T) {
			out, err := run(t.Context(), append(slices.Clone(all), "--set", key+"=null")...)
			if err != nil {
				name := key[strings.LastIndex(key, ".")+1:]
				if !strings.Contains(err.Error(), "missing property '"+name+"'") {
					t.Errorf("got %v, want that it names %s", err, name)
				}
				return
			}
			documents, err := split(string(out))
			expect.OK(t, err)
			for _, d := range documents {
				var object any
				expect.OK(t, yaml.Unmarshal([]byte(d.text), &object))
				for _, path := range nulls(d.kind, object) {
					t.Errorf("%s is null", path)
				}
			}
		})
	}
}

// keys lists the paths of values, as --set takes them.
func keys(path string, values map[string]any) []string {
	var all []string
	for key, value := range values {
		at := path + strings.ReplaceAll(key, ".", `\.`)
		all = append(all, at)
		if below, ok := value.(map[string]any); ok {
			all = append(all, keys(at+".", below)...)
		}
	}
	return all
}

// nulls lists the paths at which an object says nothing.
func nulls(path string, value any) []string {
	switch value := value.(type) {
	case nil:
		return []string{path}
	case map[string]any:
		var all []string
		for key, below := range value {
			all = append(all, nulls(path+"."+key, below)...)
		}
		return all
	case []any:
		var all []string
		for i, below := range value {
			all = append(all, nulls(fmt.Sprintf("%s[%d]", path, i), below)...)
		}
		return all
	}
	return nil
}
