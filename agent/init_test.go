package agent_test

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/agent"
	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// TestInit stands in for the seed's image: its flags, its RBAC, its files.
func TestInit(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{})
	expect.OK(t, fixtures.OpenShift(t.Context(), c))
	seedRBAC(t, c)
	token, err := c.AsServiceAccount(t.Context(), "openshift-monitoring", "pod-sa")
	expect.OK(t, err)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	expect.OK(t, cluster.WriteKubeconfig(kubeconfig, token))

	run := func(t *testing.T, keys map[string]string) (dir string, err error) {
		dir = t.TempDir()
		for name, value := range keys {
			expect.OK(t, os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600))
		}
		return dir, agent.Init(t.Context(), agent.InitOptions{
			MachineNamespace: "openshift-machine-api",
			ClusterIDFile:    filepath.Join(dir, "env/CLUSTERID"),
			RegionFile:       filepath.Join(dir, "aws/config.ini"),
			CredentialsFile:  filepath.Join(dir, "aws/credentials.ini"),
			AccessKeyFile:    filepath.Join(dir, "id"), SecretKeyFile: filepath.Join(dir, "secret"),
			UID: -1, GID: -1, Kubeconfig: kubeconfig, Version: "test", Log: slog.New(slog.DiscardHandler),
		})
	}
	t.Run("byte for byte", func(t *testing.T) {
		dir, err := run(t, map[string]string{"id": accessKey, "secret": secretKey + "\n"})
		expect.OK(t, err)
		for name, want := range map[string]struct {
			content string
			mode    fs.FileMode
		}{
			"env/CLUSTERID":       {"CLUSTERID=\"prod-x7k2p\"\n", 0o644},
			"aws/config.ini":      {"[default]\nregion = us-east-2\n", 0o644},
			"aws/credentials.ini": {credentialsINI(accessKey, secretKey), 0o640},
		} {
			if got := readFile(t, filepath.Join(dir, name)); got != want.content {
				t.Errorf("%s: got %q, want %q", name, got, want.content)
			}
			info, err := os.Stat(filepath.Join(dir, name))
			expect.OK(t, err)
			if got := info.Mode().Perm(); got != want.mode {
				t.Errorf("%s: got mode %o, want %o", name, got, want.mode)
			}
		}
	})
	t.Run("no keys hold back no region", func(t *testing.T) {
		dir, err := run(t, nil)
		expect.OK(t, err)
		if got, want := readFile(t, filepath.Join(dir, "aws/config.ini")), "[default]\nregion = us-east-2\n"; got != want {
			t.Errorf("config.ini: got %q, want %q", got, want)
		}
		if _, err := os.Stat(filepath.Join(dir, "aws/credentials.ini")); !os.IsNotExist(err) {
			t.Errorf("credentials.ini without keys: got %v, want it absent", err)
		}
	})
	t.Run("a bad key is an error, the rest is written", func(t *testing.T) {
		dir, err := run(t, map[string]string{"id": accessKey, "secret": secretKey + "\n[x]"})
		if err == nil || !strings.Contains(err.Error(), "aws_secret_access_key") || strings.Contains(err.Error(), secretKey) {
			t.Errorf("got %v, want an error that names the key and not its value", err)
		}
		if got := readFile(t, filepath.Join(dir, "env/CLUSTERID")); got == "" {
			t.Error("CLUSTERID is missing")
		}
	})
	t.Run("no API server: keys are written, the error names the rest", func(t *testing.T) {
		c.StopAPIServer()
		dir, err := run(t, map[string]string{"id": accessKey, "secret": secretKey})
		if err == nil || !strings.Contains(err.Error(), "CLUSTERID") || !strings.Contains(err.Error(), "config.ini") {
			t.Errorf("got %v, want an error that names both files", err)
		}
		if got, want := readFile(t, filepath.Join(dir, "aws/credentials.ini")), credentialsINI(accessKey, secretKey); got != want {
			t.Errorf("credentials.ini: got %q, want %q", got, want)
		}
	})
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
