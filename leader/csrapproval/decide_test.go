package csrapproval

import (
	"testing"
	"time"

	certsv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/leader/scrapercsr"
)

func ours() scrapercsr.Rules {
	return scrapercsr.Rules{Namespace: "chandler", CommonName: "prometheus", SignerName: "kubernetes.io/kube-apiserver-client", LongestLife: time.Hour}
}

func with(conditions ...certsv1.CertificateSigningRequestCondition) *certsv1.CertificateSigningRequest {
	return &certsv1.CertificateSigningRequest{
		Spec:   certsv1.CertificateSigningRequestSpec{SignerName: ours().SignerName, Username: "system:serviceaccount:chandler:chandler-agent"},
		Status: certsv1.CertificateSigningRequestStatus{Conditions: conditions},
	}
}

func condition(kind certsv1.RequestConditionType, reason string) certsv1.CertificateSigningRequestCondition {
	return certsv1.CertificateSigningRequestCondition{Type: kind, Reason: reason}
}

func TestDecide(t *testing.T) {
	now := metav1.Now()
	byAgent := func(change func(*certsv1.CertificateSigningRequest)) *certsv1.CertificateSigningRequest {
		request := with()
		change(request)
		return request
	}
	for name, tt := range map[string]struct {
		request *certsv1.CertificateSigningRequest
		want    answer
	}{
		"undecided":             {with(), judge},
		"unknown condition":     {with(condition("Seen", "x")), judge},
		"approved by us":        {with(condition(certsv1.CertificateApproved, reasonApproved)), await},
		"approved by others":    {with(condition(certsv1.CertificateApproved, "KubectlApprove")), leaveAlone},
		"denied":                {with(condition(certsv1.CertificateDenied, "x")), leaveAlone},
		"failed":                {with(condition(certsv1.CertificateFailed, "x")), leaveAlone},
		"approved, then failed": {with(condition(certsv1.CertificateApproved, reasonApproved), condition(certsv1.CertificateFailed, "x")), leaveAlone},
		"issued": {byAgent(func(r *certsv1.CertificateSigningRequest) {
			r.Status.Conditions = append(r.Status.Conditions, condition(certsv1.CertificateApproved, reasonApproved))
			r.Status.Certificate = []byte("x")
		}), leaveAlone},
		"being deleted":    {byAgent(func(r *certsv1.CertificateSigningRequest) { r.DeletionTimestamp = &now }), leaveAlone},
		"of somebody else": {byAgent(func(r *certsv1.CertificateSigningRequest) { r.Spec.Username = "kubernetes-admin" }), leaveAlone},
		"of a namesake":    {byAgent(func(r *certsv1.CertificateSigningRequest) { r.Spec.Username = "system:serviceaccount:a:chandler-agent" }), leaveAlone},
		"another signer":   {byAgent(func(r *certsv1.CertificateSigningRequest) { r.Spec.SignerName = certsv1.KubeletServingSignerName }), leaveAlone},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(tt.request, ours()); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestTimeLeft(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	approved := func(at time.Time) *certsv1.CertificateSigningRequest {
		c := condition(certsv1.CertificateApproved, reasonApproved)
		c.LastUpdateTime = metav1.NewTime(at)
		return with(c)
	}
	for name, tt := range map[string]struct {
		request *certsv1.CertificateSigningRequest
		want    time.Duration
	}{
		"just approved":         {approved(now), time.Minute},
		"a while ago":           {approved(now.Add(-20 * time.Second)), 40 * time.Second},
		"over":                  {approved(now.Add(-90 * time.Second)), -30 * time.Second},
		"a clock that is ahead": {approved(now.Add(time.Hour)), time.Minute},
		"not approved":          {with(), time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			if got := timeLeft(tt.request, now); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
