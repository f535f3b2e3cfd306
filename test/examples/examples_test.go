// Package examples_test holds deploy/examples to the tools that read such files.
package examples_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/chandler-k8s/chandler/test/fixtures"
)

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(fixtures.Root(), "deploy", "examples", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestStaticAuthorization: a rule that leaves something out lets everybody in.
func TestStaticAuthorization(t *testing.T) {
	documents := strings.Split(read(t, "kube-rbac-proxy.yaml"), "\n---\n")
	if len(documents) != 2 {
		t.Fatalf("got %d documents, want 2", len(documents))
	}
	var config corev1.ConfigMap
	var workload appsv1.DaemonSet
	for i, into := range []any{&config, &workload} {
		if err := yaml.UnmarshalStrict([]byte(documents[i]), into); err != nil {
			t.Fatal(err)
		}
	}
	type rule struct {
		User            struct{ Name string }
		ResourceRequest bool
		Verb, Path      string
	}
	var rules struct{ Authorization struct{ Static []rule } }
	if err := yaml.UnmarshalStrict([]byte(config.Data["config.yaml"]), &rules); err != nil {
		t.Fatal(err)
	}
	want := rule{Verb: "get", Path: "/metrics"}
	want.User.Name = fixtures.ScraperCommonName
	if got := rules.Authorization.Static; len(got) != 1 || got[0] != want {
		t.Errorf("got rules %v, want %v alone", got, want)
	}
}

// TestCredentialsAreWaitedFor: an AWS SDK that finds no credentials.ini, or may not read it,
// goes on as the role of the node.
func TestCredentialsAreWaitedFor(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(fixtures.Root(), "deploy", "examples", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	consumers := 0
	for _, file := range files {
		for _, document := range strings.Split(read(t, filepath.Base(file)), "\n---\n") {
			var workload appsv1.DaemonSet // the pod of a Deployment reads alike
			if err := yaml.Unmarshal([]byte(document), &workload); err != nil {
				t.Fatal(err)
			}
			pod := workload.Spec.Template.Spec
			reads := func(c corev1.Container) bool {
				return slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "AWS_SHARED_CREDENTIALS_FILE" })
			}
			waits := func(c corev1.Container) bool {
				return len(c.Args) > 0 && c.Args[0] == "wait" && slices.Contains(c.Args, "--require-credentials") && c.SecurityContext.RunAsUser == nil
			}
			if !slices.ContainsFunc(pod.Containers, reads) {
				continue
			}
			if consumers++; !slices.ContainsFunc(pod.InitContainers, waits) {
				t.Errorf("%s: no init container waits for credentials as the user of the pod", file)
			}
		}
	}
	if consumers == 0 {
		t.Error("no example reads credentials")
	}
}

// TestServiceMonitor holds the two ways of writing the same to each other.
func TestServiceMonitor(t *testing.T) {
	text := read(t, "servicemonitor.yaml")
	for _, document := range strings.Split(text, "\n---\n") {
		var object map[string]any
		if err := yaml.UnmarshalStrict([]byte(document), &object); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"/host/scraper/tls.crt", "/host/scraper/tls.key", "/host/scraper/ca.crt"} {
		if !strings.Contains(text, file) || !strings.Contains(read(t, "prometheus.yaml"), file) {
			t.Errorf("%s is not in both examples", file)
		}
	}
}

// TestConsumersOfAWS: a program that uses a set "aws" has the environment that
// docs/consumers.md asks for, and the group that may read the credentials.
func TestConsumersOfAWS(t *testing.T) {
	want := []corev1.EnvVar{
		{Name: "AWS_CONFIG_FILE", Value: "/host/aws/config.ini"},
		{Name: "AWS_SHARED_CREDENTIALS_FILE", Value: "/host/aws/credentials.ini"},
		{Name: "AWS_EC2_METADATA_DISABLED", Value: "true"},
		{Name: "AWS_SDK_LOAD_CONFIG", Value: "1"},
	}
	files, err := filepath.Glob(filepath.Join(fixtures.Root(), "deploy", "examples", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var consumers int
	for _, file := range files {
		for _, document := range strings.Split(read(t, filepath.Base(file)), "\n---\n") {
			var workload struct {
				Spec struct{ Template corev1.PodTemplateSpec }
			}
			// Of objects of other kinds, the template is what they lack.
			if err := yaml.Unmarshal([]byte(document), &workload); err != nil {
				t.Fatal(err)
			}
			pod := workload.Spec.Template.Spec
			for _, c := range pod.Containers {
				if !usesAWS(t, c) {
					continue
				}
				consumers++
				for _, v := range want {
					if !slices.Contains(c.Env, v) {
						t.Errorf("%s: container %s is without %s=%s", filepath.Base(file), c.Name, v.Name, v.Value)
					}
				}
				if pod.SecurityContext == nil || !slices.Contains(pod.SecurityContext.SupplementalGroups, 65534) {
					t.Errorf("%s: the pod is not in the group of credentials.ini", filepath.Base(file))
				}
			}
		}
	}
	if consumers == 0 {
		t.Error("no example uses the set aws")
	}
}

// usesAWS tells whether a container of another program mentions the set.
func usesAWS(t *testing.T, c corev1.Container) bool {
	t.Helper()
	text, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(text), "/host/aws") && !strings.Contains(c.Image, "/chandler:")
}
