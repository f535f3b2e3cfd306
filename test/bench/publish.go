package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
)

// publishLine is a line of `go test -bench` with the metrics that we report.
var publishLine = regexp.MustCompile(`(?m)^BenchmarkPublish/(changed|unchanged)/sets=(\d+)\S*\s.*?([\d.]+) syscalls/set\s+([\d.]+) µs/set`)

// measurePublish runs the package's own benchmark several times.
func measurePublish(ctx context.Context, _ string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "BenchmarkPublish", "-benchtime", "100x", "-count", "5", "./hostfiles")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	latency, calls, order := map[string][]float64{}, map[string]string{}, []string{}
	for _, m := range publishLine.FindAllStringSubmatch(string(out), -1) {
		key := m[2] + " | " + m[1]
		if latency[key] == nil {
			order = append(order, key)
		}
		micros, err := strconv.ParseFloat(m[4], 64)
		if err != nil {
			return "", err
		}
		latency[key], calls[key] = append(latency[key], micros), m[3]
	}
	if len(order) == 0 {
		return "", fmt.Errorf("no figures in the benchmark's output:\n%s", out)
	}
	rows := [][]string{{"sets", "content", "latency a set, median of 5 × 100", "system calls a set"}}
	for _, key := range order {
		slices.Sort(latency[key])
		rows = append(rows, []string{key, fmt.Sprintf("%.2f ms", latency[key][len(latency[key])/2]/1000), calls[key]})
	}
	return table(rows), nil
}
