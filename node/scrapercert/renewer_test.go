package scrapercert

import (
	"bytes"
	"crypto/x509"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	certsv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	clienttesting "k8s.io/client-go/testing"
)

// TestShortLives: certificates of seconds are renewed in time and not more often
// than they need, also those that Kubernetes has backdated. Their ends are whole
// seconds, so lives are up to a second shorter.
func TestShortLives(t *testing.T) {
	for name, tt := range map[string]struct {
		before, after time.Duration
		least, most   int // certificates in two minutes
	}{
		"5s":                         {0, 5 * time.Second, 24, 45},
		"5s, backdated by 5 minutes": {5 * time.Minute, 5 * time.Second, 24, 45},
		"2s":                         {0, 2 * time.Second, 60, 125},
		"1m":                         {0, time.Minute, 3, 3},
		"1h, backdated by 5 minutes": {5 * time.Minute, time.Hour, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAPI(t, issue(tt.before, tt.after))
				r, _, stop := run(t, f)
				defer stop()
				time.Sleep(time.Second)
				for range 120 {
					time.Sleep(time.Second)
					if p := held(r); p == nil || checkDates(p.leaf, time.Now()) != nil {
						t.Fatal("no certificate that is valid")
					}
				}
				if made, _ := f.counts(); made < tt.least || made > tt.most {
					t.Errorf("certificates in two minutes: got %d, want %d to %d", made, tt.least, tt.most)
				}
			})
		})
	}
}

func held(r *Renewer) *pair {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pair
}

func TestRenewAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAPI(t, issue(5*time.Minute, time.Hour))
		_, _, stop := run(t, f, func(o *Options) { o.RenewAfter = 10 * time.Second })
		defer stop()
		time.Sleep(10 * time.Minute)
		if made, _ := f.counts(); made < 60 || made > 67 {
			t.Errorf("certificates in ten minutes: got %d, want one every 9 to 10 seconds", made)
		}
	})
}

// TestBackoff: what goes wrong is tried again, the longer the rarer; what leaves a
// refused request behind is rare from the start.
func TestBackoff(t *testing.T) {
	forbidden := apierrors.NewForbidden(certsv1.Resource("certificatesigningrequests"), "", errors.New("no"))
	for name, tt := range map[string]struct {
		answer      answer
		down        error
		want        error
		result, log string
		made, lists int // at most, in a day
	}{
		"denied":  {verdict(certsv1.CertificateDenied), nil, ErrDenied, "denied", "scraper certificate denied", 50, 50},
		"failed":  {verdict(certsv1.CertificateFailed), nil, ErrFailed, "failed", "refused by its signer", 50, 50},
		"another": {issue(0, time.Hour, rename), nil, ErrInvalid, "invalid", "scraper certificate unusable", 50, 50},
		"expired": {issue(time.Hour, -time.Minute), nil, ErrExpired, "expired", "scraper certificate expired", 50, 50},
		"early":   {issue(-time.Minute, time.Hour), nil, ErrInvalid, "invalid", "scraper certificate unusable", 50, 50},
		"garbage": {garbage, nil, ErrInvalid, "invalid", "scraper certificate unusable", 50, 50},
		"refused": {undecided, forbidden, ErrRefused, "refused", "may not be requested", 0, 450},
		"down":    {undecided, errors.New("connection refused"), nil, "unreachable", "not requested", 0, 2100},
		// These stand and are waited for: there is never a second one.
		"not approved": {undecided, nil, ErrNotApproved, "not_approved", "leader.enabled", 1, 1},
		"not issued":   {verdict(certsv1.CertificateApproved), nil, ErrNotIssued, "not_issued", "chandler.dev/scraper-client", 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAPI(t, tt.answer)
				f.set(func(f *fakeAPI) { f.down = tt.down })
				r, logs, stop := run(t, f)
				defer stop()
				time.Sleep(24 * time.Hour)
				if got := r.Problem(); got == nil || tt.want != nil && !errors.Is(got, tt.want) {
					t.Errorf("problem: got %v, want %v", got, tt.want)
				}
				if made, lists := f.counts(); made > tt.made || lists > tt.lists || lists == 0 {
					t.Errorf("in a day: got %d requests and %d lists, want at most %d and %d", made, lists, tt.made, tt.lists)
				}
				if !strings.Contains(logs.String(), tt.log) {
					t.Errorf("log: got %.300q, want %q", logs.String(), tt.log)
				}
				if got := testutil.ToFloat64(r.metrics.requests.WithLabelValues(tt.result)); got < 5 {
					t.Errorf("result %s: got %v in a day, want it counted each time", tt.result, got)
				}
				if got := testutil.ToFloat64(r.metrics.last.WithLabelValues(tt.result)); got != 1 {
					t.Errorf("last result %s: got %v, want 1", tt.result, got)
				}
				files, err := r.Files()
				if files != nil || err != nil {
					t.Errorf("files without a certificate: got %d, %v", len(files), err)
				}
				// The first problem that is over ends it all.
				f.set(func(f *fakeAPI) { f.down, f.answer = nil, issue(0, time.Hour) })
				if tt.made == 1 {
					return // its one request never gets another answer
				}
				time.Sleep(time.Hour + time.Minute)
				if held(r) == nil {
					t.Error("no certificate an hour after the problem was over")
				}
			})
		})
	}
}

