// Package agent composes one process out of the parts: configuration, clients,
// the two halves, and the servers. It decides nothing by itself.
//
// A configuration that changes while the process runs starts a new generation of
// everything but the process: the parts of the old one end, then those of the new
// one start. A configuration with problems changes nothing, and one that does not
// start is given up for the one before.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/config"
	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/node"
	"github.com/chandler-k8s/chandler/node/identity"
	"github.com/chandler-k8s/chandler/serving"
)

// Options are the flags of one process.
type Options struct {
	// ConfigFile is the path of the configuration. Its directory is watched.
	ConfigFile string
	// Kubeconfig is a path; empty means in-cluster, then the usual rules.
	Kubeconfig string
	// NodeName is the name of the node that we run on. Run requires it.
	NodeName string
	// PodName and Namespace are those of our pod. Required for leading.
	PodName, Namespace string
	// Version goes into the user agent and the build metric.
	Version string
	// Log is where everything is logged. The caller routes klog there, which is
	// one for the whole process.
	Log *slog.Logger
}

// process is what outlives a change of configuration.
type process struct {
	Options
	kube *rest.Config
	reg  *prometheus.Registry
	// assemble makes the parts of a generation. It starts none.
	assemble func(*config.Config, prometheus.Registerer) (*parts, error)
}

// parts are what one generation runs.
type parts struct {
	work  []func(context.Context) error
	live  []func() error
	ready func() error
	kept  serving.Keeper // nil where there is no host directory
	close func()         // once all work has ended
}

// Run runs the agent until ctx ends and returns nil then. It returns an error
// when it cannot start, or when a part of it fails for good.
func Run(ctx context.Context, o Options) error {
	if o.NodeName == "" {
		return errors.New("the name of the node is not known: set --node-name or $NODE_NAME")
	}
	p := &process{Options: o}
	p.assemble = p.bothHalves
	return p.run(ctx, "agent")
}

// run runs generations of what assemble makes. name goes into the user agent.
func (p *process) run(ctx context.Context, name string) error {
	o := p.Options
	cfg, err := config.Load(o.ConfigFile)
	if err != nil {
		return err
	}
	kube, err := loadKubeconfig(o.Kubeconfig, "chandler/"+o.Version+" ("+name+")")
	if err != nil {
		return err
	}
	p.kube, p.reg = kube, prometheus.NewRegistry()
	registerProcessMetrics(p.reg, o.Version)
	countRequests(kube, p.reg)
	reloads := newReloads(o.ConfigFile, cfg, p.reg, o.Log)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { reloads.run(ctx); return nil })
	group.Go(func() error { return p.generations(ctx, cfg, reloads) })
	return group.Wait()
}

// settling is how long a new configuration may take to show that it does not work:
// an address that is taken, a directory that cannot be made.
const settling = 30 * time.Second

// generations runs one generation after the other until ctx ends. When one does not
// start, the configuration before it is used again; there is none at the start.
func (p *process) generations(ctx context.Context, cfg *config.Config, reloads *reloads) error {
	var before *config.Config
	for ctx.Err() == nil {
		started := time.Now()
		next, err := p.untilReplaced(ctx, cfg, reloads.next)
		switch {
		case err == nil:
			before, cfg = cfg, next
		case before == nil, time.Since(started) > settling, errors.Is(err, leader.ErrOverrun):
			return err
		default:
			reloads.refuse(err)
			before, cfg = nil, before
		}
	}
	return nil
}

// untilReplaced runs one generation until ctx ends, it fails, or another
// configuration comes, which it returns.
func (p *process) untilReplaced(ctx context.Context, cfg *config.Config, next <-chan *config.Config) (*config.Config, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- p.generation(ctx, cfg) }()
	select {
	case err := <-ended:
		return cfg, err
	case cfg = <-next:
		p.Log.Info("configuration changed, restarting the parts")
		stop()
		return cfg, <-ended
	}
}

