package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/node/identity"
)

// requestTimeout bounds one request of the node half. The resolver bounds the
// round as well.
const requestTimeout = 10 * time.Second

// loadKubeconfig finds the API server: the named file, else the pod's own
// ServiceAccount, else the usual kubeconfig rules.
func loadKubeconfig(path, userAgent string) (*rest.Config, error) {
	cfg, err := kubeconfig(path)
	if err != nil {
		return nil, fmt.Errorf("load kubeconfig: %w", err)
	}
	if err := bypassProxy(cfg); err != nil {
		return nil, fmt.Errorf("load kubeconfig: %w", err)
	}
	cfg.UserAgent = userAgent
	return cfg, nil
}

func kubeconfig(path string) (*rest.Config, error) {
	if path == "" {
		cfg, err := rest.InClusterConfig()
		if !errors.Is(err, rest.ErrNotInCluster) {
			return cfg, err
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
}

// newResolver builds the clients that identity needs. They are its own: one
// round asks a handful of objects at once, at most every few seconds.
func newResolver(o identity.Options, cfg *rest.Config) (*identity.Resolver, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.Timeout = requestTimeout
	var err error
	if o.Dynamic, err = dynamic.NewForConfig(cfg); err != nil {
		return nil, fmt.Errorf("make dynamic client: %w", err)
	}
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	if o.Core, err = kubernetes.NewForConfig(cfg); err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	if metadata := newIMDS(o.Log); metadata != nil {
		o.Metadata = metadata
	}
	return identity.New(o), nil
}

// closeDir is for deferred closing, where nothing can be done any more.
func closeDir(dir *hostfiles.Dir, log *slog.Logger) {
	if err := dir.Close(); err != nil {
		log.Warn("host directory not closed", "err", err)
	}
}
