package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/fakeaws"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

const (
	newLabels = 20
	// settling is how long a leader is left alone before its memory is read.
	settling = 10 * time.Second
	// ecrLife is what tokens of ECR last.
	ecrLife = 12 * time.Hour
)

// scale is the size of one measurement, and how often it is made.
type scale struct{ namespaces, registries, rounds int }

func (sc scale) total() int { return sc.namespaces * sc.registries }

// tokenLife is that of the first tokens. Half of it is time enough to converge,
// settle and then see the renewal come.
func (sc scale) tokenLife() time.Duration {
	return 36*time.Second + time.Duration(sc.total())*16*time.Millisecond
}

// supplied is what one run has shown.
type supplied struct {
	fromStart, fromLeading time.Duration // to the last Secret
	first                  cluster.Requests
	firstCalls             int
	memory                 float64 // mebibytes
	renewed                time.Duration
	renewal                cluster.Requests
	renewalCalls           int
	labels                 []time.Duration
}

func measurePullSecrets(ctx context.Context, binary string) (string, error) {
	scales := []scale{{500, 1, 3}, {500, 5, 3}, {5000, 1, 1}, {5000, 5, 1}, {10000, 1, 1}}
	var measured [][]supplied
	for _, sc := range scales {
		var runs []supplied
		for range sc.rounds {
			run, err := measureSupply(ctx, binary, sc)
			if err != nil {
				return "", fmt.Errorf("%d namespaces, %d registries: %w", sc.namespaces, sc.registries, err)
			}
			progress("%s namespaces × %d: %s from the start, %s from leading, renewal %s, %.1f MiB", thousands(sc.namespaces), sc.registries,
				short(run.fromStart), short(run.fromLeading), short(run.renewed), run.memory)
			runs = append(runs, run)
		}
		measured = append(measured, runs)
	}
	return supplyTable(scales, measured) + requestTable(measured[0][0]) + peerTable(measured[0]), nil
}

func measureSupply(ctx context.Context, binary string, sc scale) (run supplied, err error) {
	aws, err := fakeaws.Listen(fakeaws.Options{TokenLife: sc.tokenLife()})
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, aws.Close()) }()
	err = inWorld(ctx, binary, func(w *world) (err error) {
		s, err := newSupply(ctx, w, sc, aws)
		if err != nil {
			return err
		}
		defer s.secrets.Stop()
		a, err := w.newAgent(ctx, fixtures.EKSNode, leaderOn, aws.Env())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, a.stop()) }()
		for _, part := range []func() error{
			func() error { return s.converge(ctx, a, &run) },
			func() error { return s.renew(ctx, &run) },
			func() error { return s.labelSpares(ctx, &run) },
		} {
			if err := part(); err != nil {
				return err
			}
		}
		return nil
	})
	return run, err
}

// converge starts the leader and waits for all Secrets.
func (s *supply) converge(ctx context.Context, a *agent, run *supplied) error {
	mark, err := s.Mark()
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := a.start(); err != nil {
		return err
	}
	done, err := s.await(ctx, s.total())
	if err != nil {
		return err
	}
	lease, err := s.admin.CoordinationV1().Leases(fixtures.Namespace).Get(ctx, "chandler", metav1.GetOptions{})
	if err != nil {
		return err
	}
	run.fromStart, run.fromLeading = done.Sub(begin), done.Sub(lease.Spec.AcquireTime.Time)
	if err := pause(ctx, settling); err != nil {
		return err
	}
	if run.first, err = s.requests(mark); err != nil {
		return err
	}
	run.memory, err = a.memory()
	return err
}

// renew waits for the renewal of all tokens, which comes by itself.
func (s *supply) renew(ctx context.Context, run *supplied) error {
	issued := s.aws.Issued()
	run.firstCalls, s.spent = len(issued), len(issued)
	s.aws.SetTokenLife(ecrLife)
	if len(issued) != s.registries {
		return fmt.Errorf("%d tokens before the renewal, want one a registry", len(issued))
	}
	mark, err := s.Mark()
	if err != nil {
		return err
	}
	done, err := s.await(ctx, s.total())
	if err != nil {
		return err
	}
	fresh := s.aws.Issued()[s.spent:]
	run.renewalCalls = len(fresh)
	run.renewed = done.Sub(fresh[0].Expires.Add(-ecrLife))
	run.renewal, err = s.requests(mark)
	return err
}

func (s *supply) labelSpares(ctx context.Context, run *supplied) error {
	host := slices.Min(slices.Collect(maps.Keys(s.callers)))
	for i := range newLabels {
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
		took, err := s.label(ctx, i, host)
		if err != nil {
			return err
		}
		run.labels = append(run.labels, took)
	}
	return nil
}

// requests counts those of the leader and its agent since the mark, without the
// Lease's.
func (s *supply) requests(since cluster.Mark) (cluster.Requests, error) {
	counted, err := s.Requests(since)
	return counted.Where(func(r cluster.Request) bool {
		return strings.HasPrefix(r.User, cluster.ServiceAccountUser(fixtures.Namespace, "chandler-")) && r.Resource != "leases"
	}), err
}

// Conditions on requests.
func toPullSecrets(r cluster.Request) bool {
	return r.Resource == "secrets" && strings.HasPrefix(r.Namespace, asking)
}

