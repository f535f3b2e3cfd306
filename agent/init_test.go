package agent_test

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/agent"
	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// seedPod is a pod whose manifest was written for the seed's image.
type seedPod struct {
	*cluster.Cluster
	kubeconfig string
	logs       *expect.Log
}

func newSeedPod(t *testing.T) *seedPod {
	t.Helper()
	p := &seedPod{Cluster: cluster.ForTest(t, cluster.Options{}), kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"), logs: new(expect.Log)}
	expect.OK(t, fixtures.Apply(t.Context(), p.Cluster, "crds", "openshift-machine"))
	seedRBAC(t, p.Cluster)
	token, err := p.AsServiceAccount(t.Context(), "openshift-monitoring", "pod-sa")
	expect.OK(t, err)
	expect.OK(t, cluster.WriteKubeconfig(p.kubeconfig, token))
	return p
}

// init runs in a fresh directory with these key files.
func (p *seedPod) init(t *testing.T, keys map[string]string) (dir string, err error) {
	t.Helper()
	dir = t.TempDir()
	for name, value := range keys {
		expect.OK(t, os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600))
	}
	return dir, agent.Init(t.Context(), p.options(dir))
}

func (p *seedPod) options(dir string) agent.InitOptions {
	return agent.InitOptions{
		MachineNamespace: "openshift-machine-api",
		ClusterIDFile:    filepath.Join(dir, "env/CLUSTERID"),
		RegionFile:       filepath.Join(dir, "aws/config.ini"),
		CredentialsFile:  filepath.Join(dir, "aws/credentials.ini"),
		AccessKeyFile:    filepath.Join(dir, "id"), SecretKeyFile: filepath.Join(dir, "secret"),
		UID: -1, GID: -1, Kubeconfig: p.kubeconfig, Version: "test", Log: slog.New(slog.NewTextHandler(p.logs, nil)),
	}
}

