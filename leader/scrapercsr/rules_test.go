package scrapercsr_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	certsv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/chandler-k8s/chandler/leader/scrapercsr"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

const node = "node-a.example"

// pods answers with one pod or one error.
type pods struct {
	pod corev1.Pod
	err error
}

func (p *pods) Get(context.Context, string, metav1.GetOptions) (*corev1.Pod, error) {
	return &p.pod, p.err
}

func alive() *pods {
	return &pods{pod: corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: fixtures.Namespace, Name: "chandler-x", UID: "u-1"},
		Spec:       corev1.PodSpec{NodeName: node, ServiceAccountName: fixtures.ServiceAccount},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}}
}

// stored is a request as the API server has it.
func stored(t testing.TB, changes ...func(*fixtures.Draft)) *certsv1.CertificateSigningRequest {
	t.Helper()
	request, _, err := fixtures.ScraperRequest(node, changes...)
	if err != nil {
		t.Fatal(err)
	}
	request.Spec.Username = "system:serviceaccount:chandler:chandler-agent"
	request.Spec.Extra = map[string]certsv1.ExtraValue{
		"authentication.kubernetes.io/pod-name":  {"chandler-x"},
		"authentication.kubernetes.io/pod-uid":   {"u-1"},
		"authentication.kubernetes.io/node-name": {node},
	}
	return request
}

func TestHonestRequestsPass(t *testing.T) {
	for name, change := range map[string]func(*certsv1.CertificateSigningRequest, *pods){
		"as an agent sends it":      func(*certsv1.CertificateSigningRequest, *pods) {},
		"usages in the other order": func(r *certsv1.CertificateSigningRequest, _ *pods) { slices.Reverse(r.Spec.Usages) },
		"shortest life": func(r *certsv1.CertificateSigningRequest, _ *pods) {
			seconds := int32(600)
			r.Spec.ExpirationSeconds = &seconds
		},
		"pod that is starting": func(_ *certsv1.CertificateSigningRequest, p *pods) { p.pod.Status.Phase = corev1.PodPending },
		"pod not heard of":     func(_ *certsv1.CertificateSigningRequest, p *pods) { p.pod.Status.Phase = corev1.PodUnknown },
	} {
		t.Run(name, func(t *testing.T) {
			request, found := stored(t), alive()
			change(request, found)
			decoded, err := defaults().Check(t.Context(), found, request)
			if err != nil {
				t.Fatalf("got %v, want it to pass", err)
			}
			if len(decoded.DNSNames) != 1 || decoded.DNSNames[0] != node {
				t.Errorf("got names %q, want the node's", decoded.DNSNames)
			}
		})
	}
}

func TestForgeriesAreRefused(t *testing.T) {
	// Not in the table: whether a policy admits it depends on the signature's length.
	t.Run("no name", func(t *testing.T) {
		_, err := defaults().Check(t.Context(), alive(), stored(t, func(d *fixtures.Draft) { d.Template.DNSNames = nil }))
		wantReason(t, err, scrapercsr.NoNodeName)
	})
	for _, forgery := range fixtures.Forgeries() {
		t.Run(forgery.Name, func(t *testing.T) {
			_, err := defaults().Check(t.Context(), alive(), stored(t, forgery.Change))
			wantReason(t, err, scrapercsr.Reason(forgery.Reason))
		})
	}
}

// TestRequestersAreRefused is about what only the API server writes.
func TestRequestersAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*certsv1.CertificateSigningRequest)
		want   scrapercsr.Reason
	}{
		"an administrator": {func(r *certsv1.CertificateSigningRequest) { r.Spec.Username = "kubernetes-admin" }, scrapercsr.NotAnAgent},
		"the leader": {func(r *certsv1.CertificateSigningRequest) {
			r.Spec.Username = "system:serviceaccount:chandler:chandler-leader"
		}, scrapercsr.NotAnAgent},
		"another namespace": {func(r *certsv1.CertificateSigningRequest) {
			r.Spec.Username = "system:serviceaccount:other:chandler-agent"
		}, scrapercsr.NotAnAgent},
		"unbound token":   {func(r *certsv1.CertificateSigningRequest) { r.Spec.Extra = nil }, scrapercsr.UnboundToken},
		"no pod":          {claim("pod-name"), scrapercsr.UnboundToken},
		"no UID":          {claim("pod-uid"), scrapercsr.UnboundToken},
		"no node":         {claim("node-name"), scrapercsr.UnboundToken},
		"two pods":        {claim("pod-name", "chandler-x", "chandler-y"), scrapercsr.UnboundToken},
		"empty node":      {claim("node-name", ""), scrapercsr.UnboundToken},
		"node of another": {claim("node-name", "another"), scrapercsr.WrongNodeName},
		"UID of another":  {claim("pod-uid", "u-2"), scrapercsr.PodReplaced},
	} {
		t.Run(name, func(t *testing.T) {
			request := stored(t)
			tt.change(request)
			_, err := defaults().Check(t.Context(), alive(), request)
			wantReason(t, err, tt.want)
		})
	}
}

func claim(key string, values ...string) func(*certsv1.CertificateSigningRequest) {
	return func(r *certsv1.CertificateSigningRequest) { r.Spec.Extra["authentication.kubernetes.io/"+key] = values }
}

