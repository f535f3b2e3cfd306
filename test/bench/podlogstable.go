package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/chandler-k8s/chandler/test/cluster"
)

// writing are the verbs of writes.
var writing = []string{"create", "update", "patch", "delete"}

func logTable(small []logRun, large logRun) string {
	scales := [][]logRun{small, {large}}
	row := func(name, budget string, cell func([]logRun) string) []string {
		return []string{name, cell(scales[0]), cell(scales[1]), budget}
	}
	duration := func(get func(logRun) time.Duration) func([]logRun) string {
		return func(runs []logRun) string { return spread(logFigures(runs, get)) }
	}
	count := func(get func(logRun) cluster.Requests, conditions ...func(cluster.Request) bool) func([]logRun) string {
		return func(runs []logRun) string {
			counts := logFigures(runs, func(r logRun) int { return get(r).Where(conditions...).Total() })
			if low, high := slices.Min(counts), slices.Max(counts); low != high {
				return thousands(low) + " to " + thousands(high)
			}
			return thousands(counts[0])
		}
	}
	making := func(r logRun) cluster.Requests { return r.making }
	starting := func(r logRun) cluster.Requests { return r.starting }
	return table([][]string{
		{"workloads × pods, with ServiceAccounts and RoleBindings", "100 × 5", "1,000 × 20", "budget"},
		row("made while a leader leads: all right, from the first creation", "", duration(func(r logRun) time.Duration { return r.made })),
		row("after the last pod was there", "3 s at 100 × 5", duration(func(r logRun) time.Duration { return r.afterPods })),
		row("writes", "320 at 100 × 5", count(making, toLogSpaces, with(writing...))),
		row("reads, watches begun anew included", "0", count(making, noDaemonSet, with("get", "list", "watch"))),
		row("all there, a new leader starts: all right, from the start of the process", "", duration(func(r logRun) time.Duration { return r.restart })),
		row("writes", "", count(starting, toLogSpaces, with(writing...))),
		row("get and list, all namespaces", "0", count(starting, noDaemonSet, with("get", "list"))),
		row("watches", "", count(starting, with("watch"))),
		row("one pod more: from the pod to its Role", "150 ms", func(runs []logRun) string {
			var times []time.Duration
			for _, run := range runs {
				times = append(times, run.scaled...)
			}
			return spread(times)
		}),
		row(fmt.Sprintf("requests of %d such", scaleUps), fmt.Sprint(scaleUps), count(func(r logRun) cluster.Requests { return r.scaling }, noDaemonSet)),
		row("rollout of 100 pods more, all ready at once", "", func(runs []logRun) string {
			if runs[0].rollout == 0 {
				return "not run"
			}
			return duration(func(r logRun) time.Duration { return r.rollout })(runs)
		}),
		row("its requests, for 200 changes", "", func(runs []logRun) string {
			if runs[0].rollout == 0 {
				return "not run"
			}
			return count(func(r logRun) cluster.Requests { return r.rolling }, noDaemonSet)(runs)
		}),
		row("requests in "+quietFor.String()+" of steady state", "0", count(func(r logRun) cluster.Requests { return r.steady }, noDaemonSet)),
		row("resident memory of the leader (VmRSS)", "", func(runs []logRun) string {
			return mebibytes(slices.Max(logFigures(runs, func(r logRun) float64 { return r.memory })))
		}),
		row("the same with pull secrets in 10,000 namespaces besides", "150 MiB", func(runs []logRun) string {
			if runs[0].bothMemory == 0 {
				return "not run"
			}
			return mebibytes(runs[0].bothMemory)
		}),
	})
}

// noDaemonSet leaves out the leader's minutely count of agents, which is no task's.
func noDaemonSet(r cluster.Request) bool {
	return r.Resource != "daemonsets" || r.Namespace != "chandler"
}

func logFigures[T any](runs []logRun, get func(logRun) T) []T {
	var figures []T
	for _, run := range runs {
		figures = append(figures, get(run))
	}
	return figures
}

// logRequests lists every request of the leader's account in one run.
func logRequests(run logRun) string {
	kind := func(r cluster.Request) string {
		where := r.Namespace
		if toLogSpaces(r) {
			where = "the workloads'"
		}
		return fmt.Sprintf("%s %s | %s", r.Verb, r.Resource+r.Path, where)
	}
	kinds := map[string]bool{}
	counts := []map[string]int{}
	for _, requests := range []cluster.Requests{run.making, run.starting, run.scaling, run.rolling} {
		of := map[string]int{}
		for r, n := range requests {
			kinds[kind(r)] = true
			of[kind(r)] += n
		}
		counts = append(counts, of)
	}
	rows := [][]string{{"request of chandler-leader, 100 × 5", "namespace", "made while a leader leads", "a new leader starts", fmt.Sprintf("%d scaled up", scaleUps), "rollout of 100"}}
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		row := []string{k}
		for _, of := range counts {
			row = append(row, fmt.Sprint(of[k]))
		}
		rows = append(rows, row)
	}
	return table(rows)
}

// logPeers puts the peer's figures beside ours. Its were measured once, on another
// machine of this size, against the same control plane.
func logPeers(runs []logRun) string {
	run := runs[0]
	total := func(r cluster.Requests) string {
		r = r.Where(noDaemonSet)
		return fmt.Sprintf("requests: %s, writes: %s", thousands(r.Total()), thousands(r.Where(with(writing...)).Total()))
	}
	var scaled []time.Duration
	for _, r := range runs {
		scaled = append(scaled, r.scaled...)
	}
	var memory []string
	for _, r := range runs {
		memory = append(memory, mebibytes(r.memory))
	}
	return table([][]string{
		{"", "chandler", "podlogreader (quoted)"},
		{"100 Deployments × 5 pods, Roles, ServiceAccounts, RoleBindings", short(median(logFigures(runs, func(r logRun) time.Duration { return r.made }))) + ", " + total(run.making), "395.2 s, requests: 4,502, writes: 1,500"},
		{"one pod more until its Role lists it", short(median(scaled)) + ", requests: 1", "0.25 s, requests: 18, writes: 6"},
		{"memory", strings.Join(memory, ", "), "30 MB"},
	})
}
