package chart_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// jsonSchema is as much of a JSON schema as the chart's uses.
type jsonSchema struct {
	Properties map[string]jsonSchema
	Additional json.RawMessage `json:"additionalProperties"`
}

// TestSchemaKnowsEveryValue: values.yaml lists every key that is accepted.
func TestSchemaKnowsEveryValue(t *testing.T) {
	var values map[string]any
	var known jsonSchema
	for file, into := range map[string]any{"values.yaml": &values, "values.schema.json": &known} {
		text, err := os.ReadFile(deploy("chart", file))
		expect.OK(t, err)
		expect.OK(t, yaml.Unmarshal(text, into))
	}
	delete(known.Properties, "global") // Helm's own
	compareKeys(t, "values", known, values)
}

func compareKeys(t *testing.T, path string, known jsonSchema, values map[string]any) {
	t.Helper()
	want, got := slices.Sorted(maps.Keys(known.Properties)), slices.Sorted(maps.Keys(values))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys of %s (-schema +values.yaml):\n%s", path, diff)
	}
	if string(known.Additional) != "false" {
		t.Errorf("%s: the schema accepts keys that do not exist", path)
	}
	for key, value := range values {
		if below := known.Properties[key]; below.Properties != nil {
			compareKeys(t, path+"."+key, below, value.(map[string]any))
		}
	}
}

