// Package chart_test renders deploy/chart with helm and holds the manifests that are
// checked in, and the documentation of its values, to it.
package chart_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// document is one object as helm printed it, with its comments.
type document struct {
	text, template, kind, name string
}

func deploy(path ...string) string {
	return filepath.Join(append([]string{fixtures.Root(), "deploy"}, path...)...)
}

// helm returns the path of the program: what make has built, or else what the go
// command builds and keeps.
var helm = sync.OnceValues(func() (string, error) {
	if built := os.Getenv("CHANDLER_HELM"); built != "" {
		return built, nil
	}
	tool := exec.Command("go", "tool", "-n", "helm")
	tool.Dir = filepath.Join(fixtures.Root(), "tools", "helm")
	tool.Stderr = os.Stderr
	path, err := tool.Output()
	return strings.TrimSpace(string(path)), err
})

// run runs helm and returns what it prints, or an error with what it says.
func run(ctx context.Context, args ...string) ([]byte, error) {
	program, err := helm()
	if err != nil {
		return nil, fmt.Errorf("build helm: %w", err)
	}
	var out, said bytes.Buffer
	command := exec.CommandContext(ctx, program, args...)
	command.Stdout, command.Stderr = &out, &said
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("helm %s: %w\n%s", strings.Join(args, " "), err, said.String())
	}
	return out.Bytes(), nil
}

// template renders the chart, in the order in which its files have the objects.
func template(t *testing.T, args ...string) []document {
	t.Helper()
	args = append([]string{"template", "chandler", deploy("chart"), "--namespace", fixtures.Namespace}, args...)
	out, err := run(t.Context(), args...)
	expect.OK(t, err)
	documents, err := split(string(out))
	expect.OK(t, err)
	files := chartFiles(t)
	slices.SortStableFunc(documents, func(a, b document) int { return cmp.Compare(a.position(files), b.position(files)) })
	return documents
}

func split(out string) ([]document, error) {
	var documents []document
	for text := range strings.SplitSeq("\n"+out, "\n---\n") {
		source, text, _ := strings.Cut(strings.TrimSpace(text), "\n")
		if source == "" {
			continue
		}
		var object struct {
			Kind     string
			Metadata struct{ Name string }
		}
		if err := yaml.Unmarshal([]byte(text), &object); err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
		documents = append(documents, document{
			text: text + "\n", template: strings.TrimPrefix(source, "# Source: chandler/templates/"),
			kind: object.Kind, name: object.Metadata.Name,
		})
	}
	return documents, nil
}

// chartFiles returns all the text from which objects come.
func chartFiles(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(deploy("chart"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	})
	expect.OK(t, err)
	return all.String()
}

// position is where the chart has the object. Helm prints objects by kind.
func (d document) position(files string) int {
	return strings.Index(files, "\nkind: "+d.kind+"\nmetadata:\n  name: "+d.name+"\n")
}

// rank puts what bounds rights before the rights, and those before who has them.
func (d document) rank() int {
	order := []string{
		"Namespace", "ServiceAccount", "ValidatingAdmissionPolicy", "ClusterRole", "SecurityContextConstraints",
		"ConfigMap", "Service", "NetworkPolicy", "ResourceQuota", "DaemonSet", "Deployment",
	}
	kind := strings.TrimSuffix(d.kind, "Binding")
	if kind == "Role" {
		kind = "ClusterRole"
	}
	return slices.Index(order, kind)
}

func byRank(a, b document) int { return cmp.Compare(a.rank(), b.rank()) }

// join writes documents as one manifest.
func join(header string, documents []document) string {
	texts := make([]string, len(documents))
	for i, d := range documents {
		texts[i] = d.text
	}
	return header + strings.Join(texts, "---\n")
}
