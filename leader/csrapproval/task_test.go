package csrapproval_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	certsv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/events"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/csrapproval"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// bench is the task on a fake API, which holds one request and its pod.
type bench struct {
	*csrapproval.Task
	client   *fake.Clientset
	registry *prometheus.Registry
	events   *events.FakeRecorder
}

func newBench(t *testing.T, change func(*certsv1.CertificateSigningRequest)) *bench {
	t.Helper()
	request := honest(t, node)
	request.Name = "r"
	request.Spec.Username = "system:serviceaccount:chandler:chandler-agent"
	request.Spec.Extra = map[string]certsv1.ExtraValue{
		"authentication.kubernetes.io/pod-name":  {"chandler-x"},
		"authentication.kubernetes.io/pod-uid":   {"u-1"},
		"authentication.kubernetes.io/node-name": {node},
	}
	if change != nil {
		change(request)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: fixtures.Namespace, Name: "chandler-x", UID: "u-1"},
		Spec:       corev1.PodSpec{NodeName: node, ServiceAccountName: fixtures.ServiceAccount},
	}
	b := &bench{client: fake.NewClientset(request, pod), registry: prometheus.NewRegistry(), events: events.NewFakeRecorder(10)}
	b.client.PrependReactor("update", "certificatesigningrequests", policy)
	metrics, err := csrapproval.NewMetrics(b.registry)
	expect.OK(t, err)
	b.Task, err = csrapproval.New(leader.Term{
		Client: b.client, Events: b.events, Metrics: b.registry, Log: slog.New(slog.DiscardHandler), Namespace: fixtures.Namespace,
	}, csrapproval.Options{Rules: rules(), Metrics: metrics})
	expect.OK(t, err)
	in := leader.NewInformers(b.client, nil)
	expect.OK(t, b.Watch(in, func(string) {}))
	ctx, cancel := context.WithCancel(t.Context())
	in.Start(ctx)
	if missing := in.Wait(ctx); len(missing) > 0 {
		t.Fatalf("informers not synced: %v", missing)
	}
	// The fake API shares its objects with the informer, which strips them.
	cancel()
	in.Shutdown()
	b.client.ClearActions()
	return b
}

// policy answers dry runs as the API server does while the policy is in force.
func policy(action clienttesting.Action) (bool, runtime.Object, error) {
	update, ok := action.(clienttesting.UpdateActionImpl)
	if !ok || len(update.UpdateOptions.DryRun) == 0 {
		return false, nil, nil
	}
	if request, ok := update.Object.(*certsv1.CertificateSigningRequest); ok && len(request.Status.Conditions) == 1 {
		return true, request, nil
	}
	return true, nil, &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Reason: metav1.StatusReasonForbidden, Code: 403,
		Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Message: "denied request"}}},
	}}
}

// fail makes requests of a kind fail.
func (b *bench) fail(verb, resource, subresource string, err error) {
	b.client.PrependReactor(verb, resource, func(action clienttesting.Action) (bool, runtime.Object, error) {
		if decided, _, _ := policy(action); decided {
			return false, nil, nil
		}
		return action.GetSubresource() == subresource, nil, err
	})
}

func (b *bench) decisions(t *testing.T, decision, reason string) float64 {
	t.Helper()
	labels := []string{"decision=" + decision}
	if reason != "" {
		labels = append(labels, "reason="+reason)
	}
	sum, _ := expect.Metric(t, b.registry, "chandler_csrapproval_decisions_total", labels...)
	return sum
}

func (b *bench) conditions(t *testing.T) []certsv1.CertificateSigningRequestCondition {
	t.Helper()
	request, err := b.client.CertificatesV1().CertificateSigningRequests().Get(t.Context(), "r", metav1.GetOptions{})
	expect.OK(t, err)
	return request.Status.Conditions
}

func TestSyncApproves(t *testing.T) {
	b := newBench(t, nil)
	again, err := b.Sync(t.Context(), "r")
	if err != nil || again != 0 {
		t.Errorf("got %s, %v, want neither", again, err)
	}
	conditions := b.conditions(t)
	if len(conditions) != 1 || conditions[0].Type != certsv1.CertificateApproved || conditions[0].Status != corev1.ConditionTrue {
		t.Errorf("got %v, want it approved", conditions)
	}
	if got := b.decisions(t, "approved", "ChandlerScraperApproved"); got != 1 {
		t.Errorf("approvals counted: got %v, want 1", got)
	}
	if got := b.decisions(t, "denied", ""); got != 0 {
		t.Errorf("denials counted: got %v, want 0", got)
	}
}

func TestSyncDenies(t *testing.T) {
	b := newBench(t, func(r *certsv1.CertificateSigningRequest) {
		r.Spec.Extra["authentication.kubernetes.io/pod-uid"] = certsv1.ExtraValue{"u-0"}
	})
	if _, err := b.Sync(t.Context(), "r"); err != nil {
		t.Fatal(err)
	}
	conditions := b.conditions(t)
	if len(conditions) != 1 || conditions[0].Type != certsv1.CertificateDenied || conditions[0].Reason != "PodReplaced" || conditions[0].Message == "" {
		t.Errorf("got %v, want it denied with its reason", conditions)
	}
	if got := b.decisions(t, "denied", "PodReplaced"); got != 1 {
		t.Errorf("denials counted: got %v, want 1", got)
	}
}