// TestRefused: what cannot work is refused when it is rendered, in words.
func TestRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"another namespace":   {[]string{"--namespace", "elsewhere"}, "namespace \"elsewhere\": chandler is installed in namespace chandler"},
		"a misspelt value":    {[]string{"--set", "agent.hostNetwrok=true"}, "hostNetwrok"},
		"a map":               {[]string{"--set-json", `config={"hostDir": "/x"}`}, "/config"},
		"no configuration":    {[]string{"--set", "config=nonsense"}, "want a configuration file"},
		"two leaders":         {[]string{"--set", "leader.split=true"}, "set leader.enabled: false"},
		"another name":        {config(t, "scraper: {commonName: scraper@example}"), "--set-file scraperPolicies"},
		"another signer":      {config(t, "scraper: {signerName: example.com/any}"), "--set-file scraperPolicies"},
		"too many replicas":   {[]string{"--set", "leader.replicas=11"}, "/leader/replicas"},
		"a tag as a digest":   {[]string{"--set", "image.digest=v1"}, "/image/digest"},
		"an unknown loglevel": {[]string{"--set", "log.level=trace"}, "/log/level"},
		"no node at once":     {[]string{"--set", "agent.maxUnavailable=0"}, "/agent/maxUnavailable"},
		"no share of nodes":   {[]string{"--set", "agent.maxUnavailable=abc"}, "/agent/maxUnavailable"},
		"a variable of ours":  {[]string{"--set", "agent.env[0].name=NODE_NAME,agent.env[0].value=x"}, "NODE_NAME: the chart sets it itself"},
		"a label of ours": {
			[]string{"--set", `agent.podLabels.app\.kubernetes\.io/name=x`}, "app.kubernetes.io/name: the chart sets it itself",
		},
		"an annotation of ours": {
			[]string{"--set", `openshift.enabled=true,agent.podAnnotations.openshift\.io/required-scc=x`}, "openshift.io/required-scc: the chart sets it itself",
		},
		"an option that SELinux has not": {[]string{"--set", "selinux.agent.range=s0"}, "/selinux/agent"},
		"a label that SELinux refuses":   {[]string{"--set", "selinux.label=true"}, "selinux.agent.type=spc_t"},
		"keys among our own": {
			config(t, "leader: {pullSecrets: {hostNamespace: chandler}}"), "leader.pullSecrets.hostNamespace: chandler's own namespace",
		},
		"keys in a namespace of the cluster's": {
			config(t, "leader: {pullSecrets: {hostNamespace: kube-system}}"), "hostNamespace.create=false",
		},
		"credentials that nothing mounts": {
			config(t, "awsCredentials: [{name: billing, source: /etc/chandler/aws/billing}]"), "awsSecrets.billing=SECRET",
		},
		"probes that reach nothing": {
			config(t, `serving: {healthAddress: "127.0.0.1:9465"}`), "serving.healthAddress: kubelet asks the agent",
		},
		"probes of the Deployment that reach nothing": {
			append(config(t, "leader: {enabled: false}\nserving: {healthAddress: \"localhost:9465\"}"),
				"--set", "leader.split=true,agent.hostNetwork=true"), "serving.healthAddress: kubelet asks the leader",
		},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"template", "chandler", deploy("chart"), "--namespace", fixtures.Namespace}, tt.args...)
			_, err := run(t.Context(), args...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// TestFollowsConfiguration: what the manifests take from the configuration and the values.
func TestFollowsConfiguration(t *testing.T) {
	policies := filepath.Join(fixtures.Root(), "leader", "scrapercsr", "testdata", "policies-own.yaml")
	for name, tt := range map[string]struct {
		args       []string
		have, lack []string
	}{
		"another directory": {
			config(t, "hostDir: /opt/chandler"),
			[]string{"path: /opt/chandler\n", "mountPath: /opt/chandler\n"}, []string{"/var/lib/chandler\n"},
		},
		"other ports": {
			config(t, `serving: {address: "127.0.0.1:9000", healthAddress: ":9001"}`),
			[]string{"containerPort: 9000\n", "containerPort: 9001\n", "port: 9000\n"}, []string{"9464", "9465"},
		},
		"no metrics": {config(t, `serving: {address: ""}`), []string{"containerPort: 9465\n"}, []string{"kind: Service\n", "name: metrics"}},
		"files of another user": {
			config(t, "scraper: {files: {uid: 1000}}"),
			[]string{"add: [CHOWN, FOWNER, DAC_READ_SEARCH]"}, nil,
		},
		"no leader": {
			config(t, "leader: {enabled: false}"),
			[]string{"name: chandler-lease\n", "rules: []\n", "name: chandler-pull-secrets\n"},
			[]string{"name: chandler-leader-podlogs\n", "name: chandler-leader-csrapproval\n", "name: ci-cd\n", "name: chandler-leader-pullsecrets\n"},
		},
		"fewer tasks": {
			config(t, "scraper: {enabled: false}\nleader: {pullSecrets: {enabled: false}, podLogs: {enabled: false}}"),
			[]string{"name: chandler-pull-secrets\n", "name: chandler-pod-logs-roles\n"},
			[]string{"name: chandler-leader-podlogs\n", "name: chandler-leader-csrapproval\n", "name: chandler-leader-pullsecrets\n", "name: chandler-agent-scrapercert\n"},
		},
		"policies of one's own": {
			append(config(t, "scraper: {commonName: scraper@example, signerName: chandler.dev/scraper-client, duration: 1h}"),
				"--set-file", "scraperPolicies="+policies),
			[]string{"common name scraper@example as the whole subject", "name: chandler-leader-csrsigning\n"}, nil,
		},
		"another signer": {
			append(config(t, "scraper: {signerName: example.com/any}"), "--set-file", "scraperPolicies="+policies),
			[]string{"chandler.dev/scraper-client, example.com/any]"}, []string{"name: chandler-leader-csrsigning\n"},
		},
		"a digest": {
			[]string{"--set", "image.digest=sha256:" + strings.Repeat("0", 64)},
			[]string{"image: ghcr.io/chandler-k8s/chandler@sha256:000"}, nil,
		},
		"two Secrets": {
			[]string{"--set", "awsSecrets.billing=keys"},
			[]string{"mountPath: /etc/chandler/aws/billing\n", "secretName: keys\n", "mountPath: /etc/chandler/aws/default\n"}, nil,
		},
		"a role for the agents": {
			[]string{"--set", `agent.serviceAccountAnnotations.eks\.amazonaws\.com/role-arn=arn:x`},
			[]string{"eks.amazonaws.com/role-arn: arn:x\n"}, nil,
		},
		"keys of their namespace": {
			[]string{"--set", "hostNamespace.create=false"}, []string{"namespace: chandler-registries\n"}, []string{"name: chandler-registries\n"},
		},
		"keys in a namespace of the cluster's": {
			append(config(t, "leader: {pullSecrets: {hostNamespace: kube-system}}"), "--set", "hostNamespace.create=false"),
			[]string{"namespace: kube-system\n"}, []string{"name: kube-system\n"},
		},
		"credentials from elsewhere": {
			append(config(t, "awsCredentials: [{name: billing, source: /keys/billing}]"),
				"--set", "agent.extraVolumeMounts[0].name=keys,agent.extraVolumeMounts[0].mountPath=/keys"),
			[]string{"mountPath: /keys\n"}, nil,
		},
		"probes in the host's network": {
			append(config(t, `serving: {healthAddress: "127.0.0.1:9465"}`), "--set", "agent.hostNetwork=true"),
			[]string{"host: \"127.0.0.1\"\n            path: /healthz\n", "host: \"127.0.0.1\"\n            path: /readyz\n"}, nil,
		},
		"probes in the host's network, IPv6": {
			append(config(t, `serving: {healthAddress: "[::1]:9465"}`), "--set", "agent.hostNetwork=true"),
			[]string{"host: \"::1\"\n"}, nil,
		},
		"SELinux elsewhere than on OpenShift": {
			[]string{"--set", "selinux.agent.type=spc_t,selinux.agent.level=s0,selinux.label=true"},
			[]string{
				"        seLinuxOptions:\n          level: s0\n          type: spc_t\n",
				"command: [chcon, -t, container_file_t, -l, s0, /var/lib/chandler]\n", "image: registry.access.redhat.com/ubi9/ubi-minimal:9.6\n",
			},
			[]string{"SecurityContextConstraints", "required-scc", "chandler-serving"},
		},
		"SELinux with a label of the node's policy": {
			[]string{"--set", "selinux.agent.type=spc_t"}, []string{"type: spc_t\n"}, []string{"initContainers:", "chcon"},
		},
		"SELinux of the Deployment": {
			append(config(t, "leader: {enabled: false}"), "--set", "leader.split=true,selinux.leader.type=container_t"),
			[]string{"        seLinuxOptions:\n          type: container_t\n      containers:\n      - name: leader\n"}, []string{"spc_t"},
		},
		"SELinux of OpenShift, with another level": {
			[]string{"--set", "openshift.enabled=true,selinux.agent.level=s0"},
			[]string{"          level: s0\n          type: spc_t\n", "command: [chcon,", "kind: SecurityContextConstraints\n"}, nil,
		},
		"no tolerations": {
			[]string{"--set-json", "agent.tolerations=[]"}, []string{"kind: DaemonSet\n"}, []string{"tolerations:"},
		},
		"nobody may scrape": {
			[]string{"--set", "networkPolicy.enabled=true,networkPolicy.metricsFrom=null"}, []string{"- port: health\n"}, []string{"- port: metrics\n"},
		},
		"no priority": {
			[]string{"--set", "agent.priorityClassName="}, []string{"kind: DaemonSet\n"}, []string{"kind: ResourceQuota\n", "priorityClassName"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := join("", template(t, tt.args...))
			for _, want := range tt.have {
				if !strings.Contains(got, want) {
					t.Errorf("lacks %q", want)
				}
			}
			for _, other := range tt.lack {
				if strings.Contains(got, other) {
					t.Errorf("has %q", other)
				}
			}
		})
	}
}

// config returns the arguments that install with a configuration.
func config(t *testing.T, text string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	expect.OK(t, os.WriteFile(file, []byte(header+text+"\n"), 0o600))
	return []string{"--set-file", "config=" + file}
}
