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
	// Name tells this agent from others that publish in Dir, e.g. "chandler/chandler-x7k2p".
	Name string
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
	health map[string]health
}

// New assembles a Node. It does no I/O.
func New(o Options) *Node {
	n := &Node{Options: o, hints: make(chan struct{}, 1), unused: map[string]string{}, health: map[string]health{}}
	n.metrics = newMetrics(o.Metrics, n.sets())
	return n
}

// Run publishes until ctx ends and returns nil then. It returns an error that wraps
// hostfiles.ErrDeleted when the host directory is gone: it has to be opened again, and
// as a mount made again.
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
			n.Log.Warn("cannot watch mounted Secrets and the host directory, polling instead", "every", tick, "err", err)
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
	defer n.beat()
	if err := n.Dir.Check(); errors.Is(err, hostfiles.ErrDeleted) {
		return err
	}
	if !n.own() {
		return nil
	}
	facts := n.Identity.Facts()
	n.withdraw()
	if facts.Value(identity.ClusterID) != "" || facts.Value(identity.Region) != "" {
		n.publish(setCluster, func() ([]hostfiles.File, error) { return renderCluster(facts), nil })
	}
	for _, group := range bySet(n.Credentials) {
		n.publish(group[0].Set, func() ([]hostfiles.File, error) { return n.awsFiles(group, facts) })
	}
	n.publishScraper()
	return nil
}

// publishScraper publishes the certificate in use. While there is none, what an
// earlier run published stays, also when it has expired.
func (n *Node) publishScraper() {
	if n.Scraper == nil {
		return
	}
	files, err := n.Scraper.Files()
	if len(files) == 0 && err == nil {
		return
	}
	n.publish(setScraper, func() ([]hostfiles.File, error) {
		if err != nil {
			return nil, err
		}
		return files, Check(setScraper, files) // the certificate may have expired, and the CA be new
	})
}

// publish renders and publishes one set and handles its error: it is logged when
// it is new, and counted always. Files beside an error are published all the same: the
// error is about a part of them. A set that is right by itself, on a disk that takes
// no change, is no success.
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
		time.AfterFunc(hostfiles.Lull, n.hint) // which removes what was replaced
	}
	if err == nil && !changed {
		err = n.Dir.Check()
	}
	isNew := n.note(set, err)
	if err != nil {
		n.metrics.failed(set)
		switch {
		case isNew && partly:
			n.Log.Error("set published with problems", "set", set, "err", err)
		case isNew:
			n.Log.Error("set not published, the last good files stay", "set", set, "err", err)
		}
		return
	}
	n.metrics.succeeded(set)
	if isNew || changed {
		n.Log.Info("set published", "set", set, "files", len(files), "changed", changed)
	}
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
		n.health[set] = health{good: err == nil}
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
	if n.note(withdrawn, err) && err != nil {
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

// sources are the directories in which a change asks for a pass: the host directory
// for the removal of it or of what is in it, and for another agent's arrival.
func (n *Node) sources() []string {
	dirs := []string{n.Dir.Path()}
	for _, c := range n.Credentials {
		dirs = append(dirs, c.Source)
	}
	if n.Scraper != nil {
		dirs = append(dirs, n.Scraper.Trust.Dirs()...)
	}
	return dirs
}
