package serving

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	certutil "k8s.io/client-go/util/cert"
)

// The API server publishes there with which CA it verifies its own clients.
const (
	authenticationConfigMap = "extension-apiserver-authentication"
	clientCAKey             = "client-ca-file"
)

// roots are the CAs of clients, from up to two sources that fail independently.
type roots struct {
	file    *kept[[]*x509.Certificate] // nil when no file is configured
	kept    Keeper
	metrics *metrics
	log     *slog.Logger

	mu      sync.Mutex // guards the rest
	bundle  []byte     // of the cluster
	cluster []*x509.Certificate
}

// newRoots reads what the files hold, so that certificates are verified from the
// first request on.
func newRoots(o Clients, m *metrics, log *slog.Logger) *roots {
	r := &roots{kept: o.Kept, metrics: m, log: log}
	if o.CAFile != "" {
		r.file = &kept[[]*x509.Certificate]{what: "client CA", paths: []string{o.CAFile}, parse: parseBundle, log: log}
	}
	if o.Cluster == nil || o.Kept == nil {
		return r
	}
	bundle, err := o.Kept.Load()
	if err == nil {
		err = r.accept(bundle)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("client CA of an earlier run not used", "err", err)
	}
	return r
}

func parseBundle(contents [][]byte) ([]*x509.Certificate, error) {
	certificates, err := certutil.ParseCertsPEM(contents[0])
	if err != nil {
		return nil, fmt.Errorf("want a PEM bundle of CA certificates: %w", err)
	}
	return certificates, nil
}

// pool returns every CA that is known at this moment.
func (r *roots) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	r.mu.Lock()
	cluster := r.cluster
	r.mu.Unlock()
	var file []*x509.Certificate
	if r.file != nil {
		file, _ = r.file.get()
	}
	r.metrics.cas.WithLabelValues("cluster").Set(float64(len(cluster)))
	r.metrics.cas.WithLabelValues("file").Set(float64(len(file)))
	for _, ca := range slices.Concat(file, cluster) {
		pool.AddCert(ca)
	}
	return pool
}

// accept makes a bundle the cluster's.
func (r *roots) accept(bundle []byte) error {
	certificates, err := parseBundle([][]byte{bundle})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bundle, r.cluster = bundle, certificates
	return nil
}

// follow watches the cluster's CA until ctx ends. What it held last stays when the
// API server, the ConfigMap or its content goes away.
func (r *roots) follow(ctx context.Context, client kubernetes.Interface) {
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "configmaps", metav1.NamespaceSystem,
			fields.OneTermEqualSelector(metav1.ObjectNameField, authenticationConfigMap)),
		ObjectType: &corev1.ConfigMap{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { r.changed(o) },
			UpdateFunc: func(_, o any) { r.changed(o) },
		},
	})
	informer.RunWithContext(ctx)
}

func (r *roots) changed(object any) {
	configMap, ok := object.(*corev1.ConfigMap)
	if !ok {
		return
	}
	bundle := []byte(configMap.Data[clientCAKey])
	r.mu.Lock()
	same := bytes.Equal(bundle, r.bundle)
	r.mu.Unlock()
	if same {
		r.keep(bundle) // it may have failed before
		return
	}
	if err := r.accept(bundle); err != nil {
		r.log.Error("client CA of the cluster not used", "namespace", configMap.Namespace, "name", configMap.Name, "key", clientCAKey, "err", err)
		return
	}
	r.log.Info("client CA of the cluster read", "namespace", configMap.Namespace, "name", configMap.Name)
	r.keep(bundle)
}

// keep stores a bundle, which does nothing where it is stored already.
func (r *roots) keep(bundle []byte) {
	if r.kept == nil {
		return
	}
	if err := r.kept.Store(bundle); err != nil {
		r.log.Error("client CA of the cluster not kept for the next start", "err", err)
	}
}
