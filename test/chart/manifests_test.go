package chart_test

import (
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/chandler-k8s/chandler/test/expect"
)

var update = flag.Bool("update", false, "rewrite the manifests")

const header = "apiVersion: chandler.dev/v1alpha1\nkind: Config\n"

// manifest is a file of deploy/ that is rendered.
type manifest struct {
	file     string
	about    string // first lines of the file
	values   string // of deploy/chart/values
	config   string // what the configuration of a part says
	set      []string
	template string   // only the objects of this file of the chart
	objects  []string // only these, as Kind/name
}

func about(what string) string {
	return "# chandler, " + what + ": docs/install.md.\n# Rendered from deploy/chart by `make golden`: change that, or use it with Helm.\n---\n"
}

// variants are whole installations, each one file.
func variants() []manifest {
	return []manifest{
		{file: "daemonset.yaml", about: about("the usual installation")},
		{file: "split.yaml", values: "split.yaml", about: about("with the leader half in a Deployment of its own")},
		{file: "openshift.yaml", values: "openshift.yaml", about: about("for OpenShift")},
		{file: "eks.yaml", values: "eks.yaml", about: about("for Amazon EKS")},
	}
}

// parts are pieces of an installation, for those who put it together themselves.
func parts() []manifest {
	all := []manifest{{file: "base/00-namespace.yaml", template: "namespace.yaml", set: []string{"namespace.create=true"}}}
	for _, name := range []string{
		"csrapproval-policies", "csrapproval", "csrsigning", "podlogs", "policies", "pullsecrets", "rbac", "scrapercert", "serviceaccounts", "serving",
	} {
		all = append(all, manifest{file: "base/" + name + ".yaml", template: name + ".yaml"})
	}
	all = append(all,
		manifest{file: "optional/clusterstatus.yaml", template: "clusterstatus.yaml", config: "leader: {clusterStatus: {enabled: true}}\n"},
		manifest{file: "optional/csrsigning.yaml", template: "csrsigning-rights.yaml", config: "scraper: {signerName: chandler.dev/scraper-client}\n"},
		manifest{file: "optional/delegation.yaml", template: "delegation.yaml", config: "serving: {delegation: true}\n"},
		manifest{file: "optional/networkpolicy.yaml", template: "networkpolicy.yaml", set: []string{"networkPolicy.enabled=true"}},
		manifest{
			file: "optional/pullsecrets-adopt.yaml", config: "leader: {pullSecrets: {adopt: true}}\n",
			objects: []string{"ValidatingAdmissionPolicy/chandler-pull-secrets"},
		},
		manifest{
			file: "optional/pullsecrets-serviceaccounts.yaml", template: "pullsecrets-serviceaccounts.yaml",
			config: "leader: {pullSecrets: {patchServiceAccounts: [default]}}\n",
		},
		manifest{
			file: "optional/split.yaml", config: "leader: {enabled: false}\n", set: []string{"leader.split=true"}, about: aboutSplit,
			objects: []string{
				"Role/chandler-election", "ValidatingAdmissionPolicyBinding/chandler-leader-token", "Role/chandler-leader-election",
				"RoleBinding/chandler-leader-election", "RoleBinding/chandler-leader-authentication-reader", "ResourceQuota/chandler", "Deployment/chandler-leader",
			},
		})
	return all
}

const aboutSplit = `# Makes an installation of deploy/base a split one: the leader half in a Deployment, on nodes
# that you choose, instead of in the agents. Apply it after deploy/base, and again whenever
# you apply that: it takes rights away that deploy/base gives. Set leader.enabled: false for
# the agents; the Deployment reads the same configuration. deploy/split.yaml is the whole of
# such an installation.
---
`

// render returns what the file should be.
func (m manifest) render(t *testing.T) string {
	t.Helper()
	var args []string
	if m.values != "" {
		args = append(args, "--values", deploy("chart", "values", m.values))
	}
	whole := m.template == "" && m.objects == nil
	if whole {
		args = append(args, "--set", "namespace.create=true")
	} else {
		args = append(args, config(t, m.config)...)
	}
	for _, value := range m.set {
		args = append(args, "--set", value)
	}
	documents := template(t, args...)
	if whole {
		slices.SortStableFunc(documents, byRank)
		return join(m.about, documents)
	}
	return join(m.about, slices.DeleteFunc(documents, func(d document) bool {
		return m.template != "" && d.template != m.template || m.objects != nil && !slices.Contains(m.objects, d.kind+"/"+d.name)
	}))
}

// TestManifests holds what kubectl applies to what helm installs.
func TestManifests(t *testing.T) {
	for _, m := range append(parts(), variants()...) {
		t.Run(m.file, func(t *testing.T) {
			got := m.render(t)
			if *update {
				expect.OK(t, os.WriteFile(deploy(m.file), []byte(got), 0o644))
			}
			want, err := os.ReadFile(deploy(m.file))
			expect.OK(t, err)
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("deploy/%s is not what the chart renders, run make golden (-checked in +rendered):\n%s", m.file, diff)
			}
		})
	}
}
