// Package cluster runs a real Kubernetes control plane on this machine for
// tests, benchmarks and `make run`: etcd, kube-apiserver and
// kube-controller-manager as child processes of an ordinary user, on loopback.
//
// It has no scheduler and no kubelets, unless package nodes adds them. Node objects
// and pods are what a test makes them: they keep their status, a pod is on the node
// that spec.nodeName says, and a deleted pod goes only if it was deleted with a
// grace period of zero.
//
// The package owns the binaries, certificates and processes, and the audit log
// that tells how many requests each user made. It imports none of the product's
// packages. Tests call ForTest, programs Start, and the command in cmd/cluster Up
// and Down.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// Options says what to start. The zero value starts all three components in a
// directory of their own.
type Options struct {
	// Dir holds certificates, etcd's data and the logs, e.g.
	// "/home/ann/control-plane". It must be absent or empty, and is kept by Stop.
	// Empty means a new directory in the cache, removed by Stop.
	Dir string
	// Log receives the progress of building the binaries, which takes minutes the
	// first time; nothing is written once they are built. Nil means discard.
	Log io.Writer
	// NoControllerManager leaves kube-controller-manager out, for tests of plain
	// API objects. Then no namespace gets its default ServiceAccount, no workload
	// its pods, and no request for a certificate is signed.
	NoControllerManager bool
	// APIServerArgs and ControllerManagerArgs are appended to the command lines,
	// e.g. "--watch-cache=false", so they override what the package sets.
	APIServerArgs         []string
	ControllerManagerArgs []string
	// NodeAddress makes it a control plane for real nodes: an address of this
	// machine that they and their pods reach, where the API server listens instead
	// of on loopback. kube-scheduler runs as well, and a node that is not heard of
	// for half a minute becomes NotReady. Nil means none.
	NodeAddress net.IP
	// Timeout bounds the wait for the control plane to become ready, builds
	// excluded. Zero means two minutes.
	Timeout time.Duration

	// detached and started belong to Up: processes that outlive this one, and a
	// record of each as soon as it exists.
	detached bool
	started  func(*process) error
}

// Cluster is one running control plane. Its methods may be called from several
// goroutines.
type Cluster struct {
	dir     string
	paths   Binaries
	options Options
	// schedulerPath is empty where no scheduler runs.
	schedulerPath string
	endpoint      *endpoint
	admin         *rest.Config
	ca            []byte
	client        kubernetes.Interface
	dynamic       dynamic.Interface
	mapper        *restmapper.DeferredDiscoveryRESTMapper
	discard       func() error

	// mu guards the processes; each is nil while it is not meant to run.
	mu                sync.Mutex
	etcd              *process
	apiServer         *process
	controllerManager *process
	scheduler         *process
}

// Start builds the binaries if they are not built yet, starts the control plane
// and returns once it is ready: /readyz answers ok, which includes the bootstrap
// of RBAC, and the default namespace has its ServiceAccount. Cancelling ctx
// abandons the start and has no effect on a cluster that has been returned. The
// error of a component that would not start carries the end of its log.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	c, err := prepare(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("prepare control plane: %w", err)
	}
	if err := c.launch(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start control plane: %w", err), c.stop())
	}
	return c, nil
}

// Admin returns a new configuration of an administrator (group system:masters)
// whose client-side rate limit is off.
func (c *Cluster) Admin() *rest.Config { return rest.CopyConfig(c.admin) }

// Kubeconfig returns the path of the administrator's kubeconfig, mode 0600.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir, "kubeconfig") }

// Dir returns the directory that holds the cluster's data and logs.
func (c *Cluster) Dir() string { return c.dir }

// Stop ends the processes, waits for them, and removes the directory unless
// Options named it. It may be repeated. The error names a component that had
// ended by itself, with the end of its log.
func (c *Cluster) Stop() error {
	c.mu.Lock()
	dead := c.ended()
	c.mu.Unlock()
	return errors.Join(dead, c.stop())
}

func (c *Cluster) stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range []**process{&c.scheduler, &c.controllerManager, &c.apiServer, &c.etcd} {
		if *p != nil {
			(*p).stop()
			*p = nil
		}
	}
	if c.discard == nil {
		return nil
	}
	discard := c.discard
	c.discard = nil
	return errors.Join(c.endpoint.Close(), discard())
}

// StopAPIServer ends kube-apiserver and leaves the rest running, as when the
// control plane is unreachable: connections are refused. It does nothing when
// the API server is stopped already.
func (c *Cluster) StopAPIServer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.apiServer != nil {
		c.apiServer.stop()
		c.apiServer = nil
	}
}

// StartAPIServer starts kube-apiserver again on the same port and the same data,
// and returns once it is ready. The controllers find it again by themselves, some
// of them after half a minute. It does nothing when the API server runs.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	if err := c.startAPIServer(); err != nil {
		return fmt.Errorf("start API server: %w", err)
	}
	if err := c.await(ctx, "/readyz", c.readyz); err != nil {
		return fmt.Errorf("start API server: %w", err)
	}
	return nil
}

// prepare makes everything that the components need before they start.
func prepare(ctx context.Context, o Options) (*Cluster, error) {
	paths, err := Find(ctx, o.Log)
	if err != nil {
		return nil, err
	}
	var nodes NodeBinaries
	if o.NodeAddress != nil {
		if nodes, err = FindForNodes(ctx, o.Log); err != nil {
			return nil, err
		}
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Minute
	}
	dir, discard, err := dataDir(o.Dir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir, paths: paths, schedulerPath: nodes.Scheduler, options: o, discard: discard}
	if err := c.provision(); err != nil {
		return nil, errors.Join(err, discard())
	}
	return c, nil
}

func (c *Cluster) provision() error {
	endpoint, err := reserve(c.options.NodeAddress)
	if err != nil {
		return err
	}
	c.endpoint = endpoint
	if err := c.credentials(); err != nil {
		return errors.Join(err, endpoint.Close())
	}
	return nil
}

// dataDir returns the directory of one control plane and what to call at the end.
func dataDir(named string) (string, func() error, error) {
	if named == "" {
		return scratch()
	}
	named, err := filepath.Abs(named)
	if err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(named, 0o700); err != nil {
		return "", nil, err
	}
	entries, err := os.ReadDir(named)
	if err != nil {
		return "", nil, err
	}
	if len(entries) > 0 {
		return "", nil, fmt.Errorf("directory %s is not empty", named)
	}
	return named, func() error { return nil }, nil
}

// endpoint is a port that stays ours from before the API server first
// listens on it until the end, restarts included. The socket is bound and never
// listens: together with --permit-port-sharing that keeps every other process
// from the port without taking connections from it.
type endpoint struct {
	fd      int
	address net.IP
	port    int
}

// reserve takes a port of an address, or of loopback if that is nil.
func reserve(address net.IP) (*endpoint, error) {
	if address == nil {
		address = net.IPv4(127, 0, 0, 1)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reserve port: %w", err)
	}
	port, err := bind(fd, address)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reserve port: %w", err), unix.Close(fd))
	}
	return &endpoint{fd: fd, address: address, port: port}, nil
}

func bind(fd int, to net.IP) (int, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte(to.To4())}); err != nil {
		return 0, err
	}
	address, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	inet, ok := address.(*unix.SockaddrInet4)
	if !ok {
		return 0, fmt.Errorf("address of type %T", address)
	}
	return inet.Port, nil
}

func (e *endpoint) url() string { return fmt.Sprintf("https://%s:%d", e.address, e.port) }

// Close gives the port up.
func (e *endpoint) Close() error { return unix.Close(e.fd) }
