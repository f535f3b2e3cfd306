package cluster

import (
	"errors"
	"net"
	"os"

	"github.com/chandler-k8s/chandler/test/pki"
)

// keys is every key of one control plane.
type keys struct {
	ca          *pki.Pair // signs the API server, its clients and approved CSRs
	proxyCA     *pki.Pair // signs nothing but the front proxy's certificate
	server      *pki.Pair
	proxy       *pki.Pair
	admin       *pki.Pair
	controllers *pki.Pair
	scheduler   *pki.Pair
	kubelets    *pki.Pair // the API server towards kubelets
	tokens      *pki.Pair // signs ServiceAccount tokens
}

func newKeys(address net.IP) (*keys, error) {
	ca, err := pki.NewAuthority("chandler-test-ca")
	if err != nil {
		return nil, err
	}
	proxyCA, err := pki.NewAuthority("chandler-test-front-proxy-ca")
	if err != nil {
		return nil, err
	}
	k := &keys{ca: ca, proxyCA: proxyCA}
	var errs [7]error
	// The names that a kubeconfig of ours and a pod of the cluster would use.
	k.server, errs[0] = ca.Server([]string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}, address, serviceIP)
	k.proxy, errs[1] = proxyCA.Client("front-proxy-client")
	k.admin, errs[2] = ca.Client("kubernetes-admin", "system:masters")
	k.controllers, errs[3] = ca.Client("system:kube-controller-manager")
	k.scheduler, errs[4] = ca.Client("system:kube-scheduler")
	k.kubelets, errs[5] = ca.Client("kube-apiserver-kubelet-client", "system:masters")
	k.tokens, errs[6] = pki.NewAuthority("chandler-test-service-accounts")
	return k, errors.Join(errs[:]...)
}

// write puts the files that the components' command lines name into a directory.
func (k *keys) write(dir string) error {
	return errors.Join(
		os.MkdirAll(dir, 0o700),
		k.ca.Write(dir, "ca"),
		k.proxyCA.Write(dir, "front-proxy-ca"),
		k.server.Write(dir, "apiserver"),
		k.proxy.Write(dir, "front-proxy"),
		k.kubelets.Write(dir, "kubelet-client"),
		k.tokens.Write(dir, "service-accounts"),
	)
}
