package agent

import (
	"cmp"
	"fmt"
	"io/fs"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/config"
	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/serving"
)

// newServer assembles the endpoints of one generation.
func (p *process) newServer(cfg *config.Config, reg *prometheus.Registry, parts *parts) (*serving.Server, error) {
	clients := serving.Clients{
		CAFile: cfg.Serving.ClientCAFile, Kept: parts.kept, Users: cfg.MetricsUsers(), Groups: cfg.Serving.AllowedGroups,
	}
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(p.kube, "serving"))
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	if cfg.Serving.ClusterClientCA {
		clients.Cluster = client
	}
	if cfg.Serving.Delegation {
		if clients.Delegation, err = p.newReviewer(); err != nil {
			return nil, err
		}
	}
	return serving.New(serving.Options{
		Address: cfg.Serving.Address, HealthAddress: cfg.Serving.HealthAddress,
		TLS:     serving.TLS{CertFile: cfg.Serving.TLSCertFile, KeyFile: cfg.Serving.TLSPrivateKeyFile, NodeName: cmp.Or(p.NodeName, p.PodName)},
		Clients: clients, Gatherer: prometheus.Gatherers{p.reg, reg}, Live: all(parts.live), Ready: parts.ready, Log: p.Log, Metrics: reg,
	}), nil
}

// newReviewer makes the client that tokens are reviewed with. It has no limit: in the
// queue of one, a scraper's token would wait behind unknown ones. Package serving
// refuses those instead.
func (p *process) newReviewer() (kubernetes.Interface, error) {
	cfg := rest.AddUserAgent(p.kube, "serving")
	cfg.QPS = -1
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client for token reviews: %w", err)
	}
	return client, nil
}

// keptCA keeps the CA of clients in a set of its own, which no consumer needs.
type keptCA struct{ dir *hostfiles.Dir }

const (
	keptCASet  = "serving"
	keptCAFile = "client-ca.crt"
)

// Load implements serving.Keeper.
func (k keptCA) Load() ([]byte, error) {
	files, err := k.dir.Read(keptCASet)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if f.Name == keptCAFile {
			return f.Data, nil
		}
	}
	return nil, fmt.Errorf("%s/%s: %w", keptCASet, keptCAFile, fs.ErrNotExist)
}

// Store implements serving.Keeper.
func (k keptCA) Store(bundle []byte) error {
	_, err := k.dir.Publish(keptCASet, []hostfiles.File{{Name: keptCAFile, Mode: 0o644, UID: -1, GID: -1, Data: bundle}})
	return err
}
