package scrapercert

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	certsv1 "k8s.io/api/certificates/v1"

	"github.com/chandler-k8s/chandler/hostfiles"
)

// TestResume: what an earlier run has published.
func TestResume(t *testing.T) {
	for name, tt := range map[string]struct {
		change   func(*x509.Certificate)
		want     error
		obsolete bool // an hour after it has expired
	}{
		"good":                  {func(*x509.Certificate) {}, nil, false},
		"of another name":       {rename, ErrInvalid, true},
		"of another node":       {func(c *x509.Certificate) { c.DNSNames = []string{"worker-4"} }, ErrInvalid, true},
		"expired":               {func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, ErrExpired, false},
		"of another name, gone": {func(c *x509.Certificate) { rename(c); c.NotAfter = time.Now().Add(-time.Minute) }, ErrInvalid, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAPI(t, undecided)
				files := publishedBefore(t, f, tt.change)
				r, _ := newTestRenewer(f)
				if err := r.Resume(files); !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				if got := held(r) != nil; got != (tt.want == nil) {
					t.Errorf("taken up: got %t", got)
				}
				time.Sleep(2 * time.Hour)
				if got := r.Obsolete(); got != tt.obsolete {
					t.Errorf("obsolete: got %t, want %t", got, tt.obsolete)
				}
			})
		})
	}
	f := newFakeAPI(t, undecided)
	r, _ := newTestRenewer(f)
	if err := r.Resume([]hostfiles.File{{Name: FileCert, Data: []byte("x")}}); err == nil || r.Obsolete() {
		t.Errorf("garbage: got %v, want an error", err)
	}
}

// publishedBefore is the set of an earlier run, whose certificate is valid for an
// hour.
func publishedBefore(t *testing.T, f *fakeAPI, change func(*x509.Certificate)) []hostfiles.File {
	t.Helper()
	made, err := newRequest(testCN, testNode)
	if err != nil {
		t.Fatal(err)
	}
	object := &certsv1.CertificateSigningRequest{Spec: certsv1.CertificateSigningRequestSpec{Request: made.pkcs10}}
	certificate := issue(time.Hour, time.Hour, change)(f, object).Status.Certificate
	return []hostfiles.File{
		{Name: FileCert, Data: certificate}, {Name: FileKey, Data: made.keyPEM},
		{Name: FilePair, Data: append(bytes.Clone(certificate), made.keyPEM...)}, {Name: FileCA, Data: f.ca.pem},
	}
}

// TestResumedIsNotRenewed: a restart makes no request, however often.
func TestResumedIsNotRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAPI(t, issue(0, time.Hour))
		files := publishedBefore(t, f, func(c *x509.Certificate) { c.NotBefore = time.Now() })
		for range 40 {
			r, _ := newTestRenewer(f)
			if err := r.Resume(files); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if err := r.Run(ctx, func() {}); err != nil {
				t.Error(err)
			}
			cancel()
		}
		if made, lists := f.counts(); made+lists > 0 {
			t.Errorf("got %d requests and %d lists in 40 minutes of an hour's life, want none", made, lists)
		}
	})
}
