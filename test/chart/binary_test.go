package chart_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/chandler-k8s/chandler/cli"
	agentconfig "github.com/chandler-k8s/chandler/config"
	"github.com/chandler-k8s/chandler/test/expect"
)

// TestBinaryAccepts holds what the manifests say to the program: it takes every
// configuration and command line, and finds what the configuration names.
func TestBinaryAccepts(t *testing.T) {
	for _, m := range variants() {
		t.Run(m.file, func(t *testing.T) {
			all := objects(t, deploy(m.file))
			file := filepath.Join(t.TempDir(), "config.yaml")
			var configMap corev1.ConfigMap
			convert(t, find(t, all, "ConfigMap"), &configMap)
			expect.OK(t, os.WriteFile(file, []byte(configMap.Data["config.yaml"]), 0o600))
			checkConfig(t, file)
			checkPolicies(t, file, m.file)
			cfg, err := agentconfig.Load(file)
			expect.OK(t, err)
			var daemonSet appsv1.DaemonSet
			convert(t, find(t, all, "DaemonSet"), &daemonSet)
			agent := daemonSet.Spec.Template.Spec.Containers[0]
			checkContainer(t, agent, cfg)
			checkMounted(t, agent, sources(cfg)...)
			checkMounted(t, agent, cfg.HostDir)
			if m := mount(agent, cfg.HostDir); m != nil && (m.ReadOnly || m.MountPath != cfg.HostDir) {
				t.Errorf("hostDir %s: got mount %+v, want it writable and of that directory", cfg.HostDir, m)
			}
			if cfg.Leader.Enabled {
				return
			}
			var deployment appsv1.Deployment
			convert(t, find(t, all, "Deployment"), &deployment)
			checkContainer(t, deployment.Spec.Template.Spec.Containers[0], cfg)
			checkMounted(t, deployment.Spec.Template.Spec.Containers[0], serving(cfg)...)
		})
	}
}

func find(t *testing.T, all []*unstructured.Unstructured, kind string) *unstructured.Unstructured {
	t.Helper()
	i := slices.IndexFunc(all, func(o *unstructured.Unstructured) bool { return o.GetKind() == kind })
	if i < 0 {
		t.Fatalf("the manifest has no %s", kind)
	}
	return all[i]
}

func convert(t *testing.T, object *unstructured.Unstructured, into any) {
	t.Helper()
	expect.OK(t, runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, into, true))
}

// checkConfig wants `chandler check` to find it valid, without warnings.
func checkConfig(t *testing.T, file string) {
	t.Helper()
	var out bytes.Buffer
	err := cli.Run(t.Context(), []string{"check", "--config", file}, os.Getenv, &out, &out)
	want := file + ": valid\n"
	if err != nil || !strings.HasSuffix(out.String(), want) || strings.Contains(out.String(), "warning:") {
		t.Errorf("chandler check: got %q and error %v, want %q", out.String(), err, want)
	}
}

// checkPolicies wants the policies of the configuration in the manifest.
func checkPolicies(t *testing.T, file, manifest string) {
	t.Helper()
	var out bytes.Buffer
	expect.OK(t, cli.Run(t.Context(), []string{"policy", "--config", file}, os.Getenv, &out, &out))
	text, err := os.ReadFile(deploy(manifest))
	expect.OK(t, err)
	for document := range strings.SplitSeq(out.String(), "---\n") {
		if !strings.Contains(string(text), document) {
			t.Errorf("the manifest lacks what chandler policy prints for its configuration:\n%s", document)
		}
	}
}

// checkContainer runs the container's command line, with its variables, up to where
// the program reads its configuration.
func checkContainer(t *testing.T, c corev1.Container, cfg *agentconfig.Config) {
	t.Helper()
	getenv := func(name string) string {
		i := slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == name })
		switch {
		case i < 0:
			return ""
		case name == "MEMORY_LIMIT":
			return c.Resources.Limits.Memory().String()
		default:
			return "set"
		}
	}
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	var out bytes.Buffer
	if err := cli.Run(t.Context(), c.Args, getenv, &out, &out); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("chandler %s: got %v, want that it finds no configuration", strings.Join(c.Args, " "), err)
	}
	const file = "--config=/etc/chandler/config/config.yaml"
	if !slices.Contains(c.Args, file) || mount(c, path.Dir(file[len("--config="):])) == nil {
		t.Errorf("arguments %q without %s, or that is not mounted", c.Args, file)
	}
	for _, name := range []string{"POD_NAME", "POD_NAMESPACE", "NODE_NAME", "MEMORY_LIMIT"} {
		if getenv(name) == "" {
			t.Errorf("variable %s is not set", name)
		}
	}
	got := map[string]string{}
	for _, p := range c.Ports {
		got[p.Name] = ":" + strconv.Itoa(int(p.ContainerPort))
	}
	if diff := cmp.Diff(map[string]string{"metrics": cfg.Serving.Address, "health": cfg.Serving.HealthAddress}, got); diff != "" {
		t.Errorf("ports (-configuration +container):\n%s", diff)
	}
}

// checkMounted wants each directory to be one that the container mounts, or below.
func checkMounted(t *testing.T, c corev1.Container, directories ...string) {
	t.Helper()
	for _, directory := range directories {
		if mount(c, directory) == nil {
			t.Errorf("container %s mounts nothing at %s, which its configuration names", c.Name, directory)
		}
	}
}

// sources are the directories that the agents read.
func sources(cfg *agentconfig.Config) []string {
	directories := serving(cfg)
	for _, credential := range cfg.AWSCredentials {
		directories = append(directories, credential.Source)
	}
	if cfg.Scraper.CAFile != "" {
		directories = append(directories, path.Dir(cfg.Scraper.CAFile))
	}
	return directories
}

func serving(cfg *agentconfig.Config) []string {
	var directories []string
	for _, file := range []string{cfg.Serving.TLSCertFile, cfg.Serving.ClientCAFile} {
		if file != "" {
			directories = append(directories, path.Dir(file))
		}
	}
	return directories
}

func mount(c corev1.Container, directory string) *corev1.VolumeMount {
	i := slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
		return m.MountPath == directory || strings.HasPrefix(directory, m.MountPath+"/")
	})
	if i < 0 {
		return nil
	}
	return &c.VolumeMounts[i]
}
