// Package node is the node half: it keeps the file sets of one node current.
//
// One loop gathers what is known, renders each set and publishes it. Sets fail
// independently, and whatever fails, the last good files stay. The loop does no
// request of its own: the resolver of package identity and the renewer of package
// scrapercert ask the API server beside it, and credentials come from mounted
// Secrets. Package agent calls it.
package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/node/identity"
	"github.com/chandler-k8s/chandler/node/scrapercert"
)

const (
	// tick is the net under lost file events; it makes no API request.
	tick = 30 * time.Second
	// overrun is the age of the last finished pass at which the loop counts as
	// stuck. A pass is local work of milliseconds.
	overrun = 5 * tick
	// firstAnswer is how long the first pass waits for the identity, so that the
	// region is in the first files; with the API server down it is refused at once.
	firstAnswer = 5 * time.Second
)

// Options are what New needs.
type Options struct {
	// Dir is where sets are published.
	Dir *hostfiles.Dir
	// Identity knows the node's facts.
	Identity *identity.Resolver
	// Credentials lists the mounted Secrets; none means no AWS files.
	Credentials []Credential
	// Scraper keeps the scraper certificate; nil means no set for it.
	Scraper *scrapercert.Renewer
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Node publishes the sets of one node.
type Node struct {
	Options
	metrics *metrics
	hints   chan struct{}
	unused  map[string]string // keys of Secrets that the log has named, by source; the loop's own

	mu     sync.Mutex // guards what follows
	passed time.Time  // when the last pass ended; zero before Run
	good   map[string]bool
	failed map[string]string // the last error of a set, so that the log has it once
}

// New assembles a Node. It does no I/O.
func New(o Options) *Node {
	n := &Node{Options: o, hints: make(chan struct{}, 1), unused: map[string]string{}, good: map[string]bool{}, failed: map[string]string{}}
	n.metrics = newMetrics(o.Metrics, n.sets())
	return n
}

// Previous returns the facts that an earlier run published, nil when there are
// none or when they cannot be read, which the error says.
func Previous(dir *hostfiles.Dir) (identity.Facts, error) {
	files, err := dir.Read(setCluster)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if f.Name == fileIdentity {
			return identity.Decode(f.Data)
		}
	}
	return nil, nil
}

// Run publishes until ctx ends and returns nil then. It returns an error when the
// host directory itself has been deleted: it has to be opened, and as a mount made,
// anew.
func (n *Node) Run(ctx context.Context) error {
	n.inspect()
	group, ctx := errgroup.WithContext(ctx)
	answered := make(chan struct{})
	answer := sync.OnceFunc(func() { close(answered) })
	group.Go(func() error {
		return n.Identity.Run(ctx, func() { answer(); n.hint() })
	})
	if n.Scraper != nil {
		group.Go(func() error { return n.Scraper.Run(ctx, n.hint) })
	}
	group.Go(func() error {
		hostfiles.Follow(ctx, n.sources(), tick, n.hint, func(err error) {
			n.Log.Warn("mounted Secrets are not watched, looking at them now and then", "every", tick, "err", err)
		})
		return nil
	})
	group.Go(func() error { return n.loop(ctx, answered) })
	return group.Wait()
}

// hint asks for a pass soon. Hints that come during a pass become one.
func (n *Node) hint() {
	select {
	case n.hints <- struct{}{}:
	default: // one is waiting already
	}
}

func (n *Node) loop(ctx context.Context, answered <-chan struct{}) error {
	patience := time.NewTimer(firstAnswer)
	defer patience.Stop()
	n.beat()
	select {
	case <-ctx.Done():
		return nil
	case <-answered:
	case <-patience.C:
	}
	for {
		if err := n.pass(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.hints:
		}
	}
}

// pass brings every set up to date, each by itself. It returns an error only when
// no set can ever be published again.
func (n *Node) pass() error {
	facts := n.Identity.Facts()
	n.withdraw()
	if facts.Value(identity.ClusterID) != "" || facts.Value(identity.Region) != "" {
		n.publish(setCluster, func() ([]hostfiles.File, error) { return renderCluster(facts), nil })
	}
	for _, group := range bySet(n.Credentials) {
		n.publish(group[0].Set, func() ([]hostfiles.File, error) { return n.awsFiles(group, facts) })
	}
	n.publishScraper()
	n.beat()
	if !n.Dir.Exists() {
		return errors.New("the host directory has been deleted: it has to be mounted again")
	}
	return nil
}

// publishScraper publishes the certificate in use. While there is none, what an
// earlier run published stays, also when it has expired.
func (n *Node) publishScraper() {
	if n.Scraper == nil {
		return
	}
	files, err := n.Scraper.Files()
	if len(files) > 0 || err != nil {
		n.publish(setScraper, func() ([]hostfiles.File, error) { return files, err })
	}
}

func (n *Node) beat() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.passed = time.Now()
}

