// Command bench is `make bench`: it measures what the design budgets, prints the
// figures as tables, and writes them into docs/performance.md between its markers.
// It asserts nothing.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// section is one part of the page. Its measure returns Markdown tables.
type section struct {
	name    string
	measure func(ctx context.Context, binary string) (string, error)
}

var sections = []section{
	{"publish", measurePublish},
	{"node", measureNode},
	{"election", measureElection},
	{"takeover", measureTakeover},
	{"pullsecrets", measurePullSecrets},
	{"scrape", measureScrape},
	{"connections", measureConnections},
	{"scraper", measureScraper},
	{"csr", measureCSR},
	{"podlogs", measurePodLogs},
	{"clusterstatus", measureClusterStatus},
}

func main() {
	binary := flag.String("binary", "bin/chandler", "the program to measure")
	page := flag.String("write", "", "page to write the figures into")
	only := flag.String("only", "", "sections to measure, comma-separated (default: all)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binary, *page, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary, page, only string) error {
	for _, s := range sections {
		if only != "" && !slices.Contains(strings.Split(only, ","), s.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring: %s\n", s.name)
		tables, err := s.measure(ctx, binary)
		if err != nil {
			return fmt.Errorf("measure %s: %w", s.name, err)
		}
		tables = fmt.Sprintf("Measured %s with %s on %d cores.\n\n%s", time.Now().UTC().Format(time.DateOnly), runtime.Version(), runtime.NumCPU(), tables)
		fmt.Println(tables)
		if page == "" {
			continue
		}
		if err := insert(page, s.name, tables); err != nil {
			return err
		}
	}
	return nil
}

// insert replaces what stands between the markers of a section.
func insert(page, name, tables string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	begin, end := "<!-- bench:"+name+" -->\n", "<!-- /bench:"+name+" -->"
	between := regexp.MustCompile(`(?s)` + regexp.QuoteMeta(begin) + `.*?` + regexp.QuoteMeta(end))
	if !between.Match(text) {
		return fmt.Errorf("%s has no markers for section %s", page, name)
	}
	text = between.ReplaceAllLiteral(text, []byte(begin+tables+end))
	return os.WriteFile(page, text, 0o644)
}

// table renders rows of cells; the first row is the head.
func table(rows [][]string) string {
	var b bytes.Buffer
	for i, row := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(&b, "|%s\n", strings.Repeat("---|", len(row)))
		}
	}
	return b.String() + "\n"
}

// spread gives the median and the range of several runs.
func spread(runs []time.Duration) string {
	slices.Sort(runs)
	if len(runs) == 1 {
		return short(runs[0])
	}
	return fmt.Sprintf("%s (%s to %s, %d runs)", short(median(runs)), short(runs[0]), short(runs[len(runs)-1]), len(runs))
}

func median(runs []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(runs))[len(runs)/2]
}

// short drops digits that mean nothing.
func short(d time.Duration) string {
	if d > 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond).String()
}

func mebibytes(m float64) string { return fmt.Sprintf("%.1f MiB", m) }

// thousands writes a number below a million with a comma.
func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}
