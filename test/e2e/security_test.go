//go:build e2e

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	certsv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

var update = flag.Bool("update", false, "write the checked-in lists of rights anew")

const agentLabels = "app.kubernetes.io/name=chandler"

// stolen returns a client with the token that lies on a node which does not lead,
// and the agent's pod.
func (p *product) stolen(t *testing.T) (kubernetes.Interface, *corev1.Pod) {
	t.Helper()
	leader := p.holder(t, "")
	node := p.nodes[0]
	if node == leader.Spec.NodeName {
		node = p.nodes[1]
	}
	pod := p.podOn(t, home, agentLabels, node)
	var token string
	if p.roots != nil {
		token = p.cluster(t, "exec", node, "cat", "/var/lib/kubelet/pods/"+string(pod.UID)+"/volumes/kubernetes.io~projected/token/token")
	} else { // one like it
		token = strings.TrimSpace(p.kubectl(t, "--namespace", home, "create", "token", "chandler-agent",
			"--bound-object-kind", "Pod", "--bound-object-name", pod.Name, "--bound-object-uid", string(pod.UID)))
	}
	p.secrets = append(p.secrets, token)
	admin, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(admin)
	config.BearerToken = token
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	who, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || who.Status.UserInfo.Username != "system:serviceaccount:chandler:chandler-agent" {
		t.Fatalf("the stolen token: got %v, %v", who, err)
	}
	return client, pod
}

// attempt is something that a thief tries.
type attempt = func(context.Context) error

// thief tries with a node's token what an agent that does not lead may not do.
func (p *product) thief(t *testing.T) {
	client, pod := p.stolen(t)
	attempts := toLead(t, client, pod)
	maps.Copy(attempts, toReadAndWrite(client, pod))
	for name, try := range attempts {
		if err := try(t.Context()); !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want it forbidden", name, err)
		}
	}
}

// toLead: the leader's rights, and certificates of others.
func toLead(t *testing.T, client kubernetes.Interface, pod *corev1.Pod) map[string]attempt {
	leases, requests := client.CoordinationV1().Leases(home), client.CertificatesV1().CertificateSigningRequests()
	return map[string]attempt{
		"leader's token": func(ctx context.Context) error {
			_, err := client.CoreV1().ServiceAccounts(home).CreateToken(ctx, "chandler-leader", &authenticationv1.TokenRequest{
				Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}},
			}, metav1.CreateOptions{})
			return err
		},
		"Lease seized": func(ctx context.Context) error {
			lease, err := leases.Get(ctx, "chandler", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			lease.Spec.HolderIdentity = &pod.Name
			_, err = leases.Update(ctx, lease, metav1.UpdateOptions{FieldManager: "chandler"})
			return err
		},
		"Lease deleted": func(ctx context.Context) error { return leases.Delete(ctx, "chandler", metav1.DeleteOptions{}) },
		"another Lease": func(ctx context.Context) error {
			_, err := leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "thief"}}, metav1.CreateOptions{})
			return err
		},
		"a certificate of an administrator": func(ctx context.Context) error {
			_, err := requests.Create(ctx, forged(t, pkix.Name{CommonName: "kubernetes-admin", Organization: []string{"kubeadm:cluster-admins"}}), metav1.CreateOptions{})
			return err
		},
		"a certificate of a node": func(ctx context.Context) error {
			_, err := requests.Create(ctx, forged(t, pkix.Name{CommonName: "system:node:" + pod.Spec.NodeName, Organization: []string{"system:nodes"}}), metav1.CreateOptions{})
			return err
		},
		"an approval": func(ctx context.Context) error {
			all, err := requests.List(ctx, metav1.ListOptions{})
			if err != nil || len(all.Items) == 0 {
				t.Fatalf("requests: got %v, %v", all, err)
			}
			_, err = requests.UpdateApproval(ctx, all.Items[0].Name, &all.Items[0], metav1.UpdateOptions{})
			return err
		},
	}
}

