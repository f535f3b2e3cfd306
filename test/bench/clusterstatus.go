package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/fakeaws"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

const (
	statusWindow  = time.Minute
	statusChanges = 10
	userHertz     = 100 // of the times in /proc/PID/stat, on every machine that Go runs on
)

// layout says where targets are: so many in each of so many namespaces.
type layout struct{ namespaces, each int }

func (l layout) total() int { return l.namespaces * l.each }

// watched is what one run has shown.
type watched struct {
	first             time.Duration // start of the process to the first datum
	ticks, data, puts int           // in the window
	requests          cluster.Requests
	start             cluster.Requests // until the first datum
	cpu               time.Duration    // in the window
	memory            float64          // mebibytes
	changes           []time.Duration
}

func measureClusterStatus(ctx context.Context, binary string) (string, error) {
	layouts := []layout{{}, {1, 10}, {10, 10}, {100, 10}, {1000, 1}}
	var runs []watched
	for _, l := range layouts {
		run, err := measureStatus(ctx, binary, l)
		if err != nil {
			return "", fmt.Errorf("%d targets: %w", l.total(), err)
		}
		progress("%s targets in %s namespaces: first datum %s, %s CPU in %d ticks, %.1f MiB", thousands(l.total()), thousands(l.namespaces),
			short(run.first), run.cpu, run.ticks, run.memory)
		runs = append(runs, run)
	}
	return statusTable(layouts, runs), nil
}

func measureStatus(ctx context.Context, binary string, l layout) (run watched, err error) {
	aws, err := fakeaws.Listen(fakeaws.Options{})
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, aws.Close()) }()
	err = inWorld(ctx, binary, func(w *world) (err error) {
		if err := w.workloads(ctx, l); err != nil {
			return err
		}
		keys := aws.NewKeys("status")
		env := aws.Env()
		maps.Copy(env, map[string]string{"AWS_ACCESS_KEY_ID": keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY": keys.SecretAccessKey})
		a, err := w.newAgent(ctx, fixtures.EKSNode, l.config(), env)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, a.stop()) }()
		if err := w.settle(ctx, a, aws, l, &run); err != nil {
			return err
		}
		if err := w.window(ctx, a, aws, &run); err != nil {
			return err
		}
		if l.total() == 0 {
			return nil
		}
		return w.change(ctx, aws, &run)
	})
	return run, err
}

// workloads makes Deployments that want no pods, so that all are healthy.
func (w *world) workloads(ctx context.Context, l layout) error {
	if err := w.ApplyFiles(ctx, filepath.Join(fixtures.Root(), "deploy", "optional", "clusterstatus.yaml")); err != nil {
		return err
	}
	failed := make(chan error, l.total()+1)
	workqueue.ParallelizeUntil(ctx, 16, l.namespaces, func(i int) {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("status-", i)}}
		if _, err := w.admin.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
			failed <- err
			return
		}
		for j := range l.each {
			if _, err := w.admin.AppsV1().Deployments(namespace.Name).Create(ctx, bare(fmt.Sprint("web-", j)), metav1.CreateOptions{}); err != nil {
				failed <- err
			}
		}
	})
	if len(failed) > 0 {
		return <-failed
	}
	return ctx.Err()
}

func bare(name string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "none"}}},
			},
		},
	}
}

// config is the leader half with a tick a second.
func (l layout) config() string {
	if l.total() == 0 {
		return "{podLogs: {enabled: false}, pullSecrets: {enabled: false}}"
	}
	var b strings.Builder
	b.WriteString("{podLogs: {enabled: false}, pullSecrets: {enabled: false}, clusterStatus: {enabled: true, seconds: 1, metric: {namespace: Bench, name: Healthy}, targets: [")
	for i := range l.namespaces {
		for j := range l.each {
			fmt.Fprintf(&b, "{kind: Deployment, namespace: status-%d, name: web-%d, mode: AllOfThem}, ", i, j)
		}
	}
	b.WriteString("]}}")
	return b.String()
}

// settle starts the agent and waits until it says that all is well, or, without
// targets, leads.
func (w *world) settle(ctx context.Context, a *agent, aws *fakeaws.Server, l layout, run *watched) error {
	// The controllers have to look at every Deployment before.
	if err := w.observed(ctx); err != nil {
		return err
	}
	mark, err := w.Mark()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := a.start(); err != nil {
		return err
	}
	if l.total() > 0 {
		if err := awaitValue(ctx, aws, 1); err != nil {
			return err
		}
		run.first = time.Since(begin)
	}
	if run.start, err = w.byLeader(mark); err != nil {
		return err
	}
	return pause(ctx, settling)
}

