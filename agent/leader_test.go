package agent_test

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/agent"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fakeaws"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

const registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"

// TestLeaderHalf runs both halves of two agents, as the binary does.
func TestLeaderHalf(t *testing.T) {
	c := controlPlane(t)
	aws := startAWS(t)
	client, err := kubernetes.NewForConfig(c.Admin())
	expect.OK(t, err)
	keys := aws.NewKeys("ecr")
	makeKeys(t, client, keys)
	stops, benches := map[string]func() error{}, map[string]*bench{}
	for _, node := range []string{fixtures.EKSNode, fixtures.KubeadmNode} {
		b := newBench(t, agentPod(t, c, node))
		b.leader = "leader: {leaseDuration: 4s, podLogs: {createServiceAccounts: true}}"
		b.configure("")
		stops[fixtures.PodName(node)], benches[fixtures.PodName(node)] = b.start(node), b
	}
	makeNamespace(t, client, "team-a")
	awaitPullSecret(t, client, "team-a")
	awaitLogRole(t, client, "team-a")
	first := holder(t, client, "")
	expect.OK(t, stops[first]())
	second := holder(t, client, first)
	makeNamespace(t, client, "team-b")
	awaitPullSecret(t, client, "team-b")
	awaitLogRole(t, client, "team-b")
	if body := benches[second].mustMetrics(); !strings.Contains(body, "chandler_leader 1\n") {
		t.Error("the metrics of the second leader do not say that it leads")
	}
	for _, b := range benches {
		logs := b.logs.String()
		for _, issued := range aws.Issued() {
			if strings.Contains(logs, issued.Password[:20]) {
				t.Error("a registry password is in the log at debug level")
			}
		}
		if strings.Contains(logs, keys.SecretAccessKey) {
			t.Error("an AWS secret key is in the log at debug level")
		}
	}
}

// TestMalformedAWSHoldsUpNothingElse: it is the failure of the tasks that call AWS, until
// it is mended, and of no other part.
func TestMalformedAWSHoldsUpNothingElse(t *testing.T) {
	c := controlPlane(t)
	aws := startAWS(t)
	setProcessKeys(t, aws)
	client, err := kubernetes.NewForConfig(c.Admin())
	expect.OK(t, err)
	makeKeys(t, client, aws.NewKeys("ecr"))
	makeNamespace(t, client, "team-a")
	t.Setenv("AWS_MAX_ATTEMPTS", "many")

	b := newBench(t, agentPod(t, c, fixtures.EKSNode))
	b.leader = leaderOf("podLogs: {createServiceAccounts: true}", "idle")
	b.configure("")
	b.start(fixtures.EKSNode)
	awaitLogRole(t, client, "team-a")
	b.awaitLog("task=pullsecrets", "level=ERROR", "AWS_MAX_ATTEMPTS=many")
	b.awaitLog("task=clusterstatus", "level=ERROR", "AWS_MAX_ATTEMPTS=many")
	eventually(t, func() (bool, string) {
		return regexp.MustCompile(`chandler_clusterstatus_gaps_total{reason="failed"} [1-9]`).MatchString(b.mustMetrics()), "no gap is counted"
	})
	if b.logged("let another replica try", "AWS") {
		t.Error("it has ended the term")
	}
	t.Setenv("AWS_MAX_ATTEMPTS", "3")
	awaitPullSecret(t, client, "team-a")
	awaitData(t, aws, "", 1)
}

func TestLeaderNeedsItsPod(t *testing.T) {
	b := newBench(t, controlPlane(t).Admin())
	b.leader = "leader: {enabled: true}"
	b.configure("")
	err := agent.Run(t.Context(), agent.Options{
		ConfigFile: b.configFile, Kubeconfig: b.kubeconfig, NodeName: fixtures.EKSNode, Log: slog.New(slog.DiscardHandler),
	})
	if err == nil || !strings.Contains(err.Error(), "POD_NAME") {
		t.Errorf("leader without a pod: got %v, want an error that names the variable", err)
	}
	if _, err := os.Stat(filepath.Join(b.hostDir, "cluster")); !os.IsNotExist(err) {
		t.Errorf("it has published before it refused to start: %v", err)
	}
}

// startAWS starts an AWS that the process's variables lead to.
func startAWS(t *testing.T) *fakeaws.Server {
	t.Helper()
	aws, err := fakeaws.Listen(fakeaws.Options{})
	expect.OK(t, err)
	t.Cleanup(func() { expect.OK(t, aws.Close()) })
	for name, value := range aws.Env() {
		t.Setenv(name, value)
	}
	return aws
}

// makeKeys gives pull secrets an AWS identity of their own for the registry.
func makeKeys(t *testing.T, client kubernetes.Interface, keys fakeaws.Keys) {
	t.Helper()
	_, err := client.CoreV1().Secrets(fixtures.HostNamespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "eatr-aws-credentials-" + registry},
		StringData: map[string]string{
			"aws_region": "eu-west-1", "aws_access_key_id": keys.AccessKeyID, "aws_secret_access_key": keys.SecretAccessKey,
		},
	}, metav1.CreateOptions{})
	expect.OK(t, err)
}

// makeNamespace makes one that asks for a pull secret.
func makeNamespace(t *testing.T, client kubernetes.Interface, namespace string) {
	t.Helper()
	_, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: namespace, Labels: map[string]string{registry: "true"}},
	}, metav1.CreateOptions{})
	expect.OK(t, err)
}

func awaitPullSecret(t *testing.T, client kubernetes.Interface, namespace string) {
	t.Helper()
	eventually(t, func() (bool, string) {
		secret, err := client.CoreV1().Secrets(namespace).Get(t.Context(), registry, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, "no pull secret in namespace " + namespace
		}
		expect.OK(t, err)
		var content struct{ Auths map[string]any }
		expect.OK(t, json.Unmarshal(secret.Data[corev1.DockerConfigJsonKey], &content))
		if content.Auths[registry] == nil {
			t.Errorf("the pull secret of %s has no entry for %s", namespace, registry)
		}
		return true, ""
	})
}

// awaitLogRole makes a labelled Deployment and waits for the Role that lists its pod.
func awaitLogRole(t *testing.T, client kubernetes.Interface, namespace string) {
	t.Helper()
	one, labels := int32(1), map[string]string{"app": "web", "podlogreader-affiliate": "enable"}
	_, err := client.AppsV1().Deployments(namespace).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web"}}},
			},
		},
	}, metav1.CreateOptions{})
	expect.OK(t, err)
	eventually(t, func() (bool, string) {
		role, err := client.RbacV1().Roles(namespace).Get(t.Context(), "podlogreader-web", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, "no Role for pod logs in namespace " + namespace
		}
		expect.OK(t, err)
		_, err = client.RbacV1().RoleBindings(namespace).Get(t.Context(), "podlogreader-web", metav1.GetOptions{})
		return err == nil && len(role.Rules) == 2 && len(role.Rules[1].ResourceNames) == 1, "Role and RoleBinding for pod logs are not right yet"
	})
}

// holder waits until another pod than the one named holds the Lease.
func holder(t *testing.T, client kubernetes.Interface, besides string) string {
	t.Helper()
	name := ""
	eventually(t, func() (bool, string) {
		lease, err := client.CoordinationV1().Leases(fixtures.Namespace).Get(t.Context(), "chandler", metav1.GetOptions{})
		expect.OK(t, err)
		if lease.Spec.HolderIdentity != nil {
			name = *lease.Spec.HolderIdentity
		}
		return name != "" && name != besides, "the Lease is held by " + name
	})
	return name
}
