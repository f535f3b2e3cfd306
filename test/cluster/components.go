package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// serviceCIDR is the range of Service addresses, serviceIP its first: the
// Service "kubernetes".
const serviceCIDR = "10.96.0.0/16"

var serviceIP = net.IPv4(10, 96, 0, 1)

// auditPolicy logs each request once, when it is received, without its body. The
// server writes that line before it serves the request, so a client that has its
// answer finds the request counted; the line of a completed response would come
// some time after the client has it, and that of a watch at its end.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [ResponseStarted, ResponseComplete, Panic]
rules:
- level: Metadata
`

// etcdAddress is a Unix socket in the data directory, relative so that the
// length of the path does not matter (it is limited to 107 bytes). Only its
// owner reaches it, and no port is taken. etcd insists on the form host:port.
const etcdAddress = "unix://etcd:0"

func (c *Cluster) etcdCommand() command {
	const peers = "unix://peer:0"
	return c.command("etcd", c.paths.Etcd, []string{
		"--name=test",
		"--data-dir=etcd-data",
		"--unsafe-no-fsync",
		"--listen-client-urls=" + etcdAddress,
		"--advertise-client-urls=" + etcdAddress,
		"--listen-peer-urls=" + peers,
		"--initial-advertise-peer-urls=" + peers,
		"--initial-cluster=test=" + peers,
		"--log-level=warn",
	})
}

func (c *Cluster) apiServerCommand() command {
	args := []string{
		"--etcd-servers=" + etcdAddress,
		"--bind-address=" + c.endpoint.address.String(),
		"--secure-port=" + strconv.Itoa(c.endpoint.port),
		"--permit-port-sharing",
		"--advertise-address=" + c.endpoint.address.String(),
		// A loopback address may not become an Endpoints object.
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=" + serviceCIDR,
		"--tls-cert-file=pki/apiserver.crt",
		"--tls-private-key-file=pki/apiserver.key",
		"--client-ca-file=pki/ca.crt",
		"--requestheader-client-ca-file=pki/front-proxy-ca.crt",
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file=pki/front-proxy.crt",
		"--proxy-client-key-file=pki/front-proxy.key",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=pki/service-accounts.crt",
		"--service-account-signing-key-file=pki/service-accounts.key",
		"--audit-policy-file=audit-policy.yaml",
		"--audit-log-path=" + auditLog,
		"--audit-log-mode=blocking",
		// Megabytes: never rotate, so that Requests reads one file.
		"--audit-log-maxsize=1000000",
		// Their sum is the concurrency that priority and fairness shares out:
		// benchmarks run hundreds of clients, and a test is not to be queued.
		"--max-requests-inflight=4000",
		"--max-mutating-requests-inflight=2000",
		"--profiling=false",
		"--v=0",
	}
	if c.options.NodeAddress != nil {
		args = append(args,
			"--endpoint-reconciler-type=lease",
			"--kubelet-preferred-address-types=InternalIP",
			"--kubelet-certificate-authority=pki/ca.crt",
			"--kubelet-client-certificate=pki/kubelet-client.crt",
			"--kubelet-client-key=pki/kubelet-client.key")
	}
	return c.command("kube-apiserver", c.paths.APIServer, append(args, c.options.APIServerArgs...))
}

func (c *Cluster) controllerManagerCommand() command {
	// Without kubelets nothing ever renews a Node. By default its pods would be
	// deleted, and with them their tokens, after some six minutes.
	grace := "8760h"
	if c.options.NodeAddress != nil {
		grace = "30s"
	}
	args := []string{
		"--kubeconfig=controller-manager.kubeconfig",
		"--secure-port=0",
		"--leader-elect=false",
		"--use-service-account-credentials",
		"--root-ca-file=pki/ca.crt",
		"--service-account-private-key-file=pki/service-accounts.key",
		"--cluster-signing-cert-file=pki/ca.crt",
		"--cluster-signing-key-file=pki/ca.key",
		"--cluster-signing-duration=720h",
		// It would make its own in /usr.
		"--flex-volume-plugin-dir=volume-plugins",
		"--node-monitor-grace-period=" + grace,
		"--node-startup-grace-period=" + grace,
		// The stock 20 requests a second would make tests with hundreds of
		// namespaces or pods wait for the controllers instead of for us.
		"--kube-api-qps=300",
		"--kube-api-burst=600",
		"--profiling=false",
		"--v=0",
	}
	return c.command("kube-controller-manager", c.paths.ControllerManager, append(args, c.options.ControllerManagerArgs...))
}

func (c *Cluster) schedulerCommand() command {
	return c.command("kube-scheduler", c.schedulerPath, []string{
		"--kubeconfig=scheduler.kubeconfig",
		"--secure-port=0",
		"--leader-elect=false",
		"--profiling=false",
		"--v=0",
	})
}

func (c *Cluster) command(name, path string, args []string) command {
	return command{name: name, path: path, args: args, dir: c.dir, detached: c.options.detached}
}

// credentials makes the keys and writes every file the components read.
func (c *Cluster) credentials() error {
	keys, err := newKeys(c.endpoint.address)
	if err != nil {
		return err
	}
	if err := keys.write(filepath.Join(c.dir, "pki")); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.dir, "audit-policy.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return err
	}
	c.ca = keys.ca.CertPEM
	controllers := c.clientConfig(keys.controllers)
	if err := WriteKubeconfig(filepath.Join(c.dir, "controller-manager.kubeconfig"), controllers); err != nil {
		return err
	}
	scheduler := c.clientConfig(keys.scheduler)
	if err := WriteKubeconfig(filepath.Join(c.dir, "scheduler.kubeconfig"), scheduler); err != nil {
		return err
	}
	c.admin = c.clientConfig(keys.admin)
	c.admin.QPS = -1
	if err := WriteKubeconfig(c.Kubeconfig(), c.admin); err != nil {
		return err
	}
	return c.connect()
}

// launch starts the components and waits until they are ready.
func (c *Cluster) launch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	if err := c.startComponent(&c.etcd, c.etcdCommand()); err != nil {
		return err
	}
	if err := c.startAPIServer(); err != nil {
		return err
	}
	if c.options.NoControllerManager {
		return c.await(ctx, "/readyz", c.readyz)
	}
	// It gives up when the API server is not healthy within ten seconds.
	if err := c.await(ctx, "the API server", c.livez); err != nil {
		return err
	}
	if err := c.startComponent(&c.controllerManager, c.controllerManagerCommand()); err != nil {
		return err
	}
	if err := c.await(ctx, "/readyz", c.readyz); err != nil {
		return err
	}
	if c.schedulerPath != "" {
		if err := c.startComponent(&c.scheduler, c.schedulerCommand()); err != nil {
			return err
		}
	}
	return c.await(ctx, "ServiceAccount default/default", c.bootstrapped)
}

func (c *Cluster) startAPIServer() error {
	return c.startComponent(&c.apiServer, c.apiServerCommand())
}

// startComponent fills the slot of a component that does not run.
func (c *Cluster) startComponent(slot **process, what command) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if *slot != nil {
		return nil
	}
	p, err := what.start()
	if err != nil {
		return err
	}
	*slot = p
	if c.options.started == nil {
		return nil
	}
	if err := c.options.started(p); err != nil {
		return fmt.Errorf("record %s: %w", what.name, err)
	}
	return nil
}
