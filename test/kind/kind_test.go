// Package kind tests the scripts for kind as far as that goes without Docker.
package kind

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/debian"
	"github.com/chandler-k8s/chandler/test/expect"
)

// TestShellcheck looks at every script of the repository.
func TestShellcheck(t *testing.T) {
	cache, err := cluster.CacheDir()
	expect.OK(t, err)
	dir := filepath.Join(cache, "shellcheck")
	expect.OK(t, debian.Unpack(t.Context(), dir, t.Output(), "shellcheck", "libgmp10", "libffi8", "libnuma1"))
	libraries, err := filepath.Glob(filepath.Join(dir, "usr", "lib", "*-linux-gnu"))
	expect.OK(t, err)
	command := exec.Command(filepath.Join(dir, "usr", "bin", "shellcheck"), "kind.sh", "../../.ci/run")
	command.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(libraries, ":"))
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, output)
	}
}

func TestClusterConfig(t *testing.T) {
	data, err := os.ReadFile("cluster.yaml")
	expect.OK(t, err)
	var config struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
		Nodes      []struct {
			Role string `json:"role"`
		} `json:"nodes"`
	}
	expect.OK(t, yaml.UnmarshalStrict(data, &config))
	roles := map[string]int{}
	for _, node := range config.Nodes {
		roles[node.Role]++
	}
	if config.Kind != "Cluster" || config.APIVersion != "kind.x-k8s.io/v1alpha4" || roles["control-plane"] != 1 || roles["worker"] != 3 || len(roles) != 2 {
		t.Errorf("got %+v, want one control plane and three workers", config)
	}
}

// TestCommands runs the script with programs that write down how they were called.
func TestCommands(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want []string // parts of the calls, in their order
		code int
	}{
		"up":           {[]string{"up"}, []string{"kind get clusters", "kind create cluster --name c --config", "cluster.yaml --kubeconfig", "--wait 5m"}, 0},
		"down":         {[]string{"down"}, []string{"kind delete cluster --name c"}, 0},
		"load":         {[]string{"load"}, []string{"go build -trimpath -o bin/chandler-kind .", "--name ghcr.io/chandler-k8s/chandler:v0.1.0", "kind load image-archive", "go build -trimpath -o bin/probe-kind ./test/e2e/probe", "--name chandler.test/probe:e2e", "kind load image-archive"}, 0},
		"test, no one": {[]string{"test"}, nil, 1},
		"nothing":      {nil, nil, 2},
		"unknown":      {[]string{"sideways"}, nil, 2},
		"two":          {[]string{"up", "down"}, nil, 2},
	} {
		t.Run(name, func(t *testing.T) {
			calls, code := runScript(t, tt.args)
			if code != tt.code {
				t.Errorf("got exit code %d, want %d", code, tt.code)
			}
			rest := calls
			for _, part := range tt.want {
				_, after, found := strings.Cut(rest, part)
				if !found {
					t.Fatalf("want %q, in this order %q, got calls:\n%s", part, tt.want, calls)
				}
				rest = after
			}
			if len(tt.want) == 0 && calls != "" {
				t.Errorf("got calls, want none:\n%s", calls)
			}
		})
	}
}

// runScript runs a copy of the script, in a tree of its own.
func runScript(t *testing.T, args []string) (calls string, code int) {
	t.Helper()
	dir := t.TempDir()
	place := filepath.Join(dir, "test", "kind")
	expect.OK(t, os.MkdirAll(place, 0o755))
	expect.OK(t, os.MkdirAll(filepath.Join(dir, "tools", "image"), 0o755))
	script, err := os.ReadFile("kind.sh")
	expect.OK(t, err)
	expect.OK(t, os.WriteFile(filepath.Join(place, "kind.sh"), script, 0o755))
	programs, log := filepath.Join(dir, "programs"), filepath.Join(dir, "calls")
	expect.OK(t, os.Mkdir(programs, 0o755))
	for _, program := range []string{"docker", "kind", "kubectl", "go"} {
		expect.OK(t, os.WriteFile(filepath.Join(programs, program), fmt.Appendf(nil, "#!/bin/sh\necho %s \"$@\" >>%s\n", program, log), 0o755))
	}
	command := exec.Command(filepath.Join(place, "kind.sh"), args...)
	command.Env = []string{"PATH=" + programs + ":/usr/bin:/bin", "KIND_CLUSTER=c"}
	output, err := command.CombinedOutput()
	t.Logf("kind.sh %v: %v\n%s", args, err, output)
	written, err := os.ReadFile(log)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(written), command.ProcessState.ExitCode()
}
