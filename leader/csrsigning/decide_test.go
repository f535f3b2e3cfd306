package csrsigning

import (
	"crypto/x509"
	"testing"
	"time"

	certsv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	began = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	days  = 24 * time.Hour
	usual = lives{leaf: 30 * days, ca: 365 * days, overlap: days}
)

func made(t *testing.T, at time.Time) *authority {
	t.Helper()
	ca, err := newAuthority(at, usual.ca)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// TestRotation lives through three years, a day at a time, and keeps the bundle as
// targets see it: one look behind.
func TestRotation(t *testing.T) {
	var held holding
	var bundle []*x509.Certificate
	known := map[string]time.Time{} // serial number: when it was first in the bundle
	rotations := 0
	for now := began; now.Before(began.Add(3 * 365 * days)); now = now.Add(12 * time.Hour) {
		after, making := held.advance(bundle, now, usual)
		if making {
			if after.active == nil {
				after.active = made(t, now)
			} else {
				after.next = made(t, now)
			}
		}
		if held.active != nil && after.active != held.active {
			rotations++
			serial := after.active.certificate.SerialNumber.String()
			if since := now.Sub(known[serial]); since < usual.overlap {
				t.Errorf("%s: a CA signs %s after it was published", now, since)
			}
			if left := held.active.certificate.NotAfter.Sub(now); left < usual.leaf-12*time.Hour {
				t.Errorf("%s: the CA before signed with %s left, want its certificates of full length", now, left)
			}
		}
		if after.active.certificate.NotAfter.Sub(now) < usual.leaf {
			t.Errorf("%s: the CA that signs has less left than a certificate", now)
		}
		held = after
		bundle = held.bundle()
		for _, c := range bundle {
			if !now.Before(c.NotAfter) {
				t.Errorf("%s: an expired CA is in the bundle", now)
			}
			if _, ok := known[c.SerialNumber.String()]; !ok {
				known[c.SerialNumber.String()] = now
			}
		}
		for _, c := range held.old {
			if !now.Before(c.NotAfter) {
				t.Errorf("%s: an expired CA is kept", now)
			}
		}
		if len(bundle) > 3 {
			t.Errorf("%s: %d CAs in the bundle", now, len(bundle))
		}
	}
	if rotations != 3 {
		t.Errorf("got %d rotations in three years, want 3", rotations)
	}
}

func TestAdvance(t *testing.T) {
	first, second := made(t, began), made(t, began.Add(340*days))
	due := began.Add(334 * days)
	for name, tt := range map[string]struct {
		before holding
		bundle []*x509.Certificate
		now    time.Time
		active *authority // nil: a new one is wanted
		making bool
		next   bool
	}{
		"nothing yet":               {now: began, making: true},
		"young":                     {before: holding{active: first}, now: began.Add(days), active: first},
		"due":                       {before: holding{active: first}, now: due, active: first, making: true},
		"next not in the bundle":    {before: holding{active: first, next: second}, now: due.Add(20 * days), active: first, next: true},
		"next just in the bundle":   {before: holding{active: first, next: second}, bundle: []*x509.Certificate{second.certificate}, now: due.Add(days), active: first, next: true},
		"next long in the bundle":   {before: holding{active: first, next: second, published: due}, now: due.Add(days), active: second},
		"active expired, with next": {before: holding{active: first, next: second}, now: began.Add(366 * days), active: second},
		"all expired":               {before: holding{active: first, next: second}, now: began.Add(1000 * days), making: true},
	} {
		t.Run(name, func(t *testing.T) {
			after, making := tt.before.advance(tt.bundle, tt.now, usual)
			if after.active != tt.active || making != tt.making || (after.next != nil) != tt.next {
				t.Errorf("got active %v, making %v, next %v", after.active, making, after.next)
			}
		})
	}
}

func TestSignable(t *testing.T) {
	const signer = "chandler.dev/scraper-client"
	now := metav1.Now()
	with := func(certificate string, kinds ...certsv1.RequestConditionType) *certsv1.CertificateSigningRequest {
		r := &certsv1.CertificateSigningRequest{Spec: certsv1.CertificateSigningRequestSpec{SignerName: signer}}
		for _, kind := range kinds {
			r.Status.Conditions = append(r.Status.Conditions, certsv1.CertificateSigningRequestCondition{Type: kind})
		}
		r.Status.Certificate = []byte(certificate)
		return r
	}
	deleting := with("", certsv1.CertificateApproved)
	deleting.DeletionTimestamp = &now
	other := with("", certsv1.CertificateApproved)
	other.Spec.SignerName = certsv1.KubeAPIServerClientSignerName
	for name, tt := range map[string]struct {
		request *certsv1.CertificateSigningRequest
		want    bool
	}{
		"approved":         {with("", certsv1.CertificateApproved), true},
		"undecided":        {with(""), false},
		"denied":           {with("", certsv1.CertificateDenied), false},
		"denied as well":   {with("", certsv1.CertificateApproved, certsv1.CertificateDenied), false},
		"failed":           {with("", certsv1.CertificateApproved, certsv1.CertificateFailed), false},
		"signed":           {with("x", certsv1.CertificateApproved), false},
		"being deleted":    {deleting, false},
		"to other signers": {other, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := signable(tt.request, signer); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
