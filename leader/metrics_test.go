package leader

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestMetrics shows every series as it is before anything has happened.
func TestMetrics(t *testing.T) {
	for _, test := range []struct {
		name  string
		tasks []string
	}{
		{"follower", nil},
		{"leader", []string{"pullsecrets"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			m, err := newMetrics(registry)
			if err != nil {
				t.Fatal(err)
			}
			for _, task := range test.tasks {
				m.task(task)
			}
			answer := httptest.NewRecorder()
			promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).
				ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			path := filepath.Join("testdata", "metrics-"+test.name+".golden")
			if *update {
				if err := os.WriteFile(path, answer.Body.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(answer.Body.String(), string(want)); diff != "" {
				t.Errorf("metrics (-got +want):\n%s", diff)
			}
		})
	}
}

func TestMetricsAreRegisteredOnce(t *testing.T) {
	registry := prometheus.NewRegistry()
	if _, err := newMetrics(registry); err != nil {
		t.Fatal(err)
	}
	if _, err := newMetrics(registry); err == nil {
		t.Error("got nil for a second registration, want an error")
	}
}

func TestTermRegisterer(t *testing.T) {
	registry := prometheus.NewRegistry()
	for range 2 { // terms
		term := &termRegisterer{Registerer: registry}
		term.MustRegister(gauge("expiry", "Of a registry's token."))
		if err := term.Register(gauge("expiry", "Of a registry's token.")); err == nil {
			t.Error("got nil for a duplicate, want an error")
		}
		if got, err := registry.Gather(); len(got) != 1 || err != nil {
			t.Errorf("during the term: got %v and error %v, want one metric", got, err)
		}
		term.clear()
		if got, err := registry.Gather(); len(got) != 0 || err != nil {
			t.Errorf("after the term: got %v and error %v, want none", got, err)
		}
	}
}
