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
		if got := p.cat(t, node, "cluster/cluster-id"); got != id {
			t.Errorf("in the pod on %s: got cluster ID %q, want %q", node, got, id)
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
	if p.roots == nil {
		return p.cat(t, node, name)
	}
	data, err := os.ReadFile(p.path(node, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
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

// cat reads a file in the reader's pod on a node, as its user.
func (p *product) cat(t *testing.T, node, name string) string {
	t.Helper()
	pod := p.podOn(t, readers, "app=reader", node)
	return p.kubectl(t, "--namespace", readers, "exec", pod.Name, "--container", "reader", "--", "/chandler", "cat", "/host/"+name)
}

func (p *product) podOn(t *testing.T, namespace, labels, node string) *corev1.Pod {
	t.Helper()
	var found *corev1.Pod
	eventually(t, "a running pod "+labels+" on "+node, func(ctx context.Context) error {
		pods, err := p.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: labels, FieldSelector: "spec.nodeName=" + node})
		if err != nil {
			return err
		}
		for i := range pods.Items {
			if pod := &pods.Items[i]; pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning {
				found = pod
				return nil
			}
		}
		return errors.New("there is none")
	})
	return found
}

// scraper returns a node's certificate.
func (p *product) scraper(t *testing.T, node string) *x509.Certificate {
	t.Helper()
	pem := []byte(p.read(t, node, "scraper/tls.pem")) // one file, hence one pair
	pair, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		t.Fatalf("%s: %v", node, err)
	}
	return pair.Leaf
}

// rotated is a condition for eventually: a node has another certificate.
func (p *product) rotated(t *testing.T, node string, from *x509.Certificate) func(context.Context) error {
	return func(context.Context) error {
		if p.scraper(t, node).SerialNumber.Cmp(from.SerialNumber) == 0 {
			return errors.New("it is the same")
		}
		return nil
	}
}

// scrape asks the agent of a node for its metrics, as Prometheus on the node would:
// from a pod that mounts the node's files. Without sets it shows no certificate.
func (p *product) scrape(t *testing.T, node string, sets ...string) (string, error) {
	t.Helper()
	agent, reader := p.podOn(t, home, agentLabels, node), p.podOn(t, readers, "app=reader", node)
	args := []string{"--namespace", readers, "exec", reader.Name, "--container", "reader", "--", "/chandler", "scrape",
		"https://" + net.JoinHostPort(agent.Status.PodIP, "9464") + "/metrics"}
	return p.tryKubectl(t.Context(), append(args, sets...)...)
}

// certificates: each node's agent lets in the certificate that stands on its disk,
// and the one that replaces it.
func (p *product) certificates(t *testing.T) {
	for _, node := range p.nodes {
		if _, err := p.scrape(t, node); err == nil {
			t.Errorf("%s: metrics were shown to nobody in particular", node)
		}
		p.wantScrape(t, node)
		eventually(t, "another certificate on "+node, p.rotated(t, node, p.scraper(t, node)))
		p.wantScrape(t, node)
	}
	p.untorn(t)
}

func (p *product) wantScrape(t *testing.T, node string) {
	t.Helper()
	if body, err := p.scrape(t, node, "/host/scraper"); err != nil || !strings.Contains(body, "chandler_leader ") {
		t.Errorf("%s: got %d bytes, %v, want metrics", node, len(body), err)
	}
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
		eventually(t, "key "+id+" on "+node, func(context.Context) error {
			if got := p.cat(t, node, "aws/credentials.ini"); !strings.Contains(got, id) {
				return errors.New("there is another")
			}
			return nil
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
		eventually(t, "region on "+node, func(context.Context) error {
			if got := p.read(t, node, "cluster/region"); got != region {
				return fmt.Errorf("got %q, want %q", got, region)
			}
			return nil
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
