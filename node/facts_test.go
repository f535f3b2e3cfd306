package node

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/node/identity"
	"github.com/chandler-k8s/chandler/test/expect"
)

// TestRegionIsMissing: which sets need a region where no source has one. It holds back no
// credentials, and takes no region away while something needs it.
func TestRegionIsMissing(t *testing.T) {
	const other, bare, with = "openstack:///6f5ac1d0", "[default]\n", "[default]\nregion = eu-west-1\n"
	for name, tt := range map[string]struct {
		providerID            string
		keys                  bool
		configured, published string
		want                  string // config.ini
		failed                bool
	}{
		"another cloud, with keys":                  {other, true, "", "", bare, true},
		"another cloud, with keys and files":        {other, true, "", with, with, true},
		"another cloud, the configuration says":     {other, true, "us-east-1", "", "[default]\nregion = us-east-1\n", false},
		"another cloud, nothing for AWS":            {other, false, "", "", bare, false},
		"another cloud, the keys are gone":          {other, false, "", with, bare, false},
		"AWS, without a zone":                       {"aws:////i-0123456789abcdef0", false, "", "", bare, true},
		"AWS, the keys are gone":                    {"aws:////i-0123456789abcdef0", false, "", with, with, true},
		"AWS, a region that AWS has not":            {"eks-hybrid:///nowhere/payments/host-7", false, "", "", bare, true},
		"a node that nothing says anything about":   {"", false, "", "", bare, false},
		"the same, with keys, as kubeadm and MinIO": {"", true, "", "", bare, true},
	} {
		t.Run(name, func(t *testing.T) {
			source := t.TempDir()
			n, path := newTestNode(t, nil, Credential{Set: "aws", Source: source, Profile: "default", Mode: 0o440, UID: -1, GID: -1})
			var logs bytes.Buffer
			n.Log = slog.New(slog.NewTextHandler(&logs, nil))
			n.Identity = newTestResolver(n.Log, tt.providerID, tt.configured)
			if tt.published != "" {
				_, err := n.Dir.Publish("aws", []hostfiles.File{
					{Name: "config.ini", Mode: 0o444, UID: -1, GID: -1, Data: []byte(tt.published)},
					{Name: "credentials.ini", Mode: 0o440, UID: -1, GID: -1, Data: []byte(section("default", "AKIAOLD"))},
				})
				expect.OK(t, err)
			}
			keys := map[string]string{}
			if tt.keys {
				keys["aws/credentials.ini"] = section("default", "AKIANEW")
				mount(t, source, pair("AKIANEW"))
			}
			_, err := n.Identity.Resolve(t.Context())
			expect.OK(t, err)
			expect.OK(t, n.pass())
			expect.OK(t, n.pass())
			keys["aws/config.ini"] = tt.want
			wantFiles(t, path, keys)
			if _, err := os.Stat(filepath.Join(path, "aws", "credentials.ini")); (err == nil) != tt.keys {
				t.Errorf("credentials.ini: got %v, want it: %t", err, tt.keys)
			}
			wantOnce(t, logs.String(), "set published with problems", tt.failed, "set identity.region", "openshift-infrastructure", "provider-id", tt.providerID)
			if err := n.Ready(); tt.failed && tt.published == "" && (err == nil || !strings.Contains(err.Error(), "set identity.region")) {
				t.Errorf("ready: got %v, want the region that is missing", err)
			}
			if _, err := os.Stat(filepath.Join(path, "cluster", "CLUSTERID")); err != nil {
				t.Errorf("the set cluster is held back: %v", err)
			}
		})
	}
}

// wantOnce wants a message in the log once, with these parts, or not at all.
func wantOnce(t *testing.T, log, message string, want bool, parts ...string) {
	t.Helper()
	if got := strings.Count(log, message); got != map[bool]int{true: 1}[want] {
		t.Errorf("%q: got %d lines, want one: %t\n%s", message, got, want, log)
	}
	for _, part := range parts {
		if want && !strings.Contains(log, part) {
			t.Errorf("the log does not say %q:\n%s", part, log)
		}
	}
}