// generation runs every part with one configuration until ctx ends or one fails.
func (p *process) generation(ctx context.Context, cfg *config.Config) error {
	for _, warning := range cfg.Warnings() {
		p.Log.Warn("configuration", "warning", warning)
	}
	reg := prometheus.NewRegistry()
	parts, err := p.assemble(cfg, reg)
	if err != nil {
		return err
	}
	defer parts.close()
	server, err := p.newServer(cfg, reg, parts)
	if err != nil {
		return err
	}
	return runParts(ctx, parts.work, server.Run)
}

// bothHalves are the node half and, if it may lead, the leader half.
func (p *process) bothHalves(cfg *config.Config, reg prometheus.Registerer) (*parts, error) {
	dir, err := hostfiles.Open(cfg.HostDir)
	if err != nil {
		return nil, fmt.Errorf("open hostDir %s: %w", cfg.HostDir, err)
	}
	half, err := p.newNode(cfg, dir, reg)
	if err != nil {
		closeDir(dir, p.Log)
		return nil, err
	}
	made := &parts{
		work: []func(context.Context) error{half.Run}, live: []func() error{half.Live}, ready: half.Ready,
		kept: keptCA{dir}, close: func() { closeDir(dir, p.Log) },
	}
	if cfg.Leader.Enabled {
		lead, err := p.newLeader(cfg, dir, reg)
		if err != nil {
			made.close()
			return nil, err
		}
		made.work, made.live = append(made.work, lead.Run), append(made.live, lead.Check)
	}
	return made, nil
}

// all is one check that joins the errors of several.
func all(checks []func() error) func() error {
	return func() error {
		var errs []error
		for _, check := range checks {
			errs = append(errs, check())
		}
		return errors.Join(errs...)
	}
}

// runParts runs the parts until ctx ends or one fails. The last, the server, ends
// last, so that health and metrics tell of the others' end.
func runParts(ctx context.Context, work []func(context.Context) error, serve func(context.Context) error) error {
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	working, ctx := errgroup.WithContext(ctx)
	served := make(chan error, 1)
	go func() { served <- serve(serving) }()
	for _, part := range work {
		working.Go(func() error { return part(ctx) })
	}
	working.Go(func() error {
		select {
		case err := <-served:
			served <- nil
			return err // it cannot listen: that ends the work too
		case <-ctx.Done():
			return nil
		}
	})
	err := working.Wait()
	stopServing()
	return errors.Join(err, <-served)
}

// newNode assembles the node half.
func (p *process) newNode(cfg *config.Config, dir *hostfiles.Dir, reg prometheus.Registerer) (*node.Node, error) {
	resolver, err := newResolver(identity.Options{
		NodeName: p.NodeName, ClusterID: cfg.Identity.ClusterID, Region: cfg.Identity.Region,
		Previous: node.Inherit(dir, p.NodeName, p.Log), Log: p.Log, Metrics: reg,
	}, p.kube)
	if err != nil {
		return nil, err
	}
	scraper, err := newScraper(cfg.Scraper, p.kube, p.NodeName, p.Log, reg)
	if err != nil {
		return nil, err
	}
	return node.New(node.Options{
		Name: p.name(), Dir: dir, Identity: resolver, Credentials: credentials(cfg), Scraper: scraper, Log: p.Log, Metrics: reg,
	}), nil
}

// name is how other agents on the node hear of this one.
func (p *process) name() string {
	if p.PodName == "" {
		return fmt.Sprintf("process %d on %s", os.Getpid(), p.NodeName)
	}
	return p.Namespace + "/" + p.PodName
}

func credentials(cfg *config.Config) []node.Credential {
	var all []node.Credential
	for _, c := range cfg.AWSCredentials {
		all = append(all, node.Credential{
			Set: c.Set(), Source: c.Source, Profile: c.Profile,
			Mode: fs.FileMode(c.Files.Mode), UID: c.Files.UID, GID: c.Files.GID,
		})
	}
	return all
}
