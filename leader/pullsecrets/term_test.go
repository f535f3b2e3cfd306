package pullsecrets_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/pullsecrets"
	"github.com/chandler-k8s/chandler/test/expect"
)

// term runs one task as the leader's runner does, with quicker retries.
type term struct {
	scene    *scene
	registry *prometheus.Registry
	log      *expect.Log
	queue    workqueue.TypedInterface[string]
	stop     func() // ends the term; safe to repeat
}

// run starts a term with the given options on top of the usual ones.
func (s *scene) run(t testing.TB, change ...func(*pullsecrets.Options)) *term {
	t.Helper()
	config := s.leader(t)
	return s.runAs(t, config, change...)
}

func (s *scene) runAs(t testing.TB, config *rest.Config, change ...func(*pullsecrets.Options)) *term {
	t.Helper()
	r := &term{scene: s, registry: prometheus.NewRegistry(), log: &expect.Log{}, queue: workqueue.NewTyped[string]()}
	own, err := awsconfig.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	counters, err := pullsecrets.NewMetrics(r.registry)
	if err != nil {
		t.Fatal(err)
	}
	opts := pullsecrets.Options{HostNamespace: keysIn, CredentialsSecretPrefix: prefix, AWS: own, Metrics: counters}
	for _, c := range change {
		c(&opts)
	}
	client := kubernetes.NewForConfigOrDie(config)
	ctx, cancel := context.WithCancel(context.Background())
	log := slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	recorder, stopEvents := leader.NewRecorder(ctx, client.EventsV1(), home, func() {}, log)
	bare := metadata.NewForConfigOrDie(config)
	task, err := pullsecrets.New(leader.Term{
		Config: config, Client: client, Metadata: bare, Namespace: home,
		Events: recorder, Metrics: r.registry, Log: log,
	}, opts)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { r.work(ctx, task, leader.NewInformers(client, bare)) })
	r.stop = sync.OnceFunc(func() {
		r.noLeak(t)
		cancel()
		r.queue.ShutDown()
		running.Wait()
		stopEvents()
	})
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Logf("log of the task:\n%s", r.log)
		}
	})
	return r
}

func (r *term) work(ctx context.Context, task leader.Task, in *leader.TermInformers) {
	if err := task.Watch(in, r.queue.Add); err != nil {
		_, _ = fmt.Fprintln(r.log, "watch:", err)
		return
	}
	in.Start(ctx)
	defer in.Shutdown()
	for len(in.Wait(ctx)) > 0 {
		if ctx.Err() != nil {
			return
		}
	}
	backoff := workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, time.Second)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for {
				key, shutdown := r.queue.Get()
				if shutdown {
					return
				}
				r.sync(ctx, task, key, backoff)
				r.queue.Done(key)
			}
		})
	}
	workers.Wait()
}

func (r *term) sync(ctx context.Context, task leader.Task, key string, backoff workqueue.TypedRateLimiter[string]) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	again, err := task.Sync(ctx, key)
	if err == nil {
		backoff.Forget(key)
	} else {
		_, _ = fmt.Fprintln(r.log, "sync of", key, err)
		again = backoff.When(key)
		if errors.Is(err, leader.ErrPermanent) {
			again = 0
		}
	}
	if again > 0 {
		time.AfterFunc(again, func() { r.queue.Add(key) })
	}
}

// metric returns the sum of a metric's series that carry all the labels given as
// name=value, and whether there are any.
func (r *term) metric(t testing.TB, name string, labels ...string) (float64, bool) {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum, found := 0.0, false
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			has := map[string]bool{}
			for _, label := range metric.GetLabel() {
				has[label.GetName()+"="+label.GetValue()] = true
			}
			if !slices.ContainsFunc(labels, func(l string) bool { return !has[l] }) {
				sum, found = sum+metric.GetGauge().GetValue()+metric.GetCounter().GetValue(), true
			}
		}
	}
	return sum, found
}

func (r *term) wantMetric(t testing.TB, want float64, name string, labels ...string) {
	t.Helper()
	eventually(t, func() error {
		if got, _ := r.metric(t, name, labels...); got != want {
			return fmt.Errorf("metric %s%v: got %v, want %v", name, labels, got, want)
		}
		return nil
	})
}

// noLeak proves that nothing secret reached the log, the metrics or an Event.
func (r *term) noLeak(t testing.TB) {
	t.Helper()
	out := &bytes.Buffer{}
	out.WriteString(r.log.String())
	families, err := r.registry.Gather()
	if err != nil {
		t.Error(err)
	}
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(out, family); err != nil {
			t.Error(err)
		}
	}
	found, err := r.scene.admin.EventsV1().Events("").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	for i := range found.Items {
		out.WriteString(found.Items[i].Note + "\n")
	}
	secrets := []string{r.scene.keys.SecretAccessKey}
	for _, issued := range r.scene.aws.Issued() {
		secrets = append(secrets, issued.Password[:20])
	}
	for _, secret := range secrets {
		if strings.Contains(out.String(), secret) {
			t.Errorf("a secret beginning with %q is shown in logs, metrics or Events", secret[:8])
		}
	}
}
