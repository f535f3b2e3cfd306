package agent

import (
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/config"
	"github.com/chandler-k8s/chandler/node/scrapercert"
)

// newScraper assembles what keeps the scraper certificate, nil if the configuration
// wants none. Targets are verified by the CA of our own connection to the API server.
func newScraper(cfg config.Scraper, kube *rest.Config, nodeName string, log *slog.Logger, reg prometheus.Registerer) (*scrapercert.Renewer, error) {
	if !cfg.Enabled {
		return nil, nil
	}
	kube = rest.CopyConfig(kube)
	kube.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(kube)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return scrapercert.New(scrapercert.Options{
		Client: client, NodeName: nodeName, CommonName: cfg.CommonName,
		SignerName: cfg.SignerName, OwnSigner: config.SignerChandler,
		Duration: cfg.Duration.Duration, RenewAfter: cfg.RenewAfter.Duration,
		Trust: scrapercert.Trust{ClusterCA: kube.CAData, ClusterCAFile: kube.CAFile, CAFile: cfg.CAFile},
		Mode:  fs.FileMode(cfg.Files.Mode), UID: cfg.Files.UID, GID: cfg.Files.GID,
		Log: log, Metrics: reg,
	}), nil
}
