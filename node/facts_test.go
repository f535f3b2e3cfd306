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

// TestRegionIsMissing: which sets need a region where no source has one.
func TestRegionIsMissing(t *testing.T) {
	const other, bare, with = "openstack:///6f5ac1d0", "[default]\n", "[default]\nregion = eu-west-1\n"
	for name, tt := range map[string]struct {
		providerID            string
		keys                  bool
		configured, published string
		want                  string // config.ini
		failed                bool
	}{
		"another cloud, with keys":                  {other, true, "", "", "", true},
		"another cloud, with keys and files":        {other, true, "", with, with, true},
		"another cloud, the configuration says":     {other, true, "us-east-1", "", "[default]\nregion = us-east-1\n", false},
		"another cloud, nothing for AWS":            {other, false, "", "", bare, false},
		"another cloud, a region that was there":    {other, false, "", with, with, true},
		"AWS, without a zone":                       {"aws:////i-0123456789abcdef0", false, "", "", "", true},
		"a node that nothing says anything about":   {"", false, "", "", bare, false},
		"the same, with keys, as kubeadm and MinIO": {"", true, "", "", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			source := t.TempDir()
			if tt.keys {
				expect.OK(t, os.WriteFile(filepath.Join(source, "aws_access_key_id"), []byte("AKIAEXAMPLE"), 0o600))
				expect.OK(t, os.WriteFile(filepath.Join(source, "aws_secret_access_key"), []byte("secret"), 0o600))
			}
			n, path := newTestNode(t, nil, Credential{Set: "aws", Source: source, Profile: "default", Mode: 0o440, UID: -1, GID: -1})
			var logs bytes.Buffer
			n.Log = slog.New(slog.NewTextHandler(&logs, nil))
			n.Identity = newTestResolver(n.Log, tt.providerID, tt.configured)
			if tt.published != "" {
				publishFile(t, n.Dir, "aws", "config.ini", tt.published)
			}
			_, err := n.Identity.Resolve(t.Context())
			expect.OK(t, err)
			expect.OK(t, n.pass())
			expect.OK(t, n.pass())
			got, err := os.ReadFile(filepath.Join(path, "aws", "config.ini"))
			if string(got) != tt.want || (err != nil) != (tt.want == "") {
				t.Errorf("config.ini: got %q and %v, want %q", got, err, tt.want)
			}
			lines := strings.Count(logs.String(), "set not published")
			if want := map[bool]int{true: 1}[tt.failed]; lines != want {
				t.Errorf("got %d lines that the set is not published, want %d:\n%s", lines, want, logs.String())
			}
			for _, part := range []string{"set identity.region", "openshift-infrastructure", "provider-id", tt.providerID} {
				if tt.failed && !strings.Contains(logs.String(), part) {
					t.Errorf("the log does not say %q:\n%s", part, logs.String())
				}
			}
			if _, err := os.Stat(filepath.Join(path, "cluster", "CLUSTERID")); err != nil {
				t.Errorf("the set cluster is held back: %v", err)
			}
		})
	}
}

// newTestResolver asks a cluster of one node, whose label looks like a region of AWS
// unless the node is of AWS.
func newTestResolver(log *slog.Logger, providerID, region string) *identity.Resolver {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{ProviderID: providerID}}
	if !strings.HasPrefix(providerID, "aws:") {
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
		"another node":                    {mine, "b", "", []string{"other"}},
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
