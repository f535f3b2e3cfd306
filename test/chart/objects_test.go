package chart_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
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

// TestFromVariantToVariant: the commands of docs/install.md delete what the new file no
// longer has, and besides it nothing but what chandler has made itself.
func TestFromVariantToVariant(t *testing.T) {
	have, all := map[string]map[string]bool{}, map[string]bool{}
	for _, m := range variants() {
		have[m.file] = map[string]bool{}
		for _, object := range objects(t, deploy(m.file)) {
			name := strings.ToLower(object.GetNamespace() + "/" + object.GetKind() + "/" + object.GetName())
			have[m.file][name], all[name] = true, true
		}
	}
	leave := documentedDeletions(t)
	for from := range have {
		for to := range have {
			if from == to {
				continue
			}
			want, got := []string{}, []string{}
			for name := range all {
				if have[from][name] && !have[to][name] {
					want = append(want, name)
				}
			}
			for _, deletion := range leave {
				if named(deletion.from, from) && named(deletion.to, to) {
					got = append(got, deletion.names...)
				}
			}
			got = slices.DeleteFunc(got, func(name string) bool { return !all[name] })
			slices.Sort(want)
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("from %s to %s (-what only the old one has +what is deleted):\n%s", from, to, diff)
			}
		}
	}
}

// deletion is what the commands under one comment delete, as namespace/kind/name.
type deletion struct {
	from, to string
	names    []string
}

// named tells whether a comment means the file.
func named(words, file string) bool {
	return words == "any other" || slices.Contains(strings.Split(words, " or "), file)
}

func documentedDeletions(t *testing.T) []deletion {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(fixtures.Root(), "docs", "install.md"))
	expect.OK(t, err)
	_, text, found := bytes.Cut(text, []byte("\nFrom one variant to another: "))
	_, text, opened := bytes.Cut(text, []byte("```sh\n"))
	text, _, closed := bytes.Cut(text, []byte("```\n"))
	if !found || !opened || !closed {
		t.Fatal("docs/install.md has no commands to change the variant")
	}
	comment := regexp.MustCompile(`^# from ([a-z. ]+) to ([a-z. ]+)`)
	command := regexp.MustCompile(`^kubectl (?:-n ([a-z-]+) )?delete (.+)$`)
	var all []deletion
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if words := comment.FindStringSubmatch(line); words != nil {
			all = append(all, deletion{from: words[1], to: words[2]})
		} else if words := command.FindStringSubmatch(line); words != nil && len(all) > 0 {
			for name := range strings.FieldsSeq(words[2]) {
				all[len(all)-1].names = append(all[len(all)-1].names, words[1]+"/"+name)
			}
		} else {
			t.Fatalf("docs/install.md: cannot read %q", line)
		}
	}
	return all
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
