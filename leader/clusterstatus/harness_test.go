package clusterstatus_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/clusterstatus"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fakeaws"
	testterm "github.com/chandler-k8s/chandler/test/term"
)

const (
	home     = "chandler"
	account  = "chandler-leader"
	interval = time.Second
	patient  = time.Minute
)

func TestMain(m *testing.M) { os.Exit(testterm.Main(m)) }

// world is a control plane with the manifests that the task needs.
type world struct {
	*cluster.Cluster
	admin kubernetes.Interface
	aws   *fakeaws.Server
	keys  fakeaws.Keys

	previous time.Time // of the next term
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

// term is a term of the task.
type term struct {
	*testterm.Term
	silent atomic.Bool // the Lease is not renewed

	mu      sync.Mutex
	renewed time.Time // the last time that the API server answered
}

// vouch is leader.Term.Renewed: it asks the API server, as a renewal does.
func (r *term) vouch(ctx context.Context, admin kubernetes.Interface) (time.Time, bool) {
	if r.silent.Load() {
		return time.Time{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	sent := time.Now()
	err := admin.Discovery().RESTClient().Get().AbsPath("/livez/ping").Do(ctx).Error()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.renewed = sent
	}
	return r.renewed, time.Since(r.renewed) < 13*time.Second
}

// run starts a term that publishes metric name, so that tests tell theirs apart.
func (w *world) run(t *testing.T, config *rest.Config, name string, targets []clusterstatus.Target, change ...func(*clusterstatus.Options)) *term {
	t.Helper()
	r, ctx := &term{}, t.Context()
	load := func(ctx context.Context) (aws.Config, error) {
		return awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion("eu-west-1"), awsconfig.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(w.keys.AccessKeyID, w.keys.SecretAccessKey, "")))
	}
	r.Term = testterm.Run(t, config, home, func(about leader.Term) (leader.Task, error) {
		about.Previous = w.previous
		about.Renewed = func() (time.Time, bool) { return r.vouch(ctx, w.admin) }
		about.Wrote = func(time.Time) {}
		counters, err := clusterstatus.NewMetrics(about.Metrics)
		expect.OK(t, err)
		opts := clusterstatus.Options{
			Interval: interval, Metric: clusterstatus.Metric{Namespace: "Test", Name: name}, Targets: targets, AWS: load, Metrics: counters,
		}
		for _, c := range change {
			c(&opts)
		}
		return clusterstatus.New(about, opts)
	})
	t.Cleanup(func() {
		r.Stop()
		if strings.Contains(r.Log.String(), w.keys.SecretAccessKey) {
			t.Error("the AWS secret key is in the log")
		}
		if strings.Contains(r.Log.String(), testterm.FailedSync) {
			t.Error("a Sync failed: a datum that cannot be published is a gap, not an error")
		}
	})
	return r
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

// metric returns the value of a counter or gauge, with a label given as name=value or
// with none.
func (r *term) metric(t *testing.T, name, label string) float64 {
	t.Helper()
	var labels []string
	if label != "" {
		labels = append(labels, label)
	}
	value, found := expect.Metric(t, r.Registry, "chandler_clusterstatus_"+name, labels...)
	if !found {
		t.Errorf("no metric %s of %s", name, label)
	}
	return value
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
		for line := range strings.Lines(r.Log.String()) {
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