// wantFiles are all that is in the two directories that Init writes to.
func wantFiles(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for _, pattern := range []string{"env/*", "aws/*", "*/..*"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		expect.OK(t, err)
		for _, path := range paths {
			name, err := filepath.Rel(dir, path)
			expect.OK(t, err)
			got[name] = readFile(t, path)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
}

const (
	seedClusterID = "CLUSTERID=\"prod-x7k2p\"\n"
	seedRegion    = "[default]\nregion = us-east-2\n"
)

// TestInit stands in for the seed's image: its flags, its RBAC, its files.
func TestInit(t *testing.T) {
	p := newSeedPod(t)
	run := p.init
	t.Run("byte for byte", func(t *testing.T) {
		dir, err := run(t, map[string]string{"id": accessKey, "secret": secretKey + "\n"})
		expect.OK(t, err)
		wantFiles(t, dir, map[string]string{
			"env/CLUSTERID": seedClusterID, "aws/config.ini": seedRegion, "aws/credentials.ini": credentialsINI(accessKey, secretKey),
		})
		for _, name := range []string{"env/CLUSTERID", "aws/config.ini", "aws/credentials.ini"} {
			wantMode(t, filepath.Join(dir, name), 0o644) // consumers run as any user
		}
	})
	t.Run("a group alone reads the credentials", func(t *testing.T) {
		dir, err := run(t, map[string]string{"id": accessKey, "secret": secretKey})
		expect.OK(t, err)
		o := p.options(dir)
		o.GID = os.Getgid()
		expect.OK(t, agent.Init(t.Context(), o))
		wantMode(t, filepath.Join(dir, "aws/credentials.ini"), 0o640)
		wantMode(t, filepath.Join(dir, "aws/config.ini"), 0o644)
	})
	for name, tt := range map[string]struct {
		keys map[string]string
		log  string
	}{
		"no keys":              {nil, "key file does not exist"},
		"one key of two":       {map[string]string{"id": accessKey}, "key file does not exist"},
		"the other key of two": {map[string]string{"secret": secretKey}, "key file does not exist"},
		"an empty key":         {map[string]string{"id": accessKey, "secret": "\n"}, "key file is empty"},
	} {
		t.Run(name+": no credentials, and the rest", func(t *testing.T) {
			p.logs = new(expect.Log)
			dir, err := run(t, tt.keys)
			if err != nil {
				t.Errorf("got %v, want success as with the seed", err)
			}
			wantFiles(t, dir, map[string]string{"env/CLUSTERID": seedClusterID, "aws/config.ini": seedRegion})
			p.wantWarnings(t, tt.log, "credentials not written")
		})
	}
	t.Run("the first line of a key counts", func(t *testing.T) {
		dir, err := run(t, map[string]string{"id": accessKey + "\r\n", "secret": secretKey + "\n[x]\n"})
		expect.OK(t, err)
		if got, want := readFile(t, filepath.Join(dir, "aws/credentials.ini")), credentialsINI(accessKey, secretKey); got != want {
			t.Errorf("credentials.ini: got %q, want %q", got, want)
		}
		p.wantWarnings(t, "key file has more than one line")
	})
	t.Run("a bad key is an error, the rest is written", func(t *testing.T) {
		dir, err := run(t, map[string]string{"id": accessKey, "secret": secretKey + " x"})
		if err == nil || !strings.Contains(err.Error(), "aws_secret_access_key") || strings.Contains(err.Error(), secretKey) {
			t.Errorf("got %v, want an error that names the key and not its value", err)
		}
		if got := readFile(t, filepath.Join(dir, "env/CLUSTERID")); got == "" {
			t.Error("CLUSTERID is missing")
		}
	})
	t.Run("no API server: keys are written, the error names the rest", func(t *testing.T) {
		p.StopAPIServer()
		dir, err := run(t, map[string]string{"id": accessKey, "secret": secretKey})
		if err == nil || !strings.Contains(err.Error(), "CLUSTERID") || !strings.Contains(err.Error(), "config.ini") {
			t.Errorf("got %v, want an error that names both files", err)
		}
		if got, want := readFile(t, filepath.Join(dir, "aws/credentials.ini")), credentialsINI(accessKey, secretKey); got != want {
			t.Errorf("credentials.ini: got %q, want %q", got, want)
		}
	})
}

// TestInitOnGCP: the seed needs the region only to write it beside credentials.
func TestInitOnGCP(t *testing.T) {
	p := newSeedPod(t)
	expect.OK(t, p.Apply(t.Context(), []byte(`
apiVersion: machine.openshift.io/v1beta1
kind: Machine
metadata:
  name: prod-x7k2p-worker-us-east-2a-9vq4m
  namespace: openshift-machine-api
  labels: {machine.openshift.io/cluster-api-cluster: prod-x7k2p}
spec:
  providerID: gce://project/us-east1-b/prod-x7k2p-worker-b-9vq4m
  providerSpec:
    value: {apiVersion: machine.openshift.io/v1beta1, kind: GCPMachineProviderSpec, region: us-east1, zone: us-east1-b}
`)))
	t.Run("no keys", func(t *testing.T) {
		dir, err := p.init(t, nil)
		if err != nil {
			t.Errorf("got %v, want success as with the seed", err)
		}
		wantFiles(t, dir, map[string]string{"env/CLUSTERID": seedClusterID})
		p.wantWarnings(t, "region not written", "credentials not written")
	})
	t.Run("keys without a region are an error", func(t *testing.T) {
		dir, err := p.init(t, map[string]string{"id": accessKey, "secret": secretKey})
		if err == nil || !strings.Contains(err.Error(), "config.ini: no source knows the region") {
			t.Errorf("got %v, want an error that names config.ini", err)
		}
		wantFiles(t, dir, map[string]string{"env/CLUSTERID": seedClusterID, "aws/credentials.ini": credentialsINI(accessKey, secretKey)})
	})
}

// TestInitNamesUnreadableKeys: the image runs as another user than the seed's.
func TestInitNamesUnreadableKeys(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads every file")
	}
	p := &seedPod{kubeconfig: "/absent", logs: new(expect.Log)}
	dir := t.TempDir()
	expect.OK(t, os.WriteFile(filepath.Join(dir, "id"), []byte(accessKey), 0))
	if err := agent.Init(t.Context(), p.options(dir)); err == nil || !strings.Contains(err.Error(), "fsGroup") {
		t.Errorf("got %v, want an error with the remedy", err)
	}
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	expect.OK(t, err)
	if got := info.Mode().Perm(); got != want {
		t.Errorf("%s: got mode %o, want %o", path, got, want)
	}
}

func (p *seedPod) wantWarnings(t *testing.T, want ...string) {
	t.Helper()
	for _, part := range want {
		if !strings.Contains(p.logs.String(), `level=WARN msg="`+part) {
			t.Errorf("no warning %q in the log:\n%s", part, p.logs.String())
		}
	}
}

// seedRBAC grants what the seed's README tells its users to grant.
func seedRBAC(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.Admin())
	expect.OK(t, err)
	expect.OK(t, c.Apply(t.Context(), []byte(`
apiVersion: v1
kind: Namespace
metadata: {name: openshift-monitoring}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: pod-sa, namespace: openshift-monitoring}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: access-machine-info-cr}
rules:
- apiGroups: ["machine.openshift.io"]
  resources: ["machines"]
  verbs: ["get", "list"]
`)))
	_, err = client.RbacV1().RoleBindings("openshift-machine-api").Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "allow-deploy-access-to-machine-info"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "pod-sa", Namespace: "openshift-monitoring"}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "access-machine-info-cr"},
	}, metav1.CreateOptions{})
	expect.OK(t, err)
}

// publish plays an agent.
func publish(t *testing.T, dir, set string, files map[string]string) {
	t.Helper()
	d, err := hostfiles.Open(dir)
	expect.OK(t, err)
	defer d.Close()
	var list []hostfiles.File
	for name, data := range files {
		list = append(list, hostfiles.File{Name: name, Mode: 0o444, UID: -1, GID: -1, Data: []byte(data)})
	}
	_, err = d.Publish(set, list)
	expect.OK(t, err)
}