// publish renders and publishes one set and handles its error: it is logged when
// it is new, and counted always. Files beside an error are published all the same: the
// error is about a part of them.
func (n *Node) publish(set string, render func() ([]hostfiles.File, error)) {
	files, err := render()
	changed, partly := false, err != nil && len(files) > 0
	if err == nil || partly {
		var failed error
		if changed, failed = n.Dir.Publish(set, files); failed != nil {
			err, partly = failed, false
		}
	}
	if changed {
		n.metrics.published.WithLabelValues(set).Inc()
	}
	isNew := n.note(set, err)
	if err != nil {
		n.metrics.errors.WithLabelValues(set).Inc()
		switch {
		case isNew && partly:
			n.Log.Error("set published in part, the last good profiles stay", "set", set, "err", err)
		case isNew:
			n.Log.Error("set not published, the last good files stay", "set", set, "err", err)
		}
		return
	}
	if isNew || changed {
		n.Log.Info("set published", "set", set, "files", len(files), "changed", changed)
	}
	n.metrics.success.WithLabelValues(set).SetToCurrentTime()
}

// note keeps the outcome for a set and reports whether it is a new one: another
// error than the last, or the end of errors.
func (n *Node) note(set string, err error) bool {
	cause := innermost(err)
	n.mu.Lock()
	defer n.mu.Unlock()
	isNew := n.failed[set] != cause
	n.failed[set] = cause
	if err == nil {
		n.good[set] = true
	}
	return isNew
}

// innermost is the text of what an error wraps at last. What is around it names the
// directory of an attempt, which is another each time.
func innermost(err error) string {
	if err == nil {
		return ""
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err.Error()
}

// inspect finds out which sets are good on disk already.
func (n *Node) inspect() {
	for _, set := range n.sets() {
		files, err := n.Dir.Read(set)
		if err == nil {
			err = Check(set, files)
		}
		if set == setScraper && len(files) > 0 {
			// It may be good and yet not what the configuration asks for.
			err = errors.Join(err, n.Scraper.Resume(files))
		}
		n.mu.Lock()
		n.good[set] = err == nil
		n.mu.Unlock()
	}
}

// withdraw removes the credentials of entries that the configuration no longer
// has, and a scraper certificate that it no longer asks for. What fails is tried
// again at the next pass.
func (n *Node) withdraw() {
	published, err := n.Dir.Sets()
	for _, set := range published {
		if !isAWS(set) && set != setScraper || slices.Contains(n.sets(), set) && !n.obsolete(set) {
			continue
		}
		changed, e := n.Dir.Remove(set)
		if changed && e == nil {
			n.Log.Info("set removed, the configuration no longer has it", "set", set)
		}
		err = errors.Join(err, e)
	}
	if n.note("withdrawn", err) && err != nil {
		n.Log.Error("sets of an earlier configuration not removed", "err", err)
	}
}

// obsolete tells of a certificate with another common name that has expired before
// a new one came.
func (n *Node) obsolete(set string) bool {
	return set == setScraper && n.Scraper.Obsolete()
}

func (n *Node) sets() []string {
	sets := []string{setCluster}
	for _, group := range bySet(n.Credentials) {
		sets = append(sets, group[0].Set)
	}
	if n.Scraper != nil {
		sets = append(sets, setScraper)
	}
	return sets
}

func (n *Node) sources() []string {
	var dirs []string
	for _, c := range n.Credentials {
		dirs = append(dirs, c.Source)
	}
	if n.Scraper != nil {
		dirs = append(dirs, n.Scraper.Trust.Dirs()...)
	}
	return dirs
}

// Ready returns nil once every set has been published, by this run or by an
// earlier one whose files are valid, and otherwise names a set that has not.
func (n *Node) Ready() error {
	if n.Identity.Facts().Value(identity.ClusterID) == "" {
		return errors.New("the cluster ID is not known yet")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, set := range n.sets() {
		if !n.good[set] {
			return fmt.Errorf("set %s has not been published: %s", set, n.cause(set))
		}
	}
	return nil
}

// cause says why a set is not good. The caller holds mu.
func (n *Node) cause(set string) string {
	if cause := n.failed[set]; cause != "" || set != setScraper {
		return cause
	}
	if problem := n.Scraper.Problem(); problem != nil {
		return problem.Error()
	}
	return "the certificate has been requested"
}

// Live returns nil while the loop finishes its passes.
func (n *Node) Live() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if age := time.Since(n.passed); !n.passed.IsZero() && age > overrun {
		return fmt.Errorf("the node loop has not finished a pass for %s", age.Round(time.Second))
	}
	return nil
}

type metrics struct {
	errors, published *prometheus.CounterVec
	success           *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer, sets []string) *metrics {
	m := &metrics{
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chandler_set_errors_total", Help: "Passes that could not publish a set.",
		}, []string{"set"}),
		published: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chandler_set_changes_total", Help: "Times that the files of a set were replaced.",
		}, []string{"set"}),
		success: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "chandler_set_last_success_timestamp_seconds", Help: "When a set was last found or made right.",
		}, []string{"set"}),
	}
	reg.MustRegister(m.errors, m.published, m.success)
	for _, set := range sets {
		m.errors.WithLabelValues(set)
		m.published.WithLabelValues(set)
		m.success.WithLabelValues(set)
	}
	return m
}