func TestSyncLeavesAlone(t *testing.T) {
	for name, change := range map[string]func(*certsv1.CertificateSigningRequest){
		"of somebody else": func(r *certsv1.CertificateSigningRequest) { r.Spec.Username = "kubernetes-admin" },
		"denied": func(r *certsv1.CertificateSigningRequest) {
			r.Status.Conditions = []certsv1.CertificateSigningRequestCondition{{Type: certsv1.CertificateDenied, Status: corev1.ConditionTrue}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, change)
			if again, err := b.Sync(t.Context(), "r"); err != nil || again != 0 {
				t.Errorf("got %s, %v, want neither", again, err)
			}
			if got := b.client.Actions(); len(got) > 0 {
				t.Errorf("got requests %v, want none", got)
			}
		})
	}
}

// TestSyncDoesNotDecideInDoubt: a failure is an error, and nothing is written.
func TestSyncDoesNotDecideInDoubt(t *testing.T) {
	for name, failure := range map[string]error{
		"unreachable":   errors.New("connection refused"),
		"no permission": apierrors.NewForbidden(corev1.Resource("pods"), "chandler-x", nil),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			b.fail("get", "pods", "", failure)
			if _, err := b.Sync(t.Context(), "r"); !errors.Is(err, failure) {
				t.Errorf("got %v, want %v", err, failure)
			}
			if got := b.conditions(t); len(got) > 0 {
				t.Errorf("got %v, want no decision", got)
			}
		})
	}
}

// TestSyncYields: what somebody else did first is no failure, and not our decision.
func TestSyncYields(t *testing.T) {
	resource := certsv1.Resource("certificatesigningrequests")
	for name, tt := range map[string]struct {
		answer error
		want   bool // an error of Sync
	}{
		"decided meanwhile": {apierrors.NewConflict(resource, "r", errors.New("changed")), false},
		"deleted meanwhile": {apierrors.NewNotFound(resource, "r"), false},
		"refused":           {apierrors.NewForbidden(resource, "r", nil), true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			b.fail("update", "certificatesigningrequests", "approval", tt.answer)
			if _, err := b.Sync(t.Context(), "r"); (err != nil) != tt.want {
				t.Errorf("got %v, want an error: %v", err, tt.want)
			}
			if got := b.decisions(t, "approved", "") + b.decisions(t, "denied", ""); got != 0 {
				t.Errorf("decisions counted: got %v, want 0", got)
			}
		})
	}
}

func TestSyncTellsOfSilentSigners(t *testing.T) {
	b := newBench(t, func(r *certsv1.CertificateSigningRequest) {
		r.Status.Conditions = []certsv1.CertificateSigningRequestCondition{{
			Type: certsv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "ChandlerScraperApproved", LastUpdateTime: metav1.Unix(1e9, 0),
		}}
	})
	for range 3 {
		if again, err := b.Sync(t.Context(), "r"); err != nil || again != 0 {
			t.Errorf("got %s, %v, want neither", again, err)
		}
	}
	if got := len(b.events.Events); got != 1 {
		t.Fatalf("got %d Events, want 1", got)
	}
	if got := <-b.events.Events; !strings.Contains(got, "scraper.signerName: chandler.dev/scraper-client") {
		t.Errorf("Event %q does not name the remedy", got)
	}
	want := "# HELP chandler_csrapproval_unissued_requests Requests approved more than a minute ago for which the signer has issued no certificate.\n" +
		"# TYPE chandler_csrapproval_unissued_requests gauge\nchandler_csrapproval_unissued_requests 1\n"
	if err := testutil.GatherAndCompare(b.registry, strings.NewReader(want), "chandler_csrapproval_unissued_requests"); err != nil {
		t.Error(err)
	}
	if got := b.client.Actions(); len(got) > 0 {
		t.Errorf("got requests %v, want none", got)
	}
}

func TestSyncWaitsForTheSigner(t *testing.T) {
	b := newBench(t, func(r *certsv1.CertificateSigningRequest) {
		r.Status.Conditions = []certsv1.CertificateSigningRequestCondition{{
			Type: certsv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "ChandlerScraperApproved", LastUpdateTime: metav1.Now(),
		}}
	})
	if again, err := b.Sync(t.Context(), "r"); err != nil || again <= 0 {
		t.Errorf("got %s, %v, want to look again", again, err)
	}
	if got := len(b.events.Events); got != 0 {
		t.Errorf("got %d Events, want none", got)
	}
}

func TestSyncOfNothing(t *testing.T) {
	b := newBench(t, nil)
	if again, err := b.Sync(t.Context(), "gone"); err != nil || again != 0 {
		t.Errorf("got %s, %v, want neither", again, err)
	}
}