func rename(c *x509.Certificate) { c.Subject.CommonName = "system:admin" }

func garbage(f *fakeAPI, c *certsv1.CertificateSigningRequest) *certsv1.CertificateSigningRequest {
	c = verdict(certsv1.CertificateApproved)(f, c)
	c.Status.Certificate = []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	return c
}

// TestOldPairStays until another is proved, and even when it has expired.
func TestOldPairStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAPI(t, issue(0, time.Hour))
		r, logs, stop := run(t, f)
		defer stop()
		time.Sleep(time.Second)
		first, err := r.Files()
		if err != nil || len(first) != 4 {
			t.Fatalf("files: got %d, %v", len(first), err)
		}
		f.set(func(f *fakeAPI) { f.answer = issue(0, time.Hour, rename) })
		time.Sleep(2 * time.Hour)
		for range 3 {
			files, err := r.Files()
			if err != nil || !bytes.Equal(files[1].Data, first[1].Data) {
				t.Fatalf("files beside wrong certificates: got another key, %v", err)
			}
		}
		if got := testutil.ToFloat64(r.metrics.requests.WithLabelValues("expired")); got != 1 {
			t.Errorf("expiry counted: got %v, want once", got)
		}
		if !strings.Contains(logs.String(), `msg="scraper certificate expired"`) {
			t.Errorf("log: got %q, want the expiry", logs.String())
		}
		f.set(func(f *fakeAPI) { f.answer = issue(0, time.Hour) })
		time.Sleep(time.Hour)
		files, err := r.Files()
		if err != nil || bytes.Equal(files[1].Data, first[1].Data) {
			t.Errorf("files after a good certificate: got the old key, %v", err)
		}
	})
}

// TestLostAnswer: the request was made, and its answer never came.
func TestLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAPI(t, issue(0, time.Hour))
		f.lose = true
		r, _, stop := run(t, f)
		defer stop()
		time.Sleep(time.Minute)
		if made, _ := f.counts(); held(r) == nil || made != 1 {
			t.Errorf("got %d requests, a certificate: %t; want the one request taken up", made, held(r) != nil)
		}
	})
}

