package pullsecrets_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/prometheus/common/expfmt"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/pullsecrets"
	"github.com/chandler-k8s/chandler/test/expect"
	testterm "github.com/chandler-k8s/chandler/test/term"
)

type term struct {
	*testterm.Term
	scene *scene
}

// run starts a term with the given options on top of the usual ones.
func (s *scene) run(t testing.TB, change ...func(*pullsecrets.Options)) *term {
	t.Helper()
	return s.runAs(t, s.leader(t), change...)
}

func (s *scene) runAs(t testing.TB, config *rest.Config, change ...func(*pullsecrets.Options)) *term {
	t.Helper()
	load := func(ctx context.Context) (aws.Config, error) { return awsconfig.LoadDefaultConfig(ctx) }
	r := &term{scene: s, Term: testterm.Run(t, config, home, func(about leader.Term) (leader.Task, error) {
		counters, err := pullsecrets.NewMetrics(about.Metrics)
		expect.OK(t, err)
		opts := pullsecrets.Options{HostNamespace: keysIn, CredentialsSecretPrefix: prefix, AWS: load, Metrics: counters}
		for _, c := range change {
			c(&opts)
		}
		return pullsecrets.New(about, opts)
	})}
	t.Cleanup(func() { r.Stop(); r.noLeak(t) })
	return r
}

func (r *term) wantMetric(t testing.TB, want float64, name string, labels ...string) {
	t.Helper()
	eventually(t, func() error {
		if got, _ := expect.Metric(t, r.Registry, name, labels...); got != want {
			return fmt.Errorf("metric %s%v: got %v, want %v", name, labels, got, want)
		}
		return nil
	})
}

// noLeak proves that nothing secret reached the log, the metrics or an Event.
func (r *term) noLeak(t testing.TB) {
	t.Helper()
	out := &bytes.Buffer{}
	out.WriteString(r.Log.String())
	families, err := r.Registry.Gather()
	if err != nil {
		t.Error(err)
	}
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(out, family); err != nil {
			t.Error(err)
		}
	}
	found, err := r.scene.admin.EventsV1().Events("").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	for i := range found.Items {
		out.WriteString(found.Items[i].Note + "\n")
	}
	secrets := []string{r.scene.keys.SecretAccessKey}
	for _, issued := range r.scene.aws.Issued() {
		secrets = append(secrets, issued.Password[:20])
	}
	for _, secret := range secrets {
		if strings.Contains(out.String(), secret) {
			t.Errorf("a secret beginning with %q is shown in logs, metrics or Events", secret[:8])
		}
	}
}