// TestRegionInDoubt: while the metadata service may still answer, keys are published
// without a region, and the node is not ready.
func TestRegionInDoubt(t *testing.T) {
	source := t.TempDir()
	mount(t, source, pair("AKIANEW"))
	n, path := newTestNode(t, identity.Facts{identity.ClusterID: {Value: "prod", Source: "config"}},
		Credential{Set: "aws", Source: source, Profile: "default", Mode: 0o440, UID: -1, GID: -1})
	expect.OK(t, n.pass())
	wantFiles(t, path, map[string]string{"aws/config.ini": "[default]\n", "aws/credentials.ini": section("default", "AKIANEW")})
	if err := n.Ready(); err == nil || !strings.Contains(err.Error(), "region in the Secret (no source has been asked yet)") {
		t.Errorf("ready: got %v, want that no source has been asked", err)
	}
}

// newTestResolver asks a cluster of one node, whose label looks like a region of AWS
// unless the node is of AWS.
func newTestResolver(log *slog.Logger, providerID, region string) *identity.Resolver {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{ProviderID: providerID}}
	if !strings.HasPrefix(providerID, "aws:") && !strings.HasPrefix(providerID, "eks-hybrid:") {
		node.Labels = map[string]string{corev1.LabelTopologyRegion: "us-west-1"}
	}
	system := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem, UID: "6f5a-uid"}}
	return identity.New(identity.Options{
		NodeName: "n", Region: region, Core: fake.NewClientset(node, system), Log: log, Metrics: prometheus.NewRegistry(),
		Dynamic: dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
			map[schema.GroupVersionResource]string{{Group: "machine.openshift.io", Version: "v1beta1", Resource: "machines"}: "MachineList"}),
	})
}

// TestInherit: what is kept of the files of an earlier run, by whose they are.
func TestInherit(t *testing.T) {
	const mine = `{"clusterID": {"value": "prod", "source": "imds"}, "nodeName": {"value": "a", "source": "config"}}`
	for name, tt := range map[string]struct {
		identity string
		node     string
		want     string   // the cluster ID
		left     []string // of the sets
	}{
		"this node":                       {mine, "a", "prod", []string{"aws", "cluster", "other", "scraper"}},
		"another node":                    {mine, "b", "", nil},
		"a version that wrote no name":    {`{"clusterID": {"value": "prod", "source": "imds"}}`, "b", "prod", []string{"aws", "cluster", "other", "scraper"}},
		"unreadable":                      {`{`, "b", "", []string{"aws", "cluster", "other", "scraper"}},
		"nothing, as on a machine of old": {"", "a", "", []string{"aws", "other", "scraper"}},
	} {
		t.Run(name, func(t *testing.T) {
			n, path := newTestNode(t, nil)
			for _, set := range []string{"aws", "other", "scraper"} {
				publishFile(t, n.Dir, set, "x", "x")
			}
			if tt.identity != "" {
				publishFile(t, n.Dir, "cluster", "identity.json", tt.identity)
			}
			if got := Inherit(n.Dir, tt.node, n.Log).Value(identity.ClusterID); got != tt.want {
				t.Errorf("cluster ID: got %q, want %q", got, tt.want)
			}
			left, err := filepath.Glob(filepath.Join(path, "*", "..data"))
			expect.OK(t, err)
			for i := range left {
				left[i] = filepath.Base(filepath.Dir(left[i]))
			}
			if !slices.Equal(left, tt.left) {
				t.Errorf("sets: got %v, want %v", left, tt.left)
			}
		})
	}
}

func publishFile(t *testing.T, dir *hostfiles.Dir, set, name, data string) {
	t.Helper()
	_, err := dir.Publish(set, []hostfiles.File{{Name: name, Mode: 0o444, UID: -1, GID: -1, Data: []byte(data)}})
	expect.OK(t, err)
}
