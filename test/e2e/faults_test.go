//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// leads shows that the leader does its work: a new namespace gets a pull secret.
func (p *product) leads(t *testing.T) {
	t.Helper()
	namespace, err := p.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: readers + "-", Labels: map[string]string{registry: "true"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.kubectl(t, "delete", "namespace", namespace.Name, "--wait=false") })
	p.pullSecret(t, namespace.Name)
}

// leaderKilled: a leader ends between two instructions, so that its Lease has to expire.
// Where its process cannot be reached, it is told to end and has a second for it, in which it
// may release the Lease.
func (p *product) leaderKilled(t *testing.T) {
	p.secretsUnlogged(t) // logs go with their pods
	before := p.holder(t, "")
	if p.roots == nil {
		p.kubectl(t, "--namespace", home, "delete", "pod", before.Name, "--grace-period=0", "--force")
	} else {
		p.killUnreleased(t, before)
	}
	p.holder(t, before.Name)
	p.leads(t)
	p.rollout(t, home, agents)
	p.untorn(t)
}

func (p *product) leaderCutOff(t *testing.T) {
	p.needNodes(t)
	before := p.holder(t, "")
	node := before.Spec.NodeName
	p.cluster(t, "cut", node)
	t.Cleanup(func() { p.cluster(t, "join", node) })
	after := p.holder(t, before.Name)
	if after.Spec.NodeName == node {
		t.Errorf("%s took the lease, which is on the same node", after.Name)
	}
	p.leads(t)
	p.cluster(t, "join", node)
	p.condition(t, node, corev1.ConditionTrue)
	p.rollout(t, home, agents)
	eventually(t, "one leader, which the lease names", p.oneLeader)
	p.untorn(t)
}

// oneLeader asks all agents whether they lead.
func (p *product) oneLeader(ctx context.Context) error {
	lease, err := p.client.CoordinationV1().Leases(home).Get(ctx, "chandler", metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, node := range p.nodes {
		agent, err := p.findPod(ctx, home, agentLabels, node)
		if err != nil {
			return err
		}
		body, err := p.scrape(ctx, node, "/host/scraper")
		if err != nil {
			return err
		}
		holds := lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity == agent.Name
		if strings.Contains(body, "chandler_leader 1\n") != holds {
			return fmt.Errorf("%s holds the lease: %t, and thinks otherwise", agent.Name, holds)
		}
	}
	return nil
}

// killedPublishing kills agents while they publish a certificate a second: at the steps of
// a publish, where nodes can be looked into. Elsewhere they are told to end at any time, and
// have a second for it.
func (p *product) killedPublishing(t *testing.T) {
	p.secretsUnlogged(t)
	p.setConfig(t, "1s")
	if p.roots == nil {
		p.kubectl(t, "--namespace", home, "delete", "pod", "--selector", agentLabels, "--grace-period=0", "--force")
	} else {
		p.kubectl(t, "--namespace", home, "delete", "pod", "--selector", agentLabels)
		t.Run("nodes", func(t *testing.T) {
			for _, node := range p.nodes {
				t.Run(node, func(t *testing.T) { p.killAtSteps(t, node) })
			}
		})
	}
	p.rollout(t, home, agents)
	for _, node := range p.nodes {
		eventually(t, "next certificate on "+node, p.rotated(node, p.scraper(t, node)))
	}
	p.setConfig(t, "20s")
	p.kubectl(t, "--namespace", home, "rollout", "restart", "daemonset/chandler")
	p.rollout(t, home, agents)
	p.untorn(t)
}

// tidy reports what lies in the sets of a node besides their current content and
// what it replaced last.
func (p *product) tidy(node string) error {
	for _, set := range []string{"cluster", "aws", "scraper"} {
		entries, err := os.ReadDir(p.path(node, set))
		if err != nil {
			return err
		}
		var hidden []string
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") && e.IsDir() {
				hidden = append(hidden, e.Name())
			}
		}
		if len(hidden) > 2 {
			return fmt.Errorf("%s: got %d directories, want 2 at most: %q", set, len(hidden), hidden)
		}
	}
	return nil
}