// toReadAndWrite: objects that are none of an agent's business.
func toReadAndWrite(client kubernetes.Interface, pod *corev1.Pod) map[string]attempt {
	named := metav1.ObjectMeta{Name: "thief"}
	return map[string]attempt{
		"Secrets of all": func(ctx context.Context) error {
			_, err := client.CoreV1().Secrets("").List(ctx, metav1.ListOptions{})
			return err
		},
		"keys of registries": func(ctx context.Context) error {
			_, err := client.CoreV1().Secrets(keysIn).List(ctx, metav1.ListOptions{})
			return err
		},
		"its own mounted Secret": func(ctx context.Context) error {
			_, err := client.CoreV1().Secrets(home).Get(ctx, "chandler-aws-default", metav1.GetOptions{})
			return err
		},
		"a pull secret": func(ctx context.Context) error {
			_, err := client.CoreV1().Secrets(readers).Create(ctx, &corev1.Secret{ObjectMeta: named}, metav1.CreateOptions{})
			return err
		},
		"a Role": func(ctx context.Context) error {
			_, err := client.RbacV1().Roles(readers).Create(ctx, &rbacv1.Role{ObjectMeta: named}, metav1.CreateOptions{})
			return err
		},
		"a log": func(ctx context.Context) error {
			return client.CoreV1().Pods(home).GetLogs(pod.Name, &corev1.PodLogOptions{}).Do(ctx).Error()
		},
		"a pod": func(ctx context.Context) error {
			_, err := client.CoreV1().Pods(home).Create(ctx, &corev1.Pod{ObjectMeta: named, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "x", Image: "x"}}}}, metav1.CreateOptions{})
			return err
		},
		"its Node": func(ctx context.Context) error {
			_, err := client.CoreV1().Nodes().Patch(ctx, pod.Spec.NodeName, types.MergePatchType, []byte(`{"metadata":{"labels":{"thief":"x"}}}`), metav1.PatchOptions{})
			return err
		},
		"the DaemonSet": func(ctx context.Context) error {
			_, err := client.AppsV1().DaemonSets(home).Patch(ctx, "chandler", types.MergePatchType, []byte(`{"metadata":{"labels":{"thief":"x"}}}`), metav1.PatchOptions{})
			return err
		},
		"the configuration": func(ctx context.Context) error {
			_, err := client.CoreV1().ConfigMaps(home).Patch(ctx, "chandler", types.MergePatchType, []byte(`{"data":{"config.yaml":""}}`), metav1.PatchOptions{})
			return err
		},
	}
}

func forged(t *testing.T, subject pkix.Name) *certsv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	if err != nil {
		t.Fatal(err)
	}
	seconds := int32(3600)
	return &certsv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "thief-"},
		Spec: certsv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}),
			SignerName: certsv1.KubeAPIServerClientSignerName, ExpirationSeconds: &seconds,
			Usages: []certsv1.KeyUsage{certsv1.UsageDigitalSignature, certsv1.UsageClientAuth},
		},
	}
}

// writes runs another program in a container exactly like the agent's. Every container
// may write to its own /dev, which is in memory.
func (p *product) writes(t *testing.T) {
	set, err := p.client.AppsV1().DaemonSets(home).Get(t.Context(), "chandler", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{hostDir + "/probe": true}
	spec := set.Spec.Template.Spec.DeepCopy()
	container := &spec.Containers[0]
	for _, path := range []string{
		"/probe", "/etc/probe", "/tmp/probe", "/var/lib/probe", "/run/probe", "/proc/sys/kernel/hostname", "/sys/fs/cgroup/probe",
		"/etc/chandler/config/config.yaml", "/etc/chandler/aws/default/probe", "/var/run/secrets/kubernetes.io/serviceaccount/token",
	} {
		want[path] = false
	}
	container.Image, container.ImagePullPolicy, container.Args = probeImage, corev1.PullNever, []string{"write"}
	for path := range want {
		container.Args = append(container.Args, path)
	}
	container.LivenessProbe, container.ReadinessProbe, container.StartupProbe = nil, nil, nil
	spec.RestartPolicy, spec.NodeName = corev1.RestartPolicyNever, p.nodes[0]
	pod, err := p.client.CoreV1().Pods(home).Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "writes-"}, Spec: *spec}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kubectl(t, "--namespace", home, "delete", "pod", pod.Name)
		if p.roots == nil {
			return
		}
		if err := os.Remove(p.path(p.nodes[0], "probe")); err != nil {
			t.Error(err)
		}
	})
	var log string
	eventually(t, "what the container could write", func(ctx context.Context) (err error) {
		if log, err = p.tryKubectl(ctx, "--namespace", home, "logs", pod.Name); err == nil && strings.Count(log, "\n") < len(want) {
			err = os.ErrNotExist
		}
		return err
	})
	for path, could := range want {
		if line := path + ": " + map[bool]string{true: "true", false: "false"}[could]; !strings.Contains(log, line+"\n") {
			t.Errorf("want %q, got:\n%s", line, log)
		}
	}
}

// rights compares what `kubectl auth can-i --list` says with a checked-in list, so
// that whoever widens them is seen doing it.
func (p *product) rights(t *testing.T) {
	for _, account := range []string{"chandler-agent", "chandler-leader"} {
		var got strings.Builder
		for _, namespace := range []string{home, keysIn, "default"} {
			said := p.kubectl(t, "auth", "can-i", "--list", "--namespace", namespace, "--as", "system:serviceaccount:"+home+":"+account,
				"--as-group", "system:serviceaccounts", "--as-group", "system:serviceaccounts:"+home, "--as-group", "system:authenticated")
			var rights []string
			for line := range strings.Lines(said) {
				rights = append(rights, strings.Join(strings.Fields(line), " ")+"\n")
			}
			slices.Sort(rights)
			fmt.Fprintf(&got, "== namespace %s\n%s", namespace, strings.Join(rights, ""))
		}
		file := filepath.Join("testdata", "can-i-"+account+".txt")
		if *update {
			if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(file, []byte(got.String()), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("%s: rights are not those of %s, run with -update if they are meant (-checked in +got):\n%s", account, file, diff)
		}
	}
}
