package clusterstatus_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/chandler-k8s/chandler/leader/clusterstatus"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fakeaws"
)

// TestAgainstAPIServer runs the task under the rights of deploy/, with the SDK's
// real client. The subtests share a control plane; the last one stops it.
func TestAgainstAPIServer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane")
	}
	w := newWorld(t)
	for _, test := range []struct {
		name string
		run  func(*world, *testing.T)
	}{
		{"value follows the pods", (*world).testFollows},
		{"kinds, modes and selectors", (*world).testKinds},
		{"jobs", (*world).testJobs},
		{"rights by namespace", (*world).testRights},
		{"AWS fails", (*world).testAWS},
		{"dry run", (*world).testDryRun},
		{"lease not renewed", (*world).testUnvouched},
		{"connection that says nothing", (*world).testSilence},
		{"API server stopped", (*world).testOutage},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(w, t) })
	}
}

func named(kind, namespace, name string, mode clusterstatus.Mode) clusterstatus.Target {
	return clusterstatus.Target{Kind: kind, Namespace: namespace, Name: name, Mode: mode}
}

func series(ratio string) *clusterstatus.Series {
	return &clusterstatus.Series{Kind: "Kind", Namespace: "Namespace", Name: "Name", Ratio: ratio}
}

// dimensions are those of a single target.
func dimensions(kind, namespace, name string, more ...string) map[string]string {
	all := map[string]string{"Kind": kind, "Namespace": namespace, "Name": name}
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return all
}

func (w *world) testFollows(t *testing.T) {
	w.namespace(t, "follows")
	w.workload(t, "Deployment", "follows", "web", "replicas: 3")
	w.setReady(t, "follows", "web", 3)
	mark, err := w.Mark()
	expect.OK(t, err)
	r := w.run(t, w.leader(t), "Follows", []clusterstatus.Target{named("Deployment", "follows", "web", clusterstatus.AllOfThem)},
		func(o *clusterstatus.Options) {
			o.PerTarget = series("Ratio")
			o.Metric.Dimensions = []clusterstatus.Dimension{{Name: "Cluster", Value: "c"}}
		})
	own, single := map[string]string{"Cluster": "c"}, dimensions("Deployment", "follows", "web", "Cluster", "c")
	w.await(t, "Follows", own, 1)
	w.setReady(t, "follows", "web", 2)
	w.await(t, "Follows", own, 0)
	w.await(t, "Follows", single, 0)
	w.await(t, "FollowsRatio", single, 2.0/3)
	r.awaitLog(t, "Deployment follows/web", "too_few_ready", "2 of 3 desired ready")
	w.setReady(t, "follows", "web", 3)
	w.await(t, "Follows", own, 1)
	w.await(t, "FollowsRatio", single, 1)
	r.Stop()

	requests, err := w.Requests(mark)
	expect.OK(t, err)
	got := map[string]int{}
	for request, count := range requests.Where(cluster.User(cluster.ServiceAccountUser(home, account))) {
		got[request.Verb+" "+request.Resource] += count
	}
	if diff := cmp.Diff(got, map[string]int{"watch deployments": 1}); diff != "" {
		t.Errorf("requests of a whole term (-got +want):\n%s", diff)
	}
	calls := map[int]int{}
	for _, d := range w.aws.Data() {
		if strings.HasPrefix(d.Name, "Follows") {
			calls[d.Request]++
		}
	}
	for request, count := range calls {
		if count != 3 {
			t.Errorf("PutMetricData number %d brought %d data, want all 3", request, count)
		}
	}
	// One a tick at most, but for the first. A slow look is stamped a moment after its tick.
	data := w.data("Follows", own)
	if ticks := data[len(data)-1].Timestamp.Sub(data[0].Timestamp) / interval; len(data) > int(ticks)+3 {
		t.Errorf("got %d data in %d ticks", len(data), ticks)
	}
}

