//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	monitoring = "monitoring"
	// yaceImage is what deploy/examples/cloudwatch-exporter.yaml names.
	yaceImage = "quay.io/prometheuscommunity/yet-another-cloudwatch-exporter:v0.67.0"
)

// examples: the consumers of deploy/examples run as they are.
func (p *product) examples(t *testing.T) {
	p.apply(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+monitoring+"}\n")
	t.Cleanup(func() { p.kubectl(t, "delete", "namespace", monitoring, "--wait=false") })
	for _, name := range []string{"exporter", "prometheus"} {
		p.kubectl(t, "apply", "--filename", filepath.Join(root, "deploy", "examples", name+".yaml"))
	}
	p.rollout(t, monitoring, "daemonset/exporter")
	want := fmt.Sprintf("cluster_info{cluster=%q,region=%q} 1\n", p.read(t, p.nodes[0], "cluster/cluster-id"), region)
	for _, node := range p.nodes {
		exporter := p.podOn(t, monitoring, "app.kubernetes.io/name=exporter", node)
		if got, err := p.get(t.Context(), net.JoinHostPort(exporter.Status.PodIP, "9100"), "/metrics"); err != nil || got != want {
			t.Errorf("exporter on %s: got %q, %v, want %q", node, got, err, want)
		}
	}
	p.scrapes(t)
	p.restarted(t)
}

// restarted: a program that never reads its credentials again uses rotated ones, in the
// same container.
func (p *product) restarted(t *testing.T) {
	t.Helper()
	if p.roots == nil {
		return // the exporter itself would call AWS, and does not say with which key
	}
	p.kubectl(t, "apply", "--filename", filepath.Join(root, "deploy", "examples", "cloudwatch-exporter.yaml"))
	p.rollout(t, monitoring, "deployment/cloudwatch-exporter")
	before := p.only(t, "cloudwatch-exporter")
	for _, serial := range []int{2, 3} { // it has started with the former
		want := fmt.Sprintf("aws_key_info{id=%q,region=%q} 1\n", p.setKeys(t, serial), region)
		eventually(t, "exporter with key "+want, func(ctx context.Context) error {
			got, err := p.get(ctx, net.JoinHostPort(before.Status.PodIP, "5000"), "/metrics")
			if err == nil && got != want {
				err = fmt.Errorf("got %q", got)
			}
			return err
		})
	}
	if after := p.only(t, "cloudwatch-exporter"); after.UID != before.UID || after.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("got pod %s with statuses %v, want %s without a restart of the container", after.Name, after.Status.ContainerStatuses, before.Name)
	}
}

// only returns the one pod of an example.
func (p *product) only(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	pods, err := p.client.CoreV1().Pods(monitoring).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + name})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("%s: got %d pods, %v, want 1", name, len(pods.Items), err)
	}
	return &pods.Items[0]
}

// scrapes: Prometheus is told that its configuration has changed, and then scrapes every
// agent with the certificate of its node, and with the next one.
func (p *product) scrapes(t *testing.T) {
	t.Helper()
	p.rollout(t, monitoring, "deployment/prometheus")
	p.nameAgents(t)
	server := p.only(t, "prometheus")
	up := func(ctx context.Context) error { return p.allUp(ctx, net.JoinHostPort(server.Status.PodIP, "9090")) }
	eventually(t, "Prometheus to see all agents", up)
	node := server.Spec.NodeName
	eventually(t, "another certificate on "+node, p.rotated(node, p.scraper(t, node)))
	eventually(t, "Prometheus to see all agents with the next certificate", up)
}

// nameAgents gives Prometheus the agents' addresses, since these nodes have no DNS, and
// less time between scrapes.
func (p *product) nameAgents(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy", "examples", "prometheus.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var addresses []string
	for _, node := range p.nodes {
		addresses = append(addresses, net.JoinHostPort(p.podOn(t, home, agentLabels, node).Status.PodIP, "9464"))
	}
	list, err := json.Marshal(addresses)
	if err != nil {
		t.Fatal(err)
	}
	changed := string(text)
	for from, to := range map[string]string{
		"dns_sd_configs:\n      - {names: [chandler.chandler.svc], type: A, port: 9464}": "static_configs:\n      - targets: " + string(list),
		"scrape_interval: 30s": "scrape_interval: 3s",
	} {
		if strings.Count(changed, from) != 1 {
			t.Fatalf("the example has not once %q", from)
		}
		changed = strings.Replace(changed, from, to, 1)
	}
	p.apply(t, changed)
}

// allUp asks a Prometheus whether its last scrape of every agent went well.
func (p *product) allUp(ctx context.Context, address string) error {
	var answer struct {
		Data struct {
			ActiveTargets []struct{ ScrapeURL, Health, LastError string }
		}
	}
	said, err := p.get(ctx, address, "/api/v1/targets")
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(said), &answer); err != nil {
		return err
	}
	if got := len(answer.Data.ActiveTargets); got != len(p.nodes) {
		return fmt.Errorf("got %d targets, want %d", got, len(p.nodes))
	}
	for _, target := range answer.Data.ActiveTargets {
		if target.Health != "up" {
			return fmt.Errorf("%s is %s: %s", target.ScrapeURL, target.Health, target.LastError)
		}
	}
	return nil
}

// get asks a pod over HTTP, from another pod.
func (p *product) get(ctx context.Context, address, path string) (string, error) {
	return p.inReader(ctx, p.nodes[0], "scrape", "http://"+address+path)
}
