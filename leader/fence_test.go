package leader

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestElapsed(t *testing.T) {
	start := time.Now()
	for _, test := range []struct {
		name string
		to   time.Time
		want time.Duration
	}{
		{"both clocks agree", start.Add(time.Minute), time.Minute},
		// Without a monotonic reading both differences are the wall clock's.
		{"wall clock alone", start.Add(time.Hour).Round(0), time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := elapsed(start, test.to); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// body records that it was closed.
type body struct {
	io.Reader
	closed bool
}

func (b *body) Close() error { b.closed = true; return nil }

func TestFence(t *testing.T) {
	for _, test := range []struct {
		name    string
		method  string
		prepare func(*fence)
		wait    time.Duration
		want    error
	}{
		{"write after a renewal", http.MethodPut, func(f *fence) { f.renew(time.Now()) }, 0, nil},
		{"write before any", http.MethodPost, func(*fence) {}, 0, ErrFenced},
		{"read before any", http.MethodGet, func(*fence) {}, 0, nil},
		{"write in time", http.MethodPatch, func(f *fence) { f.renew(time.Now()) }, 12 * time.Second, nil},
		{"write too late", http.MethodPatch, func(f *fence) { f.renew(time.Now()) }, 13 * time.Second, ErrFenced},
		{"delete too late", http.MethodDelete, func(f *fence) { f.renew(time.Now()) }, time.Hour, ErrFenced},
		{"closed for good", http.MethodPut, func(f *fence) { f.close(); f.renew(time.Now()) }, 0, ErrFenced},
		{"read when closed", http.MethodHead, func(f *fence) { f.close() }, 0, nil},
		{"wall clock set far ahead", http.MethodPut, func(f *fence) {
			// As if the monotonic clock had stood still for an hour.
			f.renew(time.Now().Add(-time.Hour).Round(0))
		}, 0, ErrFenced},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				refused := 0
				f := &fence{lifetime: 13 * time.Second, refused: func() { refused++ }}
				test.prepare(f)
				time.Sleep(test.wait) // of the bubble
				sent := false
				transport := f.wrap(roundTripper(func(*http.Request) (*http.Response, error) {
					sent = true
					return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
				}))
				payload := &body{Reader: strings.NewReader("{}")}
				req, err := http.NewRequestWithContext(t.Context(), test.method, "http://fake/", payload)
				if err != nil {
					t.Fatal(err)
				}
				_, err = transport.RoundTrip(req)
				if !errors.Is(err, test.want) {
					t.Errorf("got error %v, want %v", err, test.want)
				}
				if sent == (test.want != nil) {
					t.Errorf("got sent %t with error %v", sent, err)
				}
				if test.want != nil && (refused != 1 || !payload.closed) {
					t.Errorf("got %d refusals counted and body closed %t, want 1 and true", refused, payload.closed)
				}
			})
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return r(req) }