func (w *world) testKinds(t *testing.T) {
	w.namespace(t, "kinds")
	expect.OK(t, w.Apply(t.Context(), []byte("apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: none, namespace: kinds}\nspec: {hard: {count/pods: 5}}\n")))
	w.workload(t, "StatefulSet", "kinds", "db", "podManagementPolicy: Parallel\n  replicas: 2")
	w.setReady(t, "kinds", "db", 1)
	w.workload(t, "Deployment", "kinds", "idle", "replicas: 0")
	w.workload(t, "Deployment", "kinds", "web", "replicas: 1")
	w.setReady(t, "kinds", "web", 1)
	w.workload(t, "DaemonSet", "kinds", "nodes", "")
	w.workload(t, "Deployment", "kinds", "quota", "replicas: 9") // two of the nine exist
	front := func(selector string, empty bool) clusterstatus.Target {
		return clusterstatus.Target{Kind: "Deployment", Namespace: "kinds", Selector: selector, Mode: clusterstatus.AtLeastOne, AllowEmpty: empty}
	}
	most := named("StatefulSet", "kinds", "db", clusterstatus.Percentage)
	most.Percentage = 50
	two := named("Deployment", "kinds", "web", clusterstatus.AtLeast)
	two.Count = 2
	for _, test := range []struct {
		metric string
		target clusterstatus.Target
		want   float64
		log    string
	}{
		{"HalfOfStatefulSet", most, 1, "1 of 2 desired ready"},
		{"AllOfStatefulSet", named("StatefulSet", "kinds", "db", clusterstatus.AllOfThem), 0, "too_few_ready"},
		{"Idle", named("Deployment", "kinds", "idle", clusterstatus.AllOfThem), 1, "0 of 0"},
		{"IdleOne", named("Deployment", "kinds", "idle", clusterstatus.AtLeastOne), 0, "none_ready"},
		{"TwoOfOne", two, 0, "too_few_ready"},
		{"NoNodes", named("DaemonSet", "kinds", "nodes", clusterstatus.AllOfThem), 1, "0 of 0"},
		{"Quota", named("Deployment", "kinds", "quota", clusterstatus.AtLeastOne), 0, "pods_missing"},
		{"Missing", named("Deployment", "kinds", "nowhere", clusterstatus.AtLeastOne), 0, "missing"},
		{"NoNamespace", named("Deployment", "no-such", "nowhere", clusterstatus.AtLeastOne), 0, "missing"},
		{"SelectorOfPods", front("app=web", false), 0, "missing"}, // its own labels count, not its pods'
		{"SelectorAll", front("tier=front", false), 0, "of 3 unhealthy"},
		{"SelectorNone", front("tier=back", false), 0, "missing"},
		{"SelectorNoneAllowed", front("tier=back", true), 1, "there is none, as is allowed"},
	} {
		t.Run(test.metric, func(t *testing.T) {
			r := w.run(t, w.leader(t), test.metric, []clusterstatus.Target{test.target})
			w.await(t, test.metric, nil, test.want)
			r.awaitLog(t, test.log)
			r.Stop()
		})
	}
}

