package chart_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/chandler-k8s/chandler/cli"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/prometheus"
)

// TestExamples: the API server takes the examples, the program the command lines that
// they give it, and they run the image that the installation runs.
func TestExamples(t *testing.T) {
	w := newWorld(t)
	expect.OK(t, w.Apply(t.Context(), []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: monitoring}\n")))
	image := "image: " + ours(t, find(t, objects(t, deploy("daemonset.yaml")), "DaemonSet"))[0].Image + "\n"
	for _, name := range []string{"exporter", "prometheus", "kube-rbac-proxy", "cloudwatch-exporter"} {
		t.Run(name, func(t *testing.T) {
			file := deploy("examples", name+".yaml")
			w.apply(t, file)
			for _, object := range objects(t, file) {
				for _, c := range wrapped(t, object) {
					checkCommandLine(t, append(c.Command[1:], c.Args...))
				}
				for _, c := range ours(t, object) {
					if !strings.Contains(image, c.Image) {
						t.Errorf("container %s: got image %s, want %s", c.Name, c.Image, image)
					}
					checkCommandLine(t, c.Args)
				}
			}
		})
	}
}

// ours returns the containers of a workload that run our image.
func ours(t *testing.T, object *unstructured.Unstructured) []corev1.Container {
	t.Helper()
	return containers(t, object, func(c corev1.Container) bool { return strings.Contains(c.Image, "/chandler:") })
}

// wrapped returns those of another image that run our program.
func wrapped(t *testing.T, object *unstructured.Unstructured) []corev1.Container {
	t.Helper()
	return containers(t, object, func(c corev1.Container) bool {
		return len(c.Command) > 0 && filepath.Base(c.Command[0]) == "chandler"
	})
}

func containers(t *testing.T, object *unstructured.Unstructured, wanted func(corev1.Container) bool) (found []corev1.Container) {
	t.Helper()
	template, ok, err := unstructured.NestedMap(object.Object, "spec", "template")
	expect.OK(t, err)
	if !ok {
		return nil
	}
	var pod corev1.PodTemplateSpec
	expect.OK(t, runtime.DefaultUnstructuredConverter.FromUnstructured(template, &pod))
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		if wanted(c) {
			found = append(found, c)
		}
	}
	return found
}

// checkCommandLine lets the program read the arguments, and tells it to do nothing.
func checkCommandLine(t *testing.T, args []string) {
	t.Helper()
	var out bytes.Buffer
	with := slices.Insert(slices.Clone(args), 1, "--help") // ahead of any command
	if err := cli.Run(t.Context(), with, os.Getenv, &out, &out); err != nil || !strings.Contains(out.String(), "Usage:") {
		t.Errorf("chandler %s: got error %v and %q", strings.Join(args, " "), err, out.String())
	}
}

// TestPrometheusReadsItsExample: promtool finds the configuration valid, with those jobs
// that are commented out, too.
func TestPrometheusReadsItsExample(t *testing.T) {
	programs, err := prometheus.Find(t.Context(), t.Output())
	expect.OK(t, err)
	text, _, err := unstructured.NestedString(find(t, objects(t, deploy("examples", "prometheus.yaml")), "ConfigMap").Object, "data", "prometheus.yml")
	expect.OK(t, err)
	whole := strings.NewReplacer("# - ", "- ", "#   ", "  ").Replace(text)
	for _, config := range []string{text, whole} {
		file := filepath.Join(t.TempDir(), "prometheus.yml")
		expect.OK(t, os.WriteFile(file, []byte(config), 0o600))
		// What the files hold is known in a pod alone.
		said, err := exec.CommandContext(t.Context(), programs.Promtool, "check", "config", "--syntax-only", file).CombinedOutput()
		if err != nil {
			t.Errorf("promtool: %v\n%s", err, said)
		}
	}
	if strings.Count(whole, "- job_name:") != 2 {
		t.Errorf("got not both jobs:\n%s", whole)
	}
}
