//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// cliImage is what the main container of the README's pod runs.
	cliImage = "quay.io/openshift/origin-cli:v4.0.0"
	seedPods = "deployment-ns"
)

// TestInitContainer runs the pods of OpenShift's managed-prometheus-exporter init
// container: the Deployment of its README, and the command line that exporters give it.
// Their image alone is another.
func TestInitContainer(t *testing.T) {
	s := newSuite(t)
	s.needNodes(t)
	images := []string{pack(t, build(t, ".", ".", "chandler"), image), busybox(t, cliImage, "sleep", "cat")}
	for node := range s.roots {
		for _, image := range images {
			s.cluster(t, "import", node, image)
		}
	}
	s.openShift(t)
	s.apply(t, seedManifest)
	for name, tt := range map[string]struct {
		command []string
		want    map[string]string
	}{
		// Its Secret is mounted elsewhere than where the defaults look.
		"readme": {
			[]string{"/usr/local/bin/init.py"},
			map[string]string{"/config/env/CLUSTERID": "CLUSTERID=\"prod-x7k2p\"\n", "/secrets/aws/config.ini": "[default]\nregion = us-east-2\n"},
		},
		"exporter": {
			[]string{
				"/usr/local/bin/init.py", "-r", "/secrets/aws/config.ini", "-a", "/rawsecrets/aws_access_key_id",
				"-A", "/rawsecrets/aws_secret_access_key", "-o", "/secrets/aws/credentials.ini", "-c", "/config/env/CLUSTERID",
			},
			map[string]string{
				"/config/env/CLUSTERID":        "CLUSTERID=\"prod-x7k2p\"\n",
				"/secrets/aws/config.ini":      "[default]\nregion = us-east-2\n",
				"/secrets/aws/credentials.ini": "[default]\naws_access_key_id = AKIAE2ESEED00000000\naws_secret_access_key = secretOfTheSeedsReadme\n",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.apply(t, fmt.Sprintf(seedDeployment, name, image, `"`+strings.Join(tt.command, `", "`)+`"`, cliImage))
			deployment := "deployment/" + name
			s.kubectl(t, "--namespace", seedPods, "rollout", "status", deployment, "--timeout", patience.String())
			for path, want := range tt.want {
				if got := s.kubectl(t, "--namespace", seedPods, "exec", deployment, "--container", "main", "--", "/bin/cat", path); got != want {
					t.Errorf("%s: got %q, want %q", path, got, want)
				}
			}
		})
	}
}

// openShift makes the cluster one with a Machine, until the test ends.
func (s *suite) openShift(t *testing.T) {
	t.Helper()
	manifests := filepath.Join(root, "test", "fixtures", "manifests")
	t.Cleanup(func() {
		s.kubectl(t, "delete", "--ignore-not-found", "namespace", seedPods, "openshift-machine-api")
		s.kubectl(t, "delete", "--ignore-not-found", "clusterrole", "access-machine-info-cr")
		s.kubectl(t, "delete", "--ignore-not-found", "--filename", filepath.Join(manifests, "crds.yaml"))
		eventually(t, "end of namespace "+seedPods, func(ctx context.Context) error {
			_, err := s.client.CoreV1().Namespaces().Get(ctx, seedPods, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(err, errors.New("it is still there"))
		})
	})
	s.kubectl(t, "apply", "--filename", filepath.Join(manifests, "crds.yaml"))
	s.kubectl(t, "wait", "--for", "condition=Established", "--timeout", patience.String(), "--filename", filepath.Join(manifests, "crds.yaml"))
	s.kubectl(t, "apply", "--filename", filepath.Join(manifests, "openshift-machine.yaml"))
}

// seedManifest is what the README has its users make first.
const seedManifest = `
apiVersion: v1
kind: Namespace
metadata: {name: ` + seedPods + `}
---
apiVersion: v1
kind: Secret
metadata: {name: my-credentials-secret, namespace: ` + seedPods + `}
stringData: {aws_access_key_id: AKIAE2ESEED00000000, aws_secret_access_key: secretOfTheSeedsReadme}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: pod-sa, namespace: ` + seedPods + `}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: access-machine-info-cr}
rules:
- apiGroups: ["machine.openshift.io"]
  resources: ["machines"]
  verbs: ["get", "list"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: allow-deploy-access-to-machine-info, namespace: openshift-machine-api}
subjects:
- {kind: ServiceAccount, name: pod-sa, namespace: ` + seedPods + `}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: access-machine-info-cr}
`

// seedDeployment needs a name, the image of the init container, its command and the
// image of the other. That one runs as a user of its own, which reads what init wrote.
const seedDeployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: ` + seedPods + `}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      serviceAccountName: pod-sa
      initContainers:
      - name: setupcreds
        image: %[2]s
        command: [%[3]s]
        volumeMounts:
        - {name: awsrawcreds, mountPath: /rawsecrets, readOnly: true}
        - {name: secrets, mountPath: /secrets}
        - {name: envfiles, mountPath: /config}
      containers:
      - name: main
        image: %[4]s
        command: [/bin/sleep, "86400"]
        securityContext: {runAsUser: 1000}
        volumeMounts:
        - {name: secrets, mountPath: /secrets, readOnly: true}
        - {name: envfiles, mountPath: /config, readOnly: true}
      volumes:
      - name: awsrawcreds
        secret: {secretName: my-credentials-secret}
      - name: secrets
        emptyDir: {}
      - name: envfiles
        emptyDir: {}
`