func (w *world) testJobs(t *testing.T) {
	w.namespace(t, "jobs")
	expect.OK(t, w.Apply(t.Context(), []byte(`
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, namespace: jobs}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: none}]}}}
`), []byte(`
apiVersion: batch/v1
kind: CronJob
metadata: {name: backup, namespace: jobs}
spec: {suspend: true, schedule: "0 0 * * *", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: none}]}}}}}
`)))
	backup := named("CronJob", "jobs", "backup", clusterstatus.LastRunSucceeded)
	backup.Within = time.Hour
	w.run(t, w.leader(t), "Jobs", []clusterstatus.Target{named("Job", "jobs", "migrate", clusterstatus.LastRunSucceeded), backup},
		func(o *clusterstatus.Options) { o.PerTarget = series("") })
	w.await(t, "Jobs", dimensions("Job", "jobs", "migrate"), 0)
	w.await(t, "Jobs", dimensions("CronJob", "jobs", "backup"), 0)

	pods, err := w.admin.CoreV1().Pods("jobs").List(t.Context(), metav1.ListOptions{})
	expect.OK(t, err)
	for i := range pods.Items {
		pods.Items[i].Status.Phase = "Succeeded"
		_, err := w.admin.CoreV1().Pods("jobs").UpdateStatus(t.Context(), &pods.Items[i], metav1.UpdateOptions{})
		expect.OK(t, err)
	}
	w.await(t, "Jobs", dimensions("Job", "jobs", "migrate"), 1)
	w.await(t, "Jobs", nil, 0)
	ran := func(scheduled, succeeded time.Duration) {
		t.Helper()
		patch := fmt.Sprintf(`{"status":{"lastScheduleTime":%q,"lastSuccessfulTime":%q}}`,
			time.Now().Add(-scheduled).UTC().Format(time.RFC3339), time.Now().Add(-succeeded).UTC().Format(time.RFC3339))
		_, err := w.admin.BatchV1().CronJobs("jobs").Patch(t.Context(), "backup", types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
		expect.OK(t, err)
	}
	ran(2*time.Minute, time.Minute)
	w.await(t, "Jobs", nil, 1)
	ran(time.Minute, 2*time.Minute) // the last one failed
	w.await(t, "Jobs", nil, 0)
	ran(3*time.Hour, 2*time.Hour) // and here it is too long ago
	w.await(t, "Jobs", dimensions("CronJob", "jobs", "backup"), 0)
}

// testRights narrows the leader's rights to one namespace, as an administrator may.
func (w *world) testRights(t *testing.T) {
	for _, namespace := range []string{"open", "closed"} {
		w.namespace(t, namespace)
		w.workload(t, "Deployment", namespace, "web", "replicas: 1")
		w.setReady(t, namespace, "web", 1)
	}
	binding, err := w.admin.RbacV1().ClusterRoleBindings().Get(t.Context(), "chandler-leader-clusterstatus", metav1.GetOptions{})
	expect.OK(t, err)
	expect.OK(t, w.admin.RbacV1().ClusterRoleBindings().Delete(t.Context(), binding.Name, metav1.DeleteOptions{}))
	expect.OK(t, w.Apply(t.Context(), []byte(`
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: web, namespace: open}
rules:
- {apiGroups: [apps], resources: [deployments], resourceNames: [web], verbs: [list, watch]}
`), []byte(`
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: web, namespace: open}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: web}
subjects: [{kind: ServiceAccount, name: chandler-leader, namespace: chandler}]
`)))
	both := []clusterstatus.Target{
		named("Deployment", "open", "web", clusterstatus.AllOfThem), named("Deployment", "closed", "web", clusterstatus.AllOfThem),
	}
	r := w.run(t, w.leader(t), "Rights", both, func(o *clusterstatus.Options) { o.PerTarget = series("") })
	r.awaitLog(t, "Deployment closed/web", "forbidden")
	w.await(t, "Rights", dimensions("Deployment", "open", "web"), 1)
	w.await(t, "Rights", dimensions("Deployment", "closed", "web"), 0)
	w.await(t, "Rights", nil, 0)
	binding.ResourceVersion = ""
	_, err = w.admin.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{})
	expect.OK(t, err)
	w.await(t, "Rights", nil, 1)
}

// steady starts a term whose one target is healthy and stays so.
func (w *world) steady(t *testing.T, metric string, change ...func(*clusterstatus.Options)) *term {
	t.Helper()
	w.ensureSteady(t)
	return w.run(t, w.leader(t), metric, steadyTarget(), change...)
}

func steadyTarget() []clusterstatus.Target {
	return []clusterstatus.Target{named("Deployment", "steady", "idle", clusterstatus.AllOfThem)}
}

func (w *world) ensureSteady(t *testing.T) {
	t.Helper()
	if _, err := w.admin.CoreV1().Namespaces().Get(t.Context(), "steady", metav1.GetOptions{}); err == nil {
		return
	}
	w.namespace(t, "steady")
	w.workload(t, "Deployment", "steady", "idle", "replicas: 0")
}

