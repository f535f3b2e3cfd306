package consumers_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/agent"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
)

// patience bounds every wait, for the sake of slow machines.
const patience = time.Minute

const agentConfig = `apiVersion: chandler.dev/v1alpha1
kind: Config
hostDir: %q
identity: {clusterID: test, region: %s}
awsCredentials:
- {name: default, source: %q, files: {mode: "0440", uid: %d, gid: %d}}
scraper: {enabled: false}
leader: {enabled: false}
serving: {address: "127.0.0.1:0", healthAddress: "127.0.0.1:0"}
`

// supplied is a node on which an agent publishes what a mounted Secret holds.
type supplied struct {
	source string // where the Secret is mounted
	set    string // the directory of the set "aws"
}

// supply starts an agent, which needs no API server for this, and returns when it
// has published.
func supply(t *testing.T, secret map[string]string) supplied {
	t.Helper()
	dir := t.TempDir()
	s := supplied{source: filepath.Join(dir, "secret"), set: filepath.Join(dir, "host", "aws")}
	configFile, kubeconfig := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "kubeconfig")
	expect.OK(t, errors.Join(os.Mkdir(s.source, 0o755), cluster.WriteKubeconfig(kubeconfig, &rest.Config{Host: "https://127.0.0.1:1"}),
		os.WriteFile(configFile, fmt.Appendf(nil, agentConfig, filepath.Join(dir, "host"), region, s.source, os.Getuid(), os.Getgid()), 0o600)))
	s.mount(t, secret)
	var logs expect.Log
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- agent.Run(ctx, agent.Options{
			ConfigFile: configFile, Kubeconfig: kubeconfig, NodeName: "node", Version: "test", Log: slog.New(slog.NewTextHandler(&logs, nil)),
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("agent: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the agent:\n%s", logs.String())
		}
	})
	s.await(t, "config.ini", "region = "+region)
	return s
}

// mount writes the keys of the Secret, each whole at once.
func (s supplied) mount(t *testing.T, secret map[string]string) {
	t.Helper()
	for key, value := range secret {
		path := filepath.Join(s.source, key)
		expect.OK(t, errors.Join(os.WriteFile(path+".new", []byte(value), 0o600), os.Rename(path+".new", path)))
	}
}

// await waits until a file of the set holds the text.
func (s supplied) await(t *testing.T, file, text string) {
	t.Helper()
	expect.Within(t, patience, func() error {
		data, err := os.ReadFile(filepath.Join(s.set, file))
		if err == nil && !strings.Contains(string(data), text) {
			err = fmt.Errorf("%s is without %q", file, text)
		}
		return err
	})
}
