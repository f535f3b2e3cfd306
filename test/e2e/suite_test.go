//go:build e2e

// Package e2e looks at a cluster from outside, as users do. It imports no package of
// the product and runs against any KUBECONFIG; cases that need the nodes themselves ask
// for what `cluster env` prints, and are skipped elsewhere.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// patience is for a machine that has other things to do. That a node is lost takes
// the cluster half a minute to notice.
const patience = 3 * time.Minute

// suite is the cluster that the environment names.
type suite struct {
	client kubernetes.Interface
	// roots has each node's / as a directory of this machine. Nil means that the
	// nodes cannot be looked into.
	roots map[string]string
	// control is the command that stops and cuts off nodes.
	control string
}

func newSuite(t *testing.T) *suite {
	t.Helper()
	path := os.Getenv("KUBECONFIG")
	if path == "" {
		t.Fatal("KUBECONFIG is not set: run `make e2e`, or name a cluster's kubeconfig")
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	s := &suite{client: client, control: os.Getenv("CHANDLER_E2E_CLUSTER")}
	for pair := range strings.FieldsSeq(os.Getenv("CHANDLER_E2E_NODES")) {
		name, root, ok := strings.Cut(pair, "=")
		if !ok || !filepath.IsAbs(root) {
			t.Fatalf("CHANDLER_E2E_NODES: %q: want NODE=DIRECTORY", pair)
		}
		if s.roots == nil {
			s.roots = map[string]string{}
		}
		s.roots[name] = root
	}
	return s
}

// needNodes skips the test where nodes cannot be looked into and stopped.
func (s *suite) needNodes(t *testing.T) {
	t.Helper()
	if s.roots == nil || s.control == "" {
		t.Skip("needs the nodes themselves: CHANDLER_E2E_NODES and CHANDLER_E2E_CLUSTER, from `cluster env`")
	}
	if os.Geteuid() != 0 {
		t.Fatal("what is on the nodes belongs to root: run this as root")
	}
}

// cluster runs the command that controls the nodes, and returns what it says.
func (s *suite) cluster(t *testing.T, args ...string) string {
	t.Helper()
	output, err := exec.Command(s.control, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("cluster %s: %v\n%s", strings.Join(args, " "), err, output)
	}
	return string(output)
}

// eventually asks until the answer is nil.
func eventually(t *testing.T, what string, ask func(context.Context) error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	parent := context.WithoutCancel(t.Context()) // cleanups wait as well
	for {
		ctx, cancel := context.WithTimeout(parent, 20*time.Second)
		err := ask(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		<-time.After(200 * time.Millisecond)
	}
}

// file is a condition for eventually: the content of a file of a node.
func (s *suite) file(node, path, want string) func(context.Context) error {
	return func(context.Context) error {
		got, err := os.ReadFile(filepath.Join(s.roots[node], path))
		if err == nil && string(got) != want {
			err = fmt.Errorf("%s of %s: got %q, want %q", path, node, got, want)
		}
		return err
	}
}
