package clusterstatus_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/clusterstatus"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fakeaws"
)

const (
	home     = "chandler"
	account  = "chandler-leader"
	interval = time.Second
	patient  = time.Minute
)

// world is a control plane with the manifests that the task needs.
type world struct {
	*cluster.Cluster
	admin kubernetes.Interface
	aws   *fakeaws.Server
	keys  fakeaws.Keys
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Cluster: cluster.ForTest(t, cluster.Options{})}
	w.admin = kubernetes.NewForConfigOrDie(w.Admin())
	for _, file := range []string{"base/00-namespace", "base/serviceaccounts", "base/rbac", "optional/clusterstatus"} {
		expect.OK(t, w.ApplyFiles(t.Context(), filepath.Join("..", "..", "deploy", file+".yaml")))
	}
	var err error
	w.aws, err = fakeaws.Listen(fakeaws.Options{})
	expect.OK(t, err)
	t.Cleanup(func() { expect.OK(t, w.aws.Close()) })
	for name, value := range w.aws.Env() {
		t.Setenv(name, value)
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	w.keys = w.aws.NewKeys("status")
	return w
}

// leader is a configuration with the rights of an elected replica.
func (w *world) leader(t *testing.T) *rest.Config {
	t.Helper()
	config, err := w.AsServiceAccount(t.Context(), home, account)
	expect.OK(t, err)
	config.QPS = -1
	return config
}

func (w *world) namespace(t *testing.T, name string) {
	t.Helper()
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := w.admin.CoreV1().Namespaces().Create(t.Context(), object, metav1.CreateOptions{})
	expect.OK(t, err)
}

const workloadYAML = `
apiVersion: apps/v1
kind: %s
metadata: {name: %s, namespace: %s, labels: {tier: front}}
spec:
  %s
  selector: {matchLabels: {app: %[2]s}}
  template:
    metadata: {labels: {app: %[2]s}}
    spec: {containers: [{name: c, image: none}]}
`

func (w *world) workload(t *testing.T, kind, namespace, name, spec string) {
	t.Helper()
	expect.OK(t, w.Apply(t.Context(), fmt.Appendf(nil, workloadYAML, kind, name, namespace, spec)))
}

// setReady makes that many pods of a workload ready, and the others not, as
// kubelets would, once there are so many.
func (w *world) setReady(t *testing.T, namespace, app string, ready int) {
	t.Helper()
	eventually(t, func() error {
		pods, err := w.admin.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
		if err != nil || len(pods.Items) < ready {
			return fmt.Errorf("%d pods of %s, want %d: %w", len(pods.Items), app, ready, err)
		}
		for i := range pods.Items {
			pod := &pods.Items[i]
			status := corev1.ConditionFalse
			if i < ready {
				status = corev1.ConditionTrue
			}
			pod.Status.Phase = corev1.PodRunning
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
			if _, err := w.admin.CoreV1().Pods(namespace).UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
				return err
			}
		}
		return nil
	})
}

// term runs the task as the leader's runner does.
type term struct {
	world    *world
	registry *prometheus.Registry
	log      *expect.Log
	silent   atomic.Bool // the Lease is not renewed
	stop     func()
}

// run starts a term that publishes metric name, so that tests tell theirs apart.
func (w *world) run(t *testing.T, config *rest.Config, name string, targets []clusterstatus.Target, change ...func(*clusterstatus.Options)) *term {
	t.Helper()
	r := &term{world: w, registry: prometheus.NewRegistry(), log: &expect.Log{}}
	own, err := awsconfig.LoadDefaultConfig(t.Context(), awsconfig.WithRegion("eu-west-1"), awsconfig.WithCredentialsProvider(
		credentials.NewStaticCredentialsProvider(w.keys.AccessKeyID, w.keys.SecretAccessKey, "")))
	expect.OK(t, err)
	counters, err := clusterstatus.NewMetrics(r.registry)
	expect.OK(t, err)
	opts := clusterstatus.Options{
		Interval: interval, Metric: clusterstatus.Metric{Namespace: "Test", Name: name}, Targets: targets, AWS: own, Metrics: counters,
	}
	for _, c := range change {
		c(&opts)
	}
	client, bare := kubernetes.NewForConfigOrDie(config), metadata.NewForConfigOrDie(config)
	task, err := clusterstatus.New(leader.Term{
		Config: config, Client: client, Metadata: bare, Namespace: home, Metrics: r.registry,
		Log: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Renewed: func() (time.Time, bool) {
			if r.silent.Load() {
				return time.Time{}, false
			}
			return time.Now(), true
		},
	}, opts)
	expect.OK(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.work(ctx, t, task, leader.NewInformers(client, bare)) })
	r.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(func() {
		r.stop()
		if strings.Contains(r.log.String(), w.keys.SecretAccessKey) {
			t.Error("the AWS secret key is in the log")
		}
		if t.Failed() {
			t.Logf("log of the task:\n%s", r.log)
		}
	})
	return r
}

func (r *term) work(ctx context.Context, t *testing.T, task *clusterstatus.Task, in *leader.TermInformers) {
	due := make(chan struct{}, 1)
	if err := task.Watch(in, func(string) { due <- struct{}{} }); err != nil {
		t.Errorf("watch: %v", err)
		return
	}
	in.Start(ctx)
	defer in.Shutdown()
	if missing := in.Wait(ctx); len(missing) > 0 {
		t.Errorf("the task waits for %v", missing)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-due:
		}
		again, err := task.Sync(ctx, "cluster")
		if err != nil || again <= 0 {
			t.Errorf("sync: again %s, %v; want a time and no error", again, err)
			return
		}
		time.AfterFunc(again, func() { due <- struct{}{} })
	}
}

// data returns what CloudWatch has of a metric, and of nothing else.
func (w *world) data(name string, of map[string]string) []fakeaws.Datum {
	var found []fakeaws.Datum
	for _, d := range w.aws.Data() {
		if d.Name == name && fmt.Sprint(d.Dimensions) == fmt.Sprint(of) {
			found = append(found, d)
		}
	}
	return found
}

// await waits until CloudWatch gets a datum of a metric from now on, and for its
// value.
func (w *world) await(t *testing.T, name string, of map[string]string, want float64) {
	t.Helper()
	before := len(w.data(name, of))
	eventually(t, func() error {
		data := w.data(name, of)
		if len(data) == before {
			return fmt.Errorf("no datum of %s %v", name, of)
		}
		if got := data[len(data)-1].Value; got != want {
			return fmt.Errorf("%s %v: got %v, want %v", name, of, got, want)
		}
		return nil
	})
}

// metric returns the value of a counter or gauge.
func (r *term) metric(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := r.registry.Gather()
	expect.OK(t, err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "chandler_clusterstatus_"+name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	t.Errorf("no metric %s of %s", name, label)
	return 0
}

// awaitMetric waits until a metric is at least so much.
func (r *term) awaitMetric(t *testing.T, name, label string, least float64) {
	t.Helper()
	eventually(t, func() error {
		if got := r.metric(t, name, label); got < least {
			return fmt.Errorf("%s %s: got %v, want %v", name, label, got, least)
		}
		return nil
	})
}

func (r *term) awaitLog(t *testing.T, parts ...string) {
	t.Helper()
	eventually(t, func() error {
	lines:
		for line := range strings.Lines(r.log.String()) {
			for _, part := range parts {
				if !strings.Contains(line, part) {
					continue lines
				}
			}
			return nil
		}
		return fmt.Errorf("no line of the log with %q", parts)
	})
}

func eventually(t testing.TB, check func() error) {
	t.Helper()
	expect.Within(t, patient, check)
}