// rebooted: a node loses its power, its processes and what is in memory. Its files
// are there before the agent is, and stay.
func (p *product) rebooted(t *testing.T) {
	p.needNodes(t)
	leader := p.holder(t, "").Spec.NodeName
	node := p.nodes[0]
	if node == leader {
		node = p.nodes[1]
	}
	p.cluster(t, "stop", node)
	t.Cleanup(func() { p.cluster(t, "start", node) })
	p.condition(t, node, corev1.ConditionUnknown)
	before := p.scraper(t, node)
	p.cluster(t, "start", node)
	p.condition(t, node, corev1.ConditionTrue)
	eventually(t, "agent to go on after the reboot", p.rotated(node, before))
	p.rollout(t, home, agents)
	p.rollout(t, readers, "daemonset/reader")
	p.untorn(t)
	p.wantScrape(t, node)
}

// directoryDeleted: a container has the host directory through a mount, and that stays when
// the directory is deleted on the node.
func (p *product) directoryDeleted(t *testing.T) {
	p.needNodes(t)
	p.secretsUnlogged(t) // logs go with containers
	node := p.nodes[0]
	before := p.podOn(t, home, agentLabels, node).Status.ContainerStatuses[0].RestartCount
	eventually(t, "host directory gone", func(context.Context) error { return os.RemoveAll(p.path(node)) })
	eventually(t, "agent started again", func(ctx context.Context) error {
		agent, err := p.findPod(ctx, home, agentLabels, node)
		if err == nil && agent.Status.ContainerStatuses[0].RestartCount == before {
			err = fmt.Errorf("%s still runs", agent.Name)
		}
		return err
	})
	p.kubectl(t, "--namespace", readers, "delete", "pod", p.podOn(t, readers, "app=reader", node).Name) // it has the deleted one
	p.rollout(t, home, agents)
	p.rollout(t, readers, "daemonset/reader")
	p.wantScrape(t, node)
	p.untorn(t)
}

// uninstall takes away what was applied, and leaves what docs/install.md says.
func (p *product) uninstall(t *testing.T) {
	p.kubectl(t, "delete", "--filename", root+"/deploy/daemonset.yaml", "--selector", "!chandler.dev/keep", "--timeout", patience.String())
	var left []string
	for _, kind := range []string{"namespaces", "clusterroles", "clusterrolebindings", "validatingadmissionpolicies", "validatingadmissionpolicybindings"} {
		for line := range strings.Lines(p.kubectl(t, "get", kind, "--output", "name")) {
			if name := strings.TrimSpace(line); strings.Contains(name, "/chandler") && !strings.Contains(name, readers) {
				left = append(left, name)
			}
		}
	}
	if diff := cmp.Diff([]string{
		"clusterrole.rbac.authorization.k8s.io/chandler-leader-clusterstatus", "clusterrolebinding.rbac.authorization.k8s.io/chandler-leader-clusterstatus", // applied by themselves
		"validatingadmissionpolicy.admissionregistration.k8s.io/chandler-leader-token",
		"validatingadmissionpolicybinding.admissionregistration.k8s.io/chandler-leader-token",
	}, left); diff != "" {
		t.Errorf("left behind (-want +got):\n%s", diff)
	}
	if _, err := p.client.CoreV1().Namespaces().Get(t.Context(), home, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("namespace %s: got %v, want it gone", home, err)
	}
	for _, node := range p.nodes {
		p.scraper(t, node) // its pods go on with what they have
	}
	if _, err := p.client.CoreV1().Secrets(readers).Get(t.Context(), registry, metav1.GetOptions{}); err != nil {
		t.Errorf("pull secret: %v", err)
	}
	if _, err := p.client.RbacV1().Roles(readers).Get(t.Context(), "podlogreader-web", metav1.GetOptions{}); err != nil {
		t.Errorf("role: %v", err)
	}
	p.untorn(t)
}

// installedAgain: the API server has seen all of it come and go.
func (p *product) installedAgain(t *testing.T) {
	p.kubectl(t, "apply", "--filename", root+"/deploy/daemonset.yaml")
	p.rollout(t, home, agents)
	p.holder(t, "")
	for _, node := range p.nodes {
		p.wantScrape(t, node)
	}
}
