package pullsecrets_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/chandler-k8s/chandler/test/fakeaws"
)

// BenchmarkConvergence measures the task alone, with a real control plane beside
// it: one iteration is one term that finds every namespace labelled and nothing
// written. Run it with -benchtime=1x.
func BenchmarkConvergence(b *testing.B) {
	w := newWorld(b)
	for _, size := range []struct{ namespaces, registries int }{{500, 1}, {500, 5}} {
		b.Run(fmt.Sprintf("%dx%d", size.namespaces, size.registries), func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				converge(b, w.newScene(b), size.namespaces, size.registries)
			}
		})
	}
}

func converge(b *testing.B, s *scene, namespaces, registries int) {
	labels := map[string]string{}
	var hosts []string
	for i := range registries {
		hosts = append(hosts, fmt.Sprintf("%d%s", i+1, host[1:]))
		labels[hosts[i]] = "true"
		s.setKeys(b, hosts[i], s.aws.NewKeys(hosts[i][:12]))
	}
	for i := range namespaces {
		s.addNamespace(b, fmt.Sprintf("team-%d", i), labels)
	}
	all := float64(namespaces * registries)
	s.aws.SetTokenLife(40 * time.Second)
	mark := s.mark(b)
	b.StartTimer()
	start := time.Now()
	r := s.run(b)
	r.wantMetric(b, all, "chandler_pullsecrets_secrets", "state=current")
	b.StopTimer()
	b.ReportMetric(time.Since(start).Seconds(), "s/convergence")
	b.Logf("convergence: %s, %d ECR calls, requests %v", time.Since(start), s.aws.Count(fakeaws.Call{}), s.requests(b, mark))

	late := time.Now()
	s.addNamespace(b, "team-late", labels)
	s.await(b, "team-late", hosts[0], nil)
	b.ReportMetric(float64(time.Since(late).Milliseconds()), "ms/label")

	mark = s.mark(b)
	s.aws.SetTokenLife(time.Hour)
	r.wantMetric(b, float64(registries), "secret_renewals_total")
	start = time.Now()
	r.wantMetric(b, all+float64(registries), "chandler_pullsecrets_secrets", "state=current")
	b.ReportMetric(time.Since(start).Seconds(), "s/renewal")
	b.Logf("renewal: %s, %d ECR calls in all, requests %v", time.Since(start), s.aws.Count(fakeaws.Call{}), s.requests(b, mark))

	r.Stop()
	mark = s.mark(b)
	start = time.Now()
	r = s.run(b)
	r.wantMetric(b, all+float64(registries), "chandler_pullsecrets_secrets", "state=current")
	b.ReportMetric(time.Since(start).Seconds(), "s/takeover")
	b.Logf("takeover: %s, requests %v", time.Since(start), s.requests(b, mark))
	r.Stop()
}
