package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/chandler-k8s/chandler/test/pki"
)

// tokenLifetime is that of the tokens AsPod and AsServiceAccount ask for. Nothing
// renews them as kubelet would, and `make run` may go on for a day.
const tokenLifetime = 24 * time.Hour

// AsPod returns a configuration with the rights of a pod's ServiceAccount and
// with a token like the one kubelet mounts into it: bound to the pod, so that
// requests carry the pod's name and UID, and its node's name if spec.nodeName is
// set. The pod must exist, run as that ServiceAccount, and keep existing for the
// token to stay valid: a pod whose Node object is missing is deleted within two
// minutes. The client-side rate limit is client-go's default.
func (c *Cluster) AsPod(ctx context.Context, namespace, serviceAccount, pod string) (*rest.Config, error) {
	found, err := c.client.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("token of pod %s/%s: %w", namespace, pod, err)
	}
	return c.token(ctx, namespace, serviceAccount, &authenticationv1.BoundObjectReference{
		APIVersion: "v1", Kind: "Pod", Name: pod, UID: found.UID,
	})
}

// AsServiceAccount returns a configuration with the rights of a ServiceAccount
// and a token that is bound to no pod.
func (c *Cluster) AsServiceAccount(ctx context.Context, namespace, serviceAccount string) (*rest.Config, error) {
	return c.token(ctx, namespace, serviceAccount, nil)
}

func (c *Cluster) token(ctx context.Context, namespace, account string, bound *authenticationv1.BoundObjectReference) (*rest.Config, error) {
	seconds := int64(tokenLifetime / time.Second)
	request := &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds, BoundObjectRef: bound},
	}
	answer, err := c.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("token of ServiceAccount %s/%s: %w", namespace, account, err)
	}
	return &rest.Config{
		Host:            c.endpoint.url(),
		BearerToken:     answer.Status.Token,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.ca},
	}, nil
}

func (c *Cluster) clientConfig(client *pki.Pair) *rest.Config {
	return &rest.Config{
		Host: c.endpoint.url(),
		TLSClientConfig: rest.TLSClientConfig{
			CAData: c.ca, CertData: client.CertPEM, KeyData: client.KeyPEM,
		},
	}
}

// connect makes the administrator's clients. It sends nothing.
func (c *Cluster) connect() error {
	var err error
	if c.client, err = kubernetes.NewForConfig(c.admin); err != nil {
		return err
	}
	if c.dynamic, err = dynamic.NewForConfig(c.admin); err != nil {
		return err
	}
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.client.Discovery()))
	return nil
}

// WriteKubeconfig writes a configuration as a kubeconfig of mode 0600, in one
// step, for running a program as that user: for example the product's own binary
// as a pod. Everything that a kubeconfig has a place for is carried over except
// credential plugins; rate limits and timeouts have none.
func WriteKubeconfig(path string, from *rest.Config) error {
	data, err := clientcmd.Write(kubeconfig(from))
	if err != nil {
		return fmt.Errorf("write kubeconfig %s: %w", path, err)
	}
	// CreateTemp makes files of mode 0600.
	file, err := os.CreateTemp(filepath.Dir(path), ".kubeconfig-")
	if err != nil {
		return fmt.Errorf("write kubeconfig %s: %w", path, err)
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write kubeconfig %s: %w", path, errors.Join(err, os.Remove(file.Name())))
	}
	return nil
}

func kubeconfig(from *rest.Config) clientcmdapi.Config {
	const name = "chandler-test"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{
		Server:                   from.Host,
		TLSServerName:            from.ServerName,
		InsecureSkipTLSVerify:    from.Insecure,
		CertificateAuthority:     from.CAFile,
		CertificateAuthorityData: from.CAData,
	}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{
		ClientCertificate:     from.CertFile,
		ClientCertificateData: from.CertData,
		ClientKey:             from.KeyFile,
		ClientKeyData:         from.KeyData,
		Token:                 from.BearerToken,
		TokenFile:             from.BearerTokenFile,
		Impersonate:           from.Impersonate.UserName,
		ImpersonateUID:        from.Impersonate.UID,
		ImpersonateGroups:     from.Impersonate.Groups,
		ImpersonateUserExtra:  from.Impersonate.Extra,
	}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	return *config
}
