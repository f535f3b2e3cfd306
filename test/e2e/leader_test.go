//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	cwtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// startAWS starts a pretended AWS that nodes and pods reach.
func (p *product) startAWS(t *testing.T) {
	t.Helper()
	p.awsHost = os.Getenv("CHANDLER_E2E_HOST")
	if p.awsHost == "" {
		t.Skip("needs CHANDLER_E2E_HOST, an address of this machine that pods reach")
	}
	said := serve(t, "export AWS_SECRET_ACCESS_KEY", build(t, ".", "./test/fakeaws/cmd/fakeaws", "fakeaws"),
		"--address", p.awsHost+":0", "--imds-address", p.awsHost+":0", "--region", region)
	p.aws = map[string]string{}
	for _, line := range said {
		name, value, _ := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		p.aws[name] = value
	}
	p.secrets = append(p.secrets, p.aws["AWS_SECRET_ACCESS_KEY"])
}

// pullSecret waits for that of a namespace, and returns its password.
func (p *product) pullSecret(t *testing.T, namespace string) string {
	t.Helper()
	var config struct {
		Auths map[string]struct{ Auth []byte }
	}
	eventually(t, "pull secret in "+namespace, func(ctx context.Context) error {
		secret, err := p.client.CoreV1().Secrets(namespace).Get(ctx, registry, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return json.Unmarshal(secret.Data[corev1.DockerConfigJsonKey], &config)
	})
	_, password, ok := strings.Cut(string(config.Auths[registry].Auth), ":")
	if !ok {
		t.Fatalf("the pull secret has nothing for %s", registry)
	}
	p.secrets = append(p.secrets, password)
	return password
}

// labelled: a namespace gets its pull secret, by the commands of README.md.
func (p *product) labelled(t *testing.T) {
	args := []string{"--namespace", keysIn, "create", "secret", "generic", "eatr-aws-credentials-" + registry}
	for file, value := range map[string]string{"aws_access_key_id": p.aws["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": p.aws["AWS_SECRET_ACCESS_KEY"]} {
		path := filepath.Join(t.TempDir(), file)
		if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--from-file="+path)
	}
	p.kubectl(t, args...)
	p.kubectl(t, "label", "namespace", readers, registry+"=true")
	p.pullSecret(t, readers)
}

// pull: kubelet pulls an image with the secret, and cannot without it.
func (p *product) pull(t *testing.T) {
	p.needNodes(t)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(p.pullSecret(t, readers)), 0o600); err != nil {
		t.Fatal(err)
	}
	said := serve(t, "serving on ", build(t, "test/registry", "./cmd/registry", "registry"),
		"--address", p.awsHost+":0", "--password-file", password, "--image", p.pulledImage)
	server := "http://" + strings.TrimPrefix(said[len(said)-1], "serving on ")
	node := p.nodes[0]
	hosts := filepath.Join(p.roots[node], "etc/containerd/certs.d", registry)
	t.Cleanup(func() { os.RemoveAll(hosts) })
	if err := errors.Join(os.MkdirAll(hosts, 0o755), os.WriteFile(filepath.Join(hosts, "hosts.toml"),
		fmt.Appendf(nil, "server = %[1]q\n[host.%[1]q]\ncapabilities = [\"pull\", \"resolve\"]\n", server), 0o644)); err != nil {
		t.Fatal(err)
	}
	p.runPulled(t, "without", node, nil)
	eventually(t, "refusal of the registry", func(ctx context.Context) error {
		events, err := p.client.CoreV1().Events(readers).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=without,reason=Failed"})
		if err != nil {
			return err
		}
		for i := range events.Items {
			if strings.Contains(events.Items[i].Message, "401") || strings.Contains(events.Items[i].Message, "no basic auth credentials") {
				return nil
			}
		}
		return fmt.Errorf("no such Event among %d", len(events.Items))
	})
	p.runPulled(t, "with", node, []corev1.LocalObjectReference{{Name: registry}})
	eventually(t, "pod of the pulled image", func(ctx context.Context) error {
		pod, err := p.client.CoreV1().Pods(readers).Get(ctx, "with", metav1.GetOptions{})
		if err == nil && pod.Status.Phase != corev1.PodSucceeded {
			err = fmt.Errorf("it is %s: %v", pod.Status.Phase, pod.Status.ContainerStatuses)
		}
		return err
	})
	p.kubectl(t, "--namespace", readers, "delete", "pod", "with", "without")
}

func (p *product) runPulled(t *testing.T, name, node string, secrets []corev1.LocalObjectReference) {
	t.Helper()
	_, err := p.client.CoreV1().Pods(readers).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			NodeName: node, RestartPolicy: corev1.RestartPolicyNever, ImagePullSecrets: secrets,
			Containers: []corev1.Container{{Name: name, Image: registry + "/team/app:v1", ImagePullPolicy: corev1.PullAlways, Args: []string{"say", "pulled"}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// workload is a Deployment whose pods say their name.
func (p *product) workload(t *testing.T, name, label string) {
	t.Helper()
	p.apply(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  replicas: 2
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s, podlogreader-affiliate: %[3]s}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      tolerations: [{operator: Exists}]
      containers: [{name: main, image: %[4]s, imagePullPolicy: Never, args: [sleep, log of %[1]s]}]
`, name, readers, label, probeImage))
	p.rollout(t, readers, "deployment/"+name)
}

// logs: whoever has the token of a workload's account reads the logs of its pods and
// of no others.
func (p *product) logs(t *testing.T) {
	p.workload(t, "web", "enable")
	p.workload(t, "neighbour", "disable")
	var token string
	eventually(t, "account of the workload", func(ctx context.Context) (err error) {
		token, err = p.tryKubectl(ctx, "--namespace", readers, "create", "token", "podlogreader-web")
		return err
	})
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	flattened := p.kubectl(t, "config", "view", "--raw", "--flatten", "--minify")
	if err := os.WriteFile(kubeconfig, []byte(flattened), 0o600); err != nil {
		t.Fatal(err)
	}
	p.kubectl(t, "--kubeconfig", kubeconfig, "config", "set-credentials", "reader", "--token", strings.TrimSpace(token))
	p.kubectl(t, "--kubeconfig", kubeconfig, "config", "set-context", "--current", "--user", "reader")
	// By selector: given a name, kubectl reads the pod first, which the Role does not allow.
	logsOf := func(ctx context.Context, name string) (string, error) {
		return p.tryKubectl(ctx, "--kubeconfig", kubeconfig, "--namespace", readers, "logs", "--selector", "app="+name)
	}
	eventually(t, "logs of the workload", func(ctx context.Context) error {
		got, err := logsOf(ctx, "web")
		if want := "log of web\nlog of web\n"; err == nil && got != want {
			err = fmt.Errorf("got %q, want %q", got, want)
		}
		return err
	})
	if got, err := logsOf(t.Context(), "neighbour"); err == nil || !strings.Contains(err.Error(), "Forbidden") || !strings.Contains(err.Error(), "pods/log") {
		t.Errorf("logs of another workload: got %q, %v, want them refused", got, err)
	}
}

// health: the published value follows a target.
func (p *product) health(t *testing.T) {
	p.awaitHealth(t, 1)
	p.kubectl(t, "--namespace", readers, "scale", "deployment/web", "--replicas=0")
	p.awaitHealth(t, 0)
	p.kubectl(t, "--namespace", readers, "scale", "deployment/web", "--replicas=2")
	p.awaitHealth(t, 1)
}

// awaitHealth waits for a datum from now on with a value.
func (p *product) awaitHealth(t *testing.T, want float64) {
	t.Helper()
	reader := cloudwatch.New(cloudwatch.Options{
		Region: region, BaseEndpoint: aws.String(p.aws["AWS_ENDPOINT_URL_CLOUDWATCH"]),
		Credentials: credentials.NewStaticCredentialsProvider(p.aws["AWS_ACCESS_KEY_ID"], p.aws["AWS_SECRET_ACCESS_KEY"], ""),
	})
	since := time.Now()
	eventually(t, fmt.Sprintf("health of %v", want), func(ctx context.Context) error {
		found, err := reader.GetMetricStatistics(ctx, &cloudwatch.GetMetricStatisticsInput{
			Namespace: aws.String("E2E"), MetricName: aws.String("Healthy"), StartTime: aws.Time(since.Add(-time.Second)), EndTime: aws.Time(time.Now().Add(time.Minute)),
			Period: aws.Int32(1), Statistics: []cwtypes.Statistic{cwtypes.StatisticMinimum},
		})
		if err != nil {
			return err
		}
		if n := len(found.Datapoints); n == 0 || *found.Datapoints[n-1].Minimum != want {
			return fmt.Errorf("not so among %d data", n)
		}
		return nil
	})
}