func (w *world) testAWS(t *testing.T) {
	r := w.steady(t, "AWS")
	w.await(t, "AWS", nil, 1)
	calls := fakeaws.Call{Service: fakeaws.ServiceCloudWatch}
	for _, test := range []struct {
		kind   fakeaws.Kind
		result string
	}{
		{fakeaws.Throttled, "throttled"}, {fakeaws.AccessDenied, "denied"}, {fakeaws.BadSignature, "denied"},
		{fakeaws.ServerError, "failed"}, {fakeaws.Unreachable, "failed"},
	} {
		puts := r.metric(t, "puts_total", "result="+test.result)
		gaps := r.metric(t, "gaps_total", "reason="+test.result)
		remove := w.aws.Inject(fakeaws.Fault{Calls: calls, Kind: test.kind})
		r.awaitMetric(t, "puts_total", "result="+test.result, puts+1)
		r.awaitMetric(t, "gaps_total", "reason="+test.result, gaps+1)
		remove()
		w.await(t, "AWS", nil, 1)
	}
	r.awaitLog(t, "publish to CloudWatch", "denied", "AccessDenied")
	r.awaitLog(t, "publishing again")
	r.Stop()

	// Within a long tick a transient failure is mended by a retry: no gap.
	w.aws.Inject(fakeaws.Fault{Calls: calls, Kind: fakeaws.ServerError, Times: 4}) // the SDK makes three attempts
	r = w.steady(t, "Retried", func(o *clusterstatus.Options) { o.Interval = time.Hour })
	w.await(t, "Retried", nil, 1)
	if failed, gaps := r.metric(t, "puts_total", "result=failed"), r.metric(t, "gaps_total", "reason=failed"); failed != 1 || gaps != 0 {
		t.Errorf("got %v failed calls and %v gaps, want 1 and 0", failed, gaps)
	}
}

func (w *world) testDryRun(t *testing.T) {
	r := w.steady(t, "DryRun", func(o *clusterstatus.Options) { o.DryRun = true })
	r.awaitLog(t, "dry run, would publish", `"value":1,"data":1`)
	r.awaitMetric(t, "value", "", 1)
	if data := w.data("DryRun", nil); len(data) > 0 {
		t.Errorf("a dry run published %v", data)
	}
}

func (w *world) testUnvouched(t *testing.T) {
	r := w.steady(t, "Unvouched")
	w.await(t, "Unvouched", nil, 1)
	r.silent.Store(true)
	r.awaitMetric(t, "gaps_total", "reason=unvouched", 1)
	count := len(w.data("Unvouched", nil))
	r.awaitMetric(t, "gaps_total", "reason=unvouched", 3)
	if got := len(w.data("Unvouched", nil)); got != count {
		t.Errorf("%d data were published without the Lease", got-count)
	}
	r.silent.Store(false)
	w.await(t, "Unvouched", nil, 1)
}

// testSilence puts a proxy before the API server that one day forwards nothing any
// more, and closes nothing either.
func (w *world) testSilence(t *testing.T) {
	t.Setenv("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "1") // 30 s and 15 s without
	t.Setenv("HTTP2_PING_TIMEOUT_SECONDS", "1")
	w.ensureSteady(t)
	config := w.leader(t)
	p := startProxy(t, strings.TrimPrefix(config.Host, "https://"))
	config.Host = "https://" + p.address
	config.ServerName = "127.0.0.1" // or client-go would reuse a transport made before, with its own timeouts
	r := w.run(t, config, "Silence", steadyTarget())
	w.await(t, "Silence", nil, 1)
	p.frozen.Store(true)
	r.awaitMetric(t, "gaps_total", "reason=unknown", 2)
	count := len(w.data("Silence", nil))
	r.awaitMetric(t, "gaps_total", "reason=unknown", 4)
	if got := len(w.data("Silence", nil)); got != count {
		t.Errorf("%d data were published while nothing was known", got-count)
	}
	r.awaitMetric(t, "targets", "state=unknown", 1)
	p.frozen.Store(false)
	w.await(t, "Silence", nil, 1)
}

// testOutage ends a term as an outage of the API server does, and begins the next once
// it is over, as if it had lasted for an hour.
func (w *world) testOutage(t *testing.T) {
	r := w.steady(t, "Outage")
	w.await(t, "Outage", nil, 1)
	w.StopAPIServer()
	r.awaitMetric(t, "gaps_total", "reason=unvouched", 2)
	count := len(w.data("Outage", nil))
	r.awaitMetric(t, "gaps_total", "reason=unvouched", 4)
	r.Stop()
	expect.OK(t, w.StartAPIServer(t.Context()))
	if got := len(w.data("Outage", nil)); got != count {
		t.Errorf("%d data were published without an API server", got-count)
	}
	r.mu.Lock()
	w.previous = r.renewed.Add(-time.Hour)
	r.mu.Unlock()
	r = w.steady(t, "Outage")
	r.awaitMetric(t, "gaps_total", "reason=unled", 3600)
	w.await(t, "Outage", nil, 1)
}