func byLeader(r cluster.Request) bool {
	return r.User == cluster.ServiceAccountUser(fixtures.Namespace, "chandler-leader")
}

func with(verbs ...string) func(cluster.Request) bool {
	return func(r cluster.Request) bool { return slices.Contains(verbs, r.Verb) }
}

func fromStart(r supplied) time.Duration { return r.fromStart }
func renewed(r supplied) time.Duration   { return r.renewed }

func mostMemory(runs []supplied) float64 {
	return slices.Max(all(runs, func(r supplied) float64 { return r.memory }))
}

// all returns one figure of every run.
func all[T any](runs []supplied, get func(supplied) T) []T {
	var figures []T
	for _, run := range runs {
		figures = append(figures, get(run))
	}
	return figures
}

// each renders one figure of all scales.
func each(name, budget string, scales [][]supplied, cell func([]supplied) string) []string {
	row := []string{name}
	for _, runs := range scales {
		row = append(row, cell(runs))
	}
	return append(row, budget)
}

func supplyTable(scales []scale, runs [][]supplied) string {
	duration := func(get func(supplied) time.Duration) func([]supplied) string {
		return func(runs []supplied) string { return spread(all(runs, get)) }
	}
	count := func(get func(supplied) int) func([]supplied) string {
		return func(runs []supplied) string { return thousands(get(runs[0])) }
	}
	head := []string{"namespaces × registries"}
	for _, sc := range scales {
		head = append(head, fmt.Sprintf("%s × %d", thousands(sc.namespaces), sc.registries))
	}
	reads := with("get", "list", "watch")
	return table([][]string{
		append(head, "budget"),
		each("all Secrets right, from the start of the process", "2.5 s at 500 × 1", runs, duration(fromStart)),
		each("all Secrets right, from leading", "", runs, duration(func(r supplied) time.Duration { return r.fromLeading })),
		each("ECR calls", "1 a registry", runs, count(func(r supplied) int { return r.firstCalls })),
		each("writes of pull secrets", "1 a Secret", runs, count(func(r supplied) int { return r.first.Where(byLeader, toPullSecrets).Total() })),
		each("get and list by the leader's account", "0", runs, count(func(r supplied) int { return r.first.Where(byLeader, with("get", "list")).Total() })),
		each("watches by the leader's account", "", runs, count(func(r supplied) int { return r.first.Where(byLeader, with("watch")).Total() })),
		each("resident memory of the leader after that (VmRSS)", "150 MiB at 10,000", runs, func(runs []supplied) string { return mebibytes(mostMemory(runs)) }),
		each("renewal of all: first new token to last Secret", "", runs, duration(renewed)),
		each("renewal: ECR calls", "1 a registry", runs, count(func(r supplied) int { return r.renewalCalls })),
		each("renewal: writes of pull secrets", "1 a Secret", runs, count(func(r supplied) int { return r.renewal.Where(byLeader, toPullSecrets).Total() })),
		each("renewal: reads by the leader's account", "0", runs, count(func(r supplied) int { return r.renewal.Where(byLeader, reads).Total() })),
		each("new label to its Secret", "100 ms", runs, func(runs []supplied) string {
			var times []time.Duration
			for _, run := range runs {
				times = append(times, run.labels...)
			}
			return spread(times)
		}),
	})
}

// requestTable lists every request of one run.
func requestTable(run supplied) string {
	kind := func(r cluster.Request) string {
		_, account, _ := strings.Cut(r.User, fixtures.Namespace+":")
		where := r.Namespace
		if strings.HasPrefix(where, asking) {
			where = "the labelled namespaces"
		}
		return fmt.Sprintf("%s | %s %s | %s", account, r.Verb, r.Resource+r.Path, where)
	}
	kinds, first, renewal := map[string]bool{}, map[string]int{}, map[string]int{}
	for r, n := range run.first {
		kinds[kind(r)] = true
		first[kind(r)] += n
	}
	for r, n := range run.renewal {
		kinds[kind(r)] = true
		renewal[kind(r)] += n
	}
	rows := [][]string{{"account", "request, 500 × 1, all but the Lease's", "namespace", "first convergence", "renewal"}}
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		rows = append(rows, []string{k, fmt.Sprint(first[k]), fmt.Sprint(renewal[k])})
	}
	return table(rows)
}

// peerTable puts the peers' figures beside ours. Theirs were measured once, on
// another machine of this size, against the same control plane.
func peerTable(runs []supplied) string {
	row := func(what string, requests cluster.Requests, calls int, took func(supplied) time.Duration) []string {
		return []string{
			what, fmt.Sprintf("%s, requests: %s, AWS calls: %d", short(median(all(runs, took))), thousands(requests.Total()), calls),
		}
	}
	run := runs[0]
	return table([][]string{
		{"500 namespaces × 1 registry", "chandler", "eatr (quoted)", "k8s-ecr-login-renew (quoted)"},
		append(row("first convergence", run.first, run.firstCalls, fromStart), "398.9 s, requests: 2,005, AWS calls: 500", "4.8 s, requests: 1,001, AWS calls: 1"),
		append(row("one renewal of all", run.renewal, run.renewalCalls, renewed), "200.4 s, requests: 1,002, AWS calls: 1", "5.2 s, requests: 1,001, AWS calls: 1"),
		{"memory", mebibytes(mostMemory(runs)), "37.6 MB peak, 32.3 MB idle", "36 MB"},
	})
}
