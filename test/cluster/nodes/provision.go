package nodes

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/pki"
)

//go:embed files
var files embed.FS

// templates says where in the root of a node each file goes.
var templates = []struct{ name, path string }{
	{"containerd.toml", "etc/containerd/config.toml"},
	{"pods.conflist", "etc/cni/net.d/pods.conflist"},
	{"kubelet.yaml", "etc/kubernetes/kubelet.yaml"},
	{"kube-proxy.yaml", "etc/kubernetes/kube-proxy.yaml"},
}

// provision fills the directory of each node.
func (s *set) provision(ctx context.Context) error {
	dir, _, err := cluster.Standing(ctx)
	if err != nil {
		return err
	}
	ca, err := pki.Read(filepath.Join(dir, "pki"), "ca")
	if err != nil {
		return err
	}
	admin, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "kubeconfig"))
	if err != nil {
		return err
	}
	for _, n := range s.Nodes {
		if err := n.configure(); err != nil {
			return fmt.Errorf("configure %s: %w", n.Name, err)
		}
		if err := n.credentials(ca, admin.Host); err != nil {
			return fmt.Errorf("credentials of %s: %w", n.Name, err)
		}
	}
	return nil
}

// configure writes the configuration of the node's services and the few files that
// programs expect in /etc.
func (n *node) configure() error {
	facts := map[string]string{
		"Name": n.Name, "Cgroup": n.cgroup(), "PodSubnet": n.podSubnet(), "PodRange": n.set.podRange(), "PauseImage": pauseImage,
	}
	for _, t := range templates {
		parsed, err := template.ParseFS(files, "files/"+t.name)
		if err != nil {
			return err
		}
		var text strings.Builder
		if err := parsed.Execute(&text, facts); err != nil {
			return err
		}
		if err := n.put(t.path, text.String()); err != nil {
			return err
		}
	}
	return errors.Join(
		n.put("etc/hosts", "127.0.0.1 localhost\n"+n.address()+" "+n.Name+"\n"),
		n.put("etc/resolv.conf", "# no name server\n"),
		n.put("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
		n.put("etc/group", "root:x:0:\n"),
		n.put("etc/machine-id", fmt.Sprintf("%s%026d\n", n.set.id, n.Index)),
		n.put("etc/os-release", "ID=chandler-test\nPRETTY_NAME=\"chandler test node\"\n"),
		os.MkdirAll(filepath.Join(n.root(), "etc/containerd/certs.d"), 0o755),
	)
}

func (n *node) put(path, text string) error {
	path = filepath.Join(n.root(), path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// credentials issues what kubeadm would: kubelet's identity as a client and as a
// server, and kube-proxy's.
func (n *node) credentials(ca *pki.Pair, server string) error {
	dir := filepath.Join(n.root(), "etc/kubernetes")
	kubelet, err := ca.Client("system:node:"+n.Name, "system:nodes")
	if err != nil {
		return err
	}
	proxy, err := ca.Client("system:kube-proxy")
	if err != nil {
		return err
	}
	serving, err := ca.Server([]string{n.Name}, net.ParseIP(n.address()))
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "ca.crt"), ca.CertPEM, 0o600),
		serving.Write(dir, "kubelet"),
		cluster.WriteKubeconfig(filepath.Join(dir, "kubelet.kubeconfig"), config(server, ca, kubelet)),
		cluster.WriteKubeconfig(filepath.Join(dir, "kube-proxy.kubeconfig"), config(server, ca, proxy)),
	)
}

func config(server string, ca, client *pki.Pair) *rest.Config {
	return &rest.Config{Host: server, TLSClientConfig: rest.TLSClientConfig{
		CAData: ca.CertPEM, CertData: client.CertPEM, KeyData: client.KeyPEM,
	}}
}