// byLeader counts the requests of the leader's account, without its count of agents.
func (w *world) byLeader(since cluster.Mark) (cluster.Requests, error) {
	all, err := w.Requests(since)
	return all.Where(byLeader, func(r cluster.Request) bool { return r.Resource != "daemonsets" }), err
}

func (w *world) observed(ctx context.Context) error {
	for {
		list, err := w.admin.AppsV1().Deployments("").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		behind := 0
		for i := range list.Items {
			if list.Items[i].Status.ObservedGeneration == 0 {
				behind++
			}
		}
		if behind == 0 {
			return nil
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

// window measures while nothing happens.
func (w *world) window(ctx context.Context, a *agent, aws *fakeaws.Server, run *watched) error {
	mark, err := w.Mark()
	if err != nil {
		return err
	}
	puts, data := aws.Count(fakeaws.Call{Operation: "PutMetricData"}), len(aws.Data())
	cpu, err := a.cpu()
	if err != nil {
		return err
	}
	if err := pause(ctx, statusWindow); err != nil {
		return err
	}
	after, err := a.cpu()
	if err != nil {
		return err
	}
	run.cpu, run.ticks = after-cpu, int(statusWindow/time.Second)
	run.puts, run.data = aws.Count(fakeaws.Call{Operation: "PutMetricData"})-puts, len(aws.Data())-data
	if run.requests, err = w.byLeader(mark); err != nil {
		return err
	}
	run.memory, err = a.memory()
	return err
}

// cpu is the time that the process has used.
func (a *agent) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.process.Process.Pid))
	if err != nil {
		return 0, err
	}
	// Fields 14 and 15; the second is the name in parentheses.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var user, system int
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		return 0, err
	}
	return time.Duration(user+system) * time.Second / userHertz, nil
}

// change makes a target want a pod that never gets ready, and wait for 0; and back.
func (w *world) change(ctx context.Context, aws *fakeaws.Server, run *watched) error {
	for i := range statusChanges {
		if err := pause(ctx, rand.N(time.Second)); err != nil {
			return err
		}
		begin := time.Now()
		patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, 1-i%2)
		if _, err := w.admin.AppsV1().Deployments("status-0").Patch(ctx, "web-0", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return err
		}
		if err := awaitValue(ctx, aws, float64(i%2)); err != nil {
			return err
		}
		run.changes = append(run.changes, time.Since(begin))
	}
	return nil
}

// awaitValue waits until the last datum is so.
func awaitValue(ctx context.Context, aws *fakeaws.Server, want float64) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		data := aws.Data()
		if len(data) > 0 && data[len(data)-1].Value == want {
			return nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("wait for a datum of %v: %w", want, err)
		}
	}
}

func statusTable(layouts []layout, runs []watched) string {
	rows := [][]string{{"targets"}}
	for i, l := range layouts {
		rows[0] = append(rows[0], fmt.Sprintf("%s in %s namespaces", thousands(l.total()), thousands(l.namespaces)))
		if i == 0 {
			rows[0][1] = "switched off"
		}
	}
	for _, row := range []struct {
		name string
		cell func(watched) string
	}{
		{"watches", func(r watched) string { return thousands(r.start.Where(with("watch")).Total()) }},
		{"get and list requests until the first datum", func(r watched) string { return thousands(r.start.Where(with("get", "list")).Total()) }},
		{"start of the process to the first datum", func(r watched) string { return short(r.first) }},
		{"calls of PutMetricData in 60 ticks", func(r watched) string { return thousands(r.puts) }},
		{"data in these", func(r watched) string { return thousands(r.data) }},
		{"requests of the leader's account in 60 ticks", func(r watched) string { return thousands(r.requests.Total()) }},
		{"CPU a tick, the idle leader's included", func(r watched) string {
			return (r.cpu / time.Duration(r.ticks)).Round(10 * time.Microsecond).String()
		}},
		{"resident memory (VmRSS)", func(r watched) string { return mebibytes(r.memory) }},
		{"change of a target to the datum that shows it, a tick a second", func(r watched) string { return spread(r.changes) }},
	} {
		cells := []string{row.name}
		for i, r := range runs {
			if r.first == 0 && i == 0 && !strings.Contains(row.name, "CPU") && !strings.Contains(row.name, "memory") {
				cells = append(cells, "")
				continue
			}
			cells = append(cells, row.cell(r))
		}
		rows = append(rows, cells)
	}
	return table(rows)
}
