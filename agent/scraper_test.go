package agent_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	certsv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/agent"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// testScraper: the set appears beside the others, is renewed, survives a restart,
// and goes when the configuration no longer wants it.
func testScraper(t *testing.T, c *cluster.Cluster) {
	b := newBench(t, agentPod(t, c, fixtures.KubeadmNode))
	b.scraper = fmt.Sprintf(`scraper: {duration: 10m, files: {mode: "0440", uid: %d, gid: %d}}`, os.Getuid(), os.Getgid())
	b.configure("")
	stop := b.start(fixtures.KubeadmNode)
	b.awaitStatus("/readyz", 503) // nobody has approved
	approve(t, c)
	o := agent.WaitOptions{HostDir: b.hostDir, Sets: []string{"cluster", "scraper"}, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	expect.OK(t, agent.Wait(ctx, o))
	b.awaitStatus("/readyz", 200)
	first := b.file("scraper/tls.crt")
	expect.OK(t, stop())
	b.start(fixtures.KubeadmNode)
	b.awaitStatus("/readyz", 200)
	if got := b.file("scraper/tls.crt"); got != first {
		t.Error("the certificate is another one after a restart")
	}
	b.scraper = strings.Replace(b.scraper, "duration: 10m", "duration: 10m, renewAfter: 1s", 1)
	b.configure("")
	eventually(t, func() (bool, string) {
		got := b.file("scraper/tls.crt")
		return got != first && got != "", "no other certificate with renewAfter"
	})
	key := strings.Split(b.file("scraper/tls.key"), "\n")[1]
	if body := b.mustMetrics(); !strings.Contains(body, `chandler_scraper_results_total{result="denied"} 0`) {
		t.Errorf("metrics lack those of the scraper certificate:\n%s", body)
	}
	if strings.Contains(b.logs.String(), key) {
		t.Error("a line of a key is in the log at debug level")
	}
	b.scraper = "scraper: {enabled: false}"
	b.configure("")
	b.awaitLog("set removed", "set=scraper")
	left, err := filepath.Glob(filepath.Join(b.hostDir, "scraper", "*"))
	expect.OK(t, err)
	if _, err := os.Stat(filepath.Join(b.hostDir, "scraper", "..data")); len(left) > 0 || !os.IsNotExist(err) {
		t.Errorf("left of the set: %v, %v", left, err)
	}
}

// approve approves every request, as an administrator, until the test ends.
func approve(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.Admin())
	expect.OK(t, err)
	requests := client.CertificatesV1().CertificateSigningRequests()
	ctx, cancel := context.WithCancel(context.Background())
	var approving sync.WaitGroup
	approving.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			list, err := requests.List(ctx, metav1.ListOptions{})
			if err != nil && ctx.Err() == nil {
				t.Errorf("list requests: %v", err)
			}
			for i := range list.Items {
				made := &list.Items[i]
				if len(made.Status.Conditions) > 0 {
					continue
				}
				made.Status.Conditions = []certsv1.CertificateSigningRequestCondition{{
					Type: certsv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test", Message: "by the test",
				}}
				if _, err := requests.UpdateApproval(ctx, made.Name, made, metav1.UpdateOptions{}); err != nil && ctx.Err() == nil {
					t.Logf("approve %s: %v", made.Name, err)
				}
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	t.Cleanup(func() { cancel(); approving.Wait() })
}