func TestPodsAreRefused(t *testing.T) {
	now := metav1.Now()
	for name, tt := range map[string]struct {
		change func(*pods)
		want   scrapercsr.Reason
	}{
		"gone":            {func(p *pods) { p.err = apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, "chandler-x") }, scrapercsr.PodGone},
		"replaced":        {func(p *pods) { p.pod.UID = "u-2" }, scrapercsr.PodReplaced},
		"elsewhere":       {func(p *pods) { p.pod.Spec.NodeName = "node-b" }, scrapercsr.PodOnAnotherNode},
		"not scheduled":   {func(p *pods) { p.pod.Spec.NodeName = "" }, scrapercsr.PodOnAnotherNode},
		"another account": {func(p *pods) { p.pod.Spec.ServiceAccountName = "default" }, scrapercsr.PodOfOtherAccount},
		"terminating":     {func(p *pods) { p.pod.DeletionTimestamp = &now }, scrapercsr.PodTerminating},
		"succeeded":       {func(p *pods) { p.pod.Status.Phase = corev1.PodSucceeded }, scrapercsr.PodFinished},
		"failed":          {func(p *pods) { p.pod.Status.Phase = corev1.PodFailed }, scrapercsr.PodFinished},
	} {
		t.Run(name, func(t *testing.T) {
			found := alive()
			tt.change(found)
			_, err := defaults().Check(t.Context(), found, stored(t))
			wantReason(t, err, tt.want)
		})
	}
}

// TestFailedLookUpsProveNothing: they are errors, not violations.
func TestFailedLookUpsProveNothing(t *testing.T) {
	resource := schema.GroupResource{Resource: "pods"}
	for name, err := range map[string]error{
		"network":          errors.New("connection refused"),
		"deadline":         context.DeadlineExceeded,
		"no permission":    apierrors.NewForbidden(resource, "chandler-x", nil),
		"too many":         apierrors.NewTooManyRequestsError("later"),
		"server error":     apierrors.NewInternalError(errors.New("x")),
		"a proxy's 404":    apierrors.NewGenericServerResponse(404, "get", resource, "chandler-x", "<html>", 0, true),
		"a proxy's no 200": apierrors.NewGenericServerResponse(502, "get", resource, "chandler-x", "<html>", 0, true),
	} {
		t.Run(name, func(t *testing.T) {
			_, got := defaults().Check(t.Context(), &pods{err: err}, stored(t))
			if violation, ok := errors.AsType[*scrapercsr.Violation](got); ok || !errors.Is(got, err) {
				t.Errorf("got violation %v, error %v, want the error of the look-up", violation, got)
			}
		})
	}
}

// TestReasons: each rule of this package is broken by some test.
func TestReasons(t *testing.T) {
	untested := map[scrapercsr.Reason]bool{}
	for _, reason := range scrapercsr.Reasons() {
		untested[reason] = true
	}
	for _, forgery := range fixtures.Forgeries() {
		delete(untested, scrapercsr.Reason(forgery.Reason))
	}
	got := slices.Sorted(maps.Keys(untested))
	want := []scrapercsr.Reason{
		scrapercsr.NotAnAgent, scrapercsr.PodFinished, scrapercsr.PodGone, scrapercsr.PodOfOtherAccount,
		scrapercsr.PodOnAnotherNode, scrapercsr.PodReplaced, scrapercsr.PodTerminating, scrapercsr.UnboundToken,
	}
	if !slices.Equal(got, want) {
		t.Errorf("reasons without a forgery: got %v, want %v, which need more than a token", got, want)
	}
}

func wantReason(t *testing.T, err error, want scrapercsr.Reason) {
	t.Helper()
	violation, ok := errors.AsType[*scrapercsr.Violation](err)
	if !ok || violation.Reason != want {
		t.Errorf("got %v, want a violation %s", err, want)
		return
	}
	if len(violation.Message) == 0 || len(violation.Message) > 600 {
		t.Errorf("message of %d bytes: %q", len(violation.Message), violation.Message)
	}
}

func FuzzCheck(f *testing.F) {
	good := stored(f)
	f.Add(good.Spec.Request)
	for _, forgery := range fixtures.Forgeries() {
		f.Add(stored(f, forgery.Change).Spec.Request)
	}
	rules := defaults()
	f.Fuzz(func(t *testing.T, text []byte) {
		request := good.DeepCopy()
		request.Spec.Request = text
		decoded, err := rules.Check(context.Background(), alive(), request)
		if err != nil {
			violation, ok := errors.AsType[*scrapercsr.Violation](err)
			if !ok || !slices.Contains(scrapercsr.Reasons(), violation.Reason) {
				t.Errorf("got %v, want a violation that is listed", err)
			}
			return
		}
		if decoded.Subject.ToRDNSequence().String() != "CN="+fixtures.ScraperCommonName || !slices.Equal(decoded.DNSNames, []string{node}) ||
			len(decoded.EmailAddresses)+len(decoded.IPAddresses)+len(decoded.URIs) > 0 || len(decoded.Extensions) != 1 {
			t.Errorf("a request for %s with names %q passes", decoded.Subject, decoded.DNSNames)
		}
	})
}
