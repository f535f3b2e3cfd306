//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// files: what the default installation writes, on each node's own disk.
func (p *product) files(t *testing.T) {
	system, err := p.client.CoreV1().Namespaces().Get(t.Context(), "kube-system", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	id := string(system.UID) // nothing here knows better
	for _, node := range p.nodes {
		for name, want := range map[string]string{
			"cluster/cluster-id": id,
			"cluster/CLUSTERID":  fmt.Sprintf("CLUSTERID=%q\n", id),
			"cluster/node.env":   fmt.Sprintf("CLUSTER_ID=%q\nNODE_NAME=%q\n", id, node),
		} {
			if got := p.read(t, node, name); got != want {
				t.Errorf("%s: %s: got %q, want %q", node, name, got, want)
			}
			p.wantFile(t, node, name, 0o444, 0)
		}
		if got, err := p.tryCat(t.Context(), node, "cluster/cluster-id"); err != nil || got != id {
			t.Errorf("in the pod on %s: got cluster ID %q, %v, want %q", node, got, err, id)
		}
		p.wantFile(t, node, "scraper/tls.crt", 0o444, 0)
		p.wantFile(t, node, "scraper/tls.key", 0o440, 65534)
		p.wantFile(t, node, "scraper/tls.pem", 0o440, 65534)
		if got := p.scraper(t, node); got.Subject.String() != "CN="+scrapers || len(got.DNSNames) != 1 || got.DNSNames[0] != node {
			t.Errorf("%s: got a certificate for %s, %q", node, got.Subject, got.DNSNames)
		}
	}
	p.untorn(t)
}

// read reads a file of a node's disk, where that cannot be looked into by its reader.
func (p *product) read(t *testing.T, node, name string) string {
	t.Helper()
	data, err := p.tryRead(t.Context(), node, name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (p *product) tryRead(ctx context.Context, node, name string) (string, error) {
	if p.roots == nil {
		return p.tryCat(ctx, node, name)
	}
	data, err := os.ReadFile(p.path(node, name))
	return string(data), err
}

// wantFile looks at mode and owner, on nodes that can be looked into.
func (p *product) wantFile(t *testing.T, node, name string, mode fs.FileMode, gid uint32) {
	t.Helper()
	if p.roots == nil {
		return
	}
	info, err := os.Stat(p.path(node, name))
	if err != nil {
		t.Fatal(err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode() != mode || owner.Uid != 0 || owner.Gid != gid {
		t.Errorf("%s: %s: got %s of %d:%d, want %s of 0:%d", node, name, info.Mode(), owner.Uid, owner.Gid, mode, gid)
	}
}

// tryCat reads a file in the reader's pod on a node, as its user.
func (p *product) tryCat(ctx context.Context, node, name string) (string, error) {
	return p.inReader(ctx, node, "cat", "/host/"+name)
}

// inReader runs the probe in the reader's pod on a node.
func (p *product) inReader(ctx context.Context, node string, args ...string) (string, error) {
	pod, err := p.findPod(ctx, readers, "app=reader", node)
	if err != nil {
		return "", err
	}
	return p.tryKubectl(ctx, append([]string{"--namespace", readers, "exec", pod.Name, "--container", "reader", "--", "/chandler"}, args...)...)
}

// podOn waits for a running pod of a node.
func (p *product) podOn(t *testing.T, namespace, labels, node string) *corev1.Pod {
	t.Helper()
	var found *corev1.Pod
	eventually(t, "pod "+labels, func(ctx context.Context) (err error) {
		found, err = p.findPod(ctx, namespace, labels, node)
		return err
	})
	return found
}

func (p *product) findPod(ctx context.Context, namespace, labels, node string) (*corev1.Pod, error) {
	pods, err := p.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: labels, FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		return nil, err
	}
	for i := range pods.Items {
		if pod := &pods.Items[i]; pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning {
			return pod, nil
		}
	}
	return nil, fmt.Errorf("no pod %s of %d runs on %s", labels, len(pods.Items), node)
}

// scraper returns a node's certificate.
func (p *product) scraper(t *testing.T, node string) *x509.Certificate {
	t.Helper()
	certificate, err := p.tryScraper(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func (p *product) tryScraper(ctx context.Context, node string) (*x509.Certificate, error) {
	file, err := p.tryRead(ctx, node, "scraper/tls.pem") // one file, hence one pair
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair([]byte(file), []byte(file))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", node, err)
	}
	return pair.Leaf, nil
}

// rotated is a condition for eventually: a node has another certificate.
func (p *product) rotated(node string, from *x509.Certificate) func(context.Context) error {
	return func(ctx context.Context) error {
		now, err := p.tryScraper(ctx, node)
		if err == nil && now.SerialNumber.Cmp(from.SerialNumber) == 0 {
			err = errors.New("it is the same")
		}
		return err
	}
}

// scrape asks the agent of a node for its metrics, as Prometheus on the node would:
// from a pod that mounts the node's files. Without sets it shows no certificate.
func (p *product) scrape(ctx context.Context, node string, sets ...string) (string, error) {
	agent, err := p.findPod(ctx, home, agentLabels, node)
	if err != nil {
		return "", err
	}
	url := "https://" + net.JoinHostPort(agent.Status.PodIP, "9464") + "/metrics"
	return p.inReader(ctx, node, append([]string{"scrape", url}, sets...)...)
}

// certificates: each node's agent lets in the certificate that stands on its disk,
// and the one that replaces it.
func (p *product) certificates(t *testing.T) {
	for _, node := range p.nodes {
		p.wantScrape(t, node)
		if _, err := p.scrape(t.Context(), node); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("%s: metrics for nobody in particular: got %v, want them refused", node, err)
		}
		eventually(t, "another certificate on "+node, p.rotated(node, p.scraper(t, node)))
		p.wantScrape(t, node)
	}
	p.untorn(t)
}

func (p *product) wantScrape(t *testing.T, node string) {
	t.Helper()
	eventually(t, "metrics of "+node, func(ctx context.Context) error {
		body, err := p.scrape(ctx, node, "/host/scraper")
		if err == nil && !strings.Contains(body, "chandler_leader ") {
			err = fmt.Errorf("got %d bytes without chandler_leader", len(body))
		}
		return err
	})
}

// keys makes a pair of which each half tells whether it belongs to the other.
func (p *product) keys(serial int) (id, secret string) {
	id = fmt.Sprintf("AKIAE2E%013d", serial)
	secret = fmt.Sprintf("%020d%s", serial, id)
	p.secrets = append(p.secrets, secret)
	return id, secret
}

// setKeys writes the Secret that agents mount, and returns the key's ID.
func (p *product) setKeys(t *testing.T, serial int) string {
	t.Helper()
	id, secret := p.keys(serial)
	p.apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: chandler-aws-default, namespace: %s}
stringData: {aws_access_key_id: %s, aws_secret_access_key: %s}
`, home, id, secret))
	return id
}

// awaitKeys waits until a running pod on every node sees a key.
func (p *product) awaitKeys(t *testing.T, id string) {
	t.Helper()
	for _, node := range p.nodes {
		eventually(t, "key "+id+" on "+node, func(ctx context.Context) error {
			got, err := p.tryCat(ctx, node, "aws/credentials.ini")
			if err == nil && !strings.Contains(got, id) {
				err = errors.New("there is another")
			}
			return err
		})
		p.wantFile(t, node, "aws/credentials.ini", 0o440, 65534)
	}
}

// credentials: a Secret is rotated under running pods.
func (p *product) credentials(t *testing.T) {
	p.awaitKeys(t, p.setKeys(t, 2))
	p.untorn(t)
}

// configure gives the installation a configuration, AWS and a verbose log, while
// readers read.
func (p *product) configure(t *testing.T) {
	id := p.setKeys(t, 1)
	p.setConfig(t, "20s")
	p.kubectl(t, "apply", "--filename", root+"/deploy/optional/clusterstatus.yaml")
	set, err := p.client.AppsV1().DaemonSets(home).Get(t.Context(), "chandler", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	agent := set.Spec.Template.Spec.Containers[0]
	change := map[string]any{"name": agent.Name, "args": append(agent.Args, "--log-level=debug")}
	var environment []corev1.EnvVar
	for name, value := range p.aws {
		environment = append(environment, corev1.EnvVar{Name: name, Value: value})
	}
	change["env"] = environment
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"template": map[string]any{"spec": map[string]any{"containers": []any{change}}}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.client.AppsV1().DaemonSets(home).Patch(t.Context(), set.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.rollout(t, home, agents)
	p.awaitKeys(t, id)
	for _, node := range p.nodes {
		eventually(t, "region on "+node, func(ctx context.Context) error {
			got, err := p.tryRead(ctx, node, "cluster/region")
			if err == nil && got != region {
				err = fmt.Errorf("got %q, want %q", got, region)
			}
			return err
		})
	}
	p.untorn(t)
}

func (p *product) setConfig(t *testing.T, renewAfter string) {
	t.Helper()
	config := fmt.Sprintf(`apiVersion: chandler.dev/v1alpha1
kind: Config
scraper: {renewAfter: %s}
leader:
  pullSecrets: {hostNamespace: %s}
  podLogs: {createServiceAccounts: true}
  clusterStatus:
    enabled: true
    seconds: 5
    metric: {namespace: E2E, name: Healthy}
    targets:
    - {kind: Deployment, namespace: %s, name: web, mode: AtLeastOne}
`, renewAfter, keysIn, readers)
	text, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]string{"name": "chandler", "namespace": home},
		"data": map[string]string{"config.yaml": config},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.apply(t, string(text))
}