func TestOrphans(t *testing.T) {
	const signer = certsv1.KubeAPIServerClientSignerName
	for name, tt := range map[string]struct {
		commonName, signer, user, node string
		waits                          bool
	}{
		"our own":             {testCN, signer, testUser, testNode, true},
		"of another name":     {"before", signer, testUser, testNode, false},
		"for another signer":  {testCN, "example.com/signer", testUser, testNode, false},
		"of somebody else":    {testCN, signer, "mallory", testNode, false},
		"of another node":     {testCN, signer, testUser, "worker-4", false},
		"of an unbound token": {testCN, signer, testUser, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAPI(t, issue(0, time.Hour))
				left := orphanOf(t, "left", tt.commonName, tt.signer, tt.user, tt.node)
				if err := f.Tracker().Add(left); err != nil {
					t.Fatal(err)
				}
				r, _, stop := run(t, f)
				defer stop()
				time.Sleep(time.Hour / 2)
				if got := held(r) == nil; got != tt.waits {
					t.Fatalf("waits: got %t, want %t", got, tt.waits)
				}
				if !tt.waits {
					return
				}
				if !errors.Is(r.Problem(), ErrNotApproved) {
					t.Errorf("problem: got %v, want ErrNotApproved", r.Problem())
				}
				if err := f.Tracker().Delete(requestsGVR, "", "left"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if held(r) == nil {
					t.Error("no certificate once the request had vanished")
				}
			})
		})
	}
}

// TestWatchEnds: the API server ends watches, and goes away in the middle.
func TestWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAPI(t, undecided)
		r, _, stop := run(t, f)
		defer stop()
		time.Sleep(time.Second)
		f.set(func(f *fakeAPI) { f.down = errors.New("connection refused") })
		list, err := f.Tracker().List(requestsGVR, certsv1.SchemeGroupVersion.WithKind("CertificateSigningRequest"), "")
		if err != nil {
			t.Fatal(err)
		}
		request := list.(*certsv1.CertificateSigningRequestList).Items[0]
		f.update(issue(0, time.Hour)(f, &request))
		time.Sleep(time.Hour / 4)
		f.set(func(f *fakeAPI) { f.down = nil })
		time.Sleep(10 * time.Minute)
		if held(r) == nil {
			t.Error("no certificate ten minutes after the API server came back")
		}
	})
}

// TestBrokenWatches: an API server, or a proxy before it, that answers and cuts
// every watch.
func TestBrokenWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAPI(t, undecided)
		var watches atomic.Int64
		f.PrependWatchReactor("certificatesigningrequests", func(clienttesting.Action) (bool, watch.Interface, error) {
			watches.Add(1)
			return true, nil, errors.New("cut")
		})
		r, _, stop := run(t, f)
		defer stop()
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := watches.Load(); got < 2 || got > 130 {
			t.Errorf("watches in an hour: got %d, want at most one in half a minute", got)
		}
		if !errors.Is(r.Problem(), ErrNotApproved) {
			t.Errorf("problem: got %v, want ErrNotApproved", r.Problem())
		}
	})
}

func TestRemedies(t *testing.T) {
	const own = "chandler.dev/scraper-client"
	for name, tt := range map[string]struct {
		signer string
		stage  error
		want   string
	}{
		"undecided":                 {own, ErrNotApproved, "leader.enabled"},
		"by the control plane":      {certsv1.KubeAPIServerClientSignerName, ErrNotIssued, "scraper.signerName: " + own},
		"by our own leader":         {own, ErrNotIssued, "leader.enabled"},
		"by a signer of somebody's": {"example.com/signer", ErrNotIssued, "example.com/signer"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Renewer{Options: Options{SignerName: tt.signer, OwnSigner: own}}
			if got := r.remedy(tt.stage); !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want it to name %q", got, tt.want)
			}
		})
	}
}

// TestMetrics: every label value is there from the start.
func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	newMetrics(reg)
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	got, err := testutil.GatherAndCount(reg, "chandler_scraper_results_total")
	if want := len(kinds()) + 1; err != nil || got != want {
		t.Errorf("results: got %d, %v, want %d", got, err, want)
	}
}

func TestAPIErrors(t *testing.T) {
	invalid := &apierrors.StatusError{ErrStatus: metav1.Status{Reason: metav1.StatusReasonInvalid, Message: "policy says no"}}
	if got := apiError("make", invalid); !errors.Is(got, ErrRefused) || !strings.Contains(got.Error(), "policy says no") {
		t.Errorf("an admission policy: got %v, want ErrRefused with what it says", got)
	}
	if got := apiError("make", errors.New("connection refused")); errors.Is(got, ErrRefused) {
		t.Errorf("no connection: got %v, want no ErrRefused", got)
	}
}
