package pullsecrets

import (
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// taskWith returns a task that has watched the given namespaces.
func taskWith(t *testing.T, namespaces map[string]map[string]string) *Task {
	t.Helper()
	task := &Task{
		ledger: newLedger(nil, nil), registries: map[string]*registryState{}, secrets: map[pair]secretState{},
	}
	task.namespaces = cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{byHost: task.indexHosts})
	for name, labels := range namespaces {
		err := task.namespaces.Add(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return task
}

// scrape returns what Prometheus would see.
func scrape(registry *prometheus.Registry) string {
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).
		ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return answer.Body.String()
}

func TestMetrics(t *testing.T) {
	outage, former, lapsed, outlived := "2"+irish[1:], "3"+irish[1:], "4"+irish[1:], "5"+irish[1:]
	task := taskWith(t, map[string]map[string]string{
		"team-current":   {irish: "true"},
		"team-waiting":   {irish: "true"},
		"team-foreign":   {irish: "true"},
		"team-outage":    {outage: "true"},
		"team-former":    {former: "true"},
		"team-stale":     {irish: "true"},
		"team-refused":   {lapsed: "true"},
		"team-outlived":  {outlived: "true"},
		"team-declines":  {irish: "false"},
		"team-unlabeled": nil,
	})
	good := &content{expires: time.Unix(4e9, 0), from: &credential{expires: time.Unix(4e9, 0)}}
	bad := &content{expires: time.Unix(1.6e9, 0), from: &credential{expires: time.Unix(1.6e9, 0)}}
	older := &content{expires: time.Unix(3.95e9, 0), from: &credential{expires: time.Unix(3.95e9, 0)}}
	task.registries[irish] = &registryState{current: good}
	task.registries[lapsed] = &registryState{current: good}
	task.registries[outage] = &registryState{current: bad, failing: true}
	task.secrets[pair{"team-current", irish}] = secretState{content: good}
	task.secrets[pair{"team-waiting", irish}] = secretState{}
	task.secrets[pair{"team-stale", irish}] = secretState{content: older}
	task.secrets[pair{"team-refused", lapsed}] = secretState{content: bad}
	task.secrets[pair{"team-foreign", irish}] = secretState{content: good, foreign: time.Now()}
	task.secrets[pair{"team-outage", outage}] = secretState{content: bad}
	task.ledger.book(irish).expires = time.Unix(3.8e9, 0)
	task.ledger.book(former).expires = time.Unix(3.9e9, 0)
	task.secrets[pair{"team-former", former}] = secretState{}
	task.ledger.book(outlived).expires = time.Unix(1.5e9, 0)
	task.secrets[pair{"team-outlived", outlived}] = secretState{}

	registry := prometheus.NewRegistry()
	counters, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	counters.created.Add(7)
	counters.renewals.Inc()
	if err := registry.Register(&collector{task: task}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "metrics.golden")
	got := scrape(registry)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("metrics -want +got:\n%s", diff)
	}
}

func TestRegistriesInMetricsAreBounded(t *testing.T) {
	labels := map[string]string{}
	for i := range maxRegistries + 50 {
		labels[fmt.Sprintf("%012d%s", i, irish[12:])] = "true"
	}
	task := taskWith(t, map[string]map[string]string{"team-a": labels})
	for host := range labels {
		task.ledger.book(host).expires = time.Unix(4e9, 0)
		task.secrets[pair{"team-a", host}] = secretState{}
	}
	last := fmt.Sprintf("%012d%s", maxRegistries+49, irish[12:])
	task.ledger.book(last).expires = time.Unix(3e9, 0)
	got := task.present(time.Now())
	if len(got.expiries) != maxRegistries+1 || got.expiries[otherRegistries] != 3e9 {
		t.Errorf("got %d series, other at %v, want %d and the earliest", len(got.expiries), got.expiries[otherRegistries], maxRegistries+1)
	}
	if got.secrets[stateWaiting] != maxRegistries+50 {
		t.Errorf("got %v waiting, want all", got.secrets[stateWaiting])
	}
}

func TestMetricsAreRegisteredOnce(t *testing.T) {
	registry := prometheus.NewRegistry()
	if _, err := NewMetrics(registry); err != nil {
		t.Fatal(err)
	}
	if _, err := NewMetrics(registry); err == nil {
		t.Error("got no error for a second registration")
	}
}
