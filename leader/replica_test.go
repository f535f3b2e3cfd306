package leader_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/term"
)

const (
	workspace = "work"                  // namespace that the test's task writes to
	childEnv  = "CHANDLER_TEST_REPLICA" // kubeconfig of a replica that this binary runs as
)

// TestMain lets the test binary be a replica of its own, to be killed or frozen.
func TestMain(m *testing.M) {
	if kubeconfig := os.Getenv(childEnv); kubeconfig != "" {
		os.Exit(runChild(kubeconfig, os.Args[1], os.Args[2] == "deaf"))
	}
	os.Exit(term.Main(m))
}

// scribe is a task that writes a ConfigMap named after its replica, 50 times a
// second. A deaf one does not heed the end of its term.
type scribe struct {
	term   leader.Term
	name   string
	deaf   bool
	writes atomic.Int64
}

func (s *scribe) Name() string { return "scribe" }

func (s *scribe) Watch(_ leader.Informers, enqueue func(string)) error {
	enqueue("cluster")
	return nil
}

func (s *scribe) Sync(ctx context.Context, _ string) (time.Duration, error) {
	for s.deaf {
		_ = s.write(context.WithoutCancel(ctx)) // a refusal is what the test waits for
	}
	return 20 * time.Millisecond, s.write(ctx)
}

func (s *scribe) write(ctx context.Context) error {
	maps := s.term.Client.CoreV1().ConfigMaps(workspace)
	wanted := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: s.name},
		Data:       map[string]string{"writes": strconv.FormatInt(s.writes.Add(1), 10)},
	}
	_, err := maps.Update(ctx, wanted, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = maps.Create(ctx, wanted, metav1.CreateOptions{})
	}
	return err
}

func options(config *rest.Config, name string, registry *prometheus.Registry) leader.Options {
	return leader.Options{
		Config:        config,
		Namespace:     namespace,
		Identity:      podName(name),
		NodeName:      nodeName(name),
		LeaseDuration: duration * time.Second,
		Tasks: func(term leader.Term) ([]leader.Task, error) {
			return []leader.Task{&scribe{term: term, name: podName(name)}}, nil
		},
		Log:     slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Metrics: registry,
	}
}

// runChild is main of a replica process. It prints how many writes it refused.
func runChild(kubeconfig, name string, deaf bool) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	registry := prometheus.NewRegistry()
	opts := options(config, name, registry)
	opts.SyncTimeout = time.Hour
	opts.Tasks = func(term leader.Term) ([]leader.Task, error) {
		return []leader.Task{&scribe{term: term, name: podName(name), deaf: deaf}}, nil
	}
	replica, err := leader.New(opts)
	if err == nil {
		err = replica.Run(ctx)
	}
	fmt.Println(metric(registry, "chandler_leader_refused_writes_total"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// child is a replica in a process of its own.
type child struct {
	*exec.Cmd
	out strings.Builder
}

// startChild runs the named agent as a process that ends with the test.
func (w *world) startChild(t *testing.T, name, hearing string) *child {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := cluster.WriteKubeconfig(kubeconfig, w.config(t, name)); err != nil {
		t.Fatal(err)
	}
	c := &child{Cmd: exec.Command(os.Args[0], name, hearing)}
	c.Env = append(os.Environ(), childEnv+"="+kubeconfig)
	c.Stdout, c.Stderr = &c.out, t.Output()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.ProcessState == nil {
			_ = c.Process.Kill() // it may have ended by itself
			_ = c.Wait()         // killed, so never a success
		}
	})
	return c
}

func (c *child) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := c.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// replica is a Leader that runs in this process.
type replica struct {
	*leader.Leader
	registry *prometheus.Registry
	stop     context.CancelFunc
	done     chan struct{}
	err      error // once done is closed
}

// start runs the named agent until the test ends.
func (w *world) start(t *testing.T, name string, adjust ...func(*leader.Options)) *replica {
	t.Helper()
	r := &replica{registry: prometheus.NewRegistry(), done: make(chan struct{})}
	opts := options(w.config(t, name), name, r.registry)
	opts.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	for _, change := range adjust {
		change(&opts)
	}
	var err error
	if r.Leader, err = leader.New(opts); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	go func() {
		defer close(r.done)
		r.err = r.Run(ctx)
	}()
	t.Cleanup(func() { r.end(t) })
	return r
}

// end shuts the replica down. It may be repeated.
func (r *replica) end(t *testing.T) {
	t.Helper()
	r.stop()
	<-r.done
	if r.err != nil {
		t.Errorf("Run: got %v, want nil", r.err)
	}
}

func (r *replica) leads() bool { return metric(r.registry, "chandler_leader") == 1 }

// metric sums the series of a metric, over all labels; -1 if that fails.
func metric(registry *prometheus.Registry, name string) float64 {
	sum, _, err := expect.Sum(registry, name)
	if err != nil {
		return -1
	}
	return sum
}
