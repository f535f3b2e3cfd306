package leader

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/client-go/rest"
)

func TestNewRefusesBadOptions(t *testing.T) {
	good := func() Options {
		return Options{
			Config: &rest.Config{}, Namespace: "chandler", Identity: "pod",
			Tasks: func(Term) ([]Task, error) { return nil, nil },
			Log:   slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		}
	}
	for _, test := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"good", func(*Options) {}, ""},
		{"no config", func(o *Options) { o.Config = nil }, "Config is required"},
		{"no identity", func(o *Options) { o.Identity = "" }, "Identity is required"},
		{"lease too short", func(o *Options) { o.LeaseDuration = time.Second }, "LeaseDuration 1s"},
		{"lease too long", func(o *Options) { o.LeaseDuration = time.Hour }, "LeaseDuration 1h0m0s"},
		{"lease of half seconds", func(o *Options) { o.LeaseDuration = 7500 * time.Millisecond }, "LeaseDuration 7.5s"},
		{"another namespace", func(o *Options) { o.Namespace = "kube-system" }, `namespace "kube-system": the leader half works in namespace "chandler" alone`},
		{"negative workers", func(o *Options) { o.Workers = -1 }, "negative Workers -1"},
		{"two problems", func(o *Options) { o.Namespace, o.Log = "", nil }, "Log is required"},
	} {
		t.Run(test.name, func(t *testing.T) {
			opts := good()
			test.change(&opts)
			_, err := New(opts)
			if (err == nil) != (test.want == "") || (err != nil && !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got error %v, want %q", err, test.want)
			}
		})
	}
}

func TestNotACandidateDoesNotLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newFakeAPI()
		var asked atomic.Int32
		var is atomic.Bool
		r := start(t, api, "pod-0", func(o *Options) {
			o.Candidate = func(context.Context) (bool, error) { asked.Add(1); return is.Load(), nil }
		})
		idle(time.Hour)
		if api.looks != 0 || asked.Load() > 8 {
			t.Errorf("got %d looks and %d questions in an hour, want none and about six", api.looks, asked.Load())
		}
		is.Store(true)
		passes(t, 12*time.Minute, func() bool { return api.holder() == "pod-0" })
		r.end(t)
	})
}

func TestCandidacyUnknownMeansNo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newFakeAPI()
		var readable atomic.Bool
		r := start(t, api, "pod-0", func(o *Options) {
			o.Candidate = func(context.Context) (bool, error) {
				if !readable.Load() {
					return false, errors.New("forbidden")
				}
				return true, nil
			}
		})
		idle(10 * time.Minute)
		if api.looks != 0 {
			t.Errorf("got %d looks, want none", api.looks)
		}
		readable.Store(true)
		passes(t, 2*time.Minute, func() bool { return api.holder() == "pod-0" })
		r.end(t)
	})
}

func TestCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newFakeAPI()
		r := start(t, api, "pod-0")
		if err := r.Check(); err != nil {
			t.Errorf("following: got %v, want nil", err)
		}
		passes(t, 5*time.Second, func() bool { return testutil.ToFloat64(r.metrics.leading) == 1 })
		idle(time.Hour)
		if err := r.Check(); err != nil {
			t.Errorf("leading: got %v, want nil", err)
		}
		r.term.Load().renew(time.Now().Add(-31 * time.Second)) // as if renewing had stopped
		if err := r.Check(); err == nil {
			t.Error("leading without renewal: got nil, want an error")
		}
		r.end(t)
	})
}

func TestMissingPermissionsAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newFakeAPI()
		api.denied["secrets"] = true
		r := start(t, api, "pod-0", running(&permittedTask{}))
		defer r.end(t)
		passes(t, 5*time.Second, func() bool { return testutil.ToFloat64(r.metrics.leading) == 1 })
		idle(time.Second)
		missing := func() float64 {
			return testutil.ToFloat64(r.metrics.missingPermissions.WithLabelValues("permitted"))
		}
		if got := missing(); got != 1 {
			t.Errorf("got %v missing permissions, want 1", got)
		}
		api.set(func(f *fakeAPI) { f.denied = map[string]bool{} })
		idle(missingInterval)
		if got := missing(); got != 0 {
			t.Errorf("granted: got %v missing permissions, want none", got)
		}
		api.set(func(f *fakeAPI) { f.denied = map[string]bool{"secrets": true, "namespaces": true} })
		idle(permissionsInterval)
		if got := missing(); got != 2 {
			t.Errorf("taken away: got %v missing permissions, want 2", got)
		}
	})
}
