package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/node/identity"
)

// newTestNode is a node that knows the facts and asks nobody.
func newTestNode(t *testing.T, facts identity.Facts, credentials ...Credential) (*Node, string) {
	t.Helper()
	path := t.TempDir()
	dir, err := hostfiles.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	})
	log := slog.New(slog.DiscardHandler)
	resolver := identity.New(identity.Options{Core: fake.NewClientset(), Previous: facts, Log: log, Metrics: prometheus.NewRegistry()})
	return New(Options{Dir: dir, Identity: resolver, Credentials: credentials, Log: log, Metrics: prometheus.NewRegistry()}), path
}

var known = identity.Facts{
	identity.ClusterID: {Value: "prod", Source: "node-label"}, identity.Region: {Value: "eu-west-1", Source: "node-label"},
}

func TestReady(t *testing.T) {
	n, _ := newTestNode(t, nil)
	if err := n.Ready(); err == nil || !strings.Contains(err.Error(), "cluster ID") {
		t.Errorf("without a cluster ID: got %v, want an error that says so", err)
	}
	n, _ = newTestNode(t, known, Credential{Set: "aws", Source: t.TempDir(), Profile: "default", Mode: 0o440})
	if err := n.Ready(); err == nil || !strings.Contains(err.Error(), "set cluster") {
		t.Errorf("before the first pass: got %v, want an error that names the set", err)
	}
	if err := n.pass(); err != nil {
		t.Fatal(err)
	}
	if err := n.Ready(); err != nil {
		t.Errorf("after a pass: got %v, want none", err)
	}
}

func TestLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _ := newTestNode(t, known)
		if err := n.Live(); err != nil {
			t.Errorf("before the start: got %v, want none", err)
		}
		n.beat()
		time.Sleep(overrun)
		if err := n.Live(); err != nil {
			t.Errorf("within the time that a pass may take: got %v, want none", err)
		}
		time.Sleep(time.Second)
		if err := n.Live(); err == nil {
			t.Error("a loop that is stuck counts as live")
		}
		n.beat()
		if err := n.Live(); err != nil {
			t.Errorf("after another pass: got %v, want none", err)
		}
	})
}

func TestWithdraw(t *testing.T) {
	n, path := newTestNode(t, known)
	for _, set := range []string{"aws", "aws-billing", "scraper", "other"} {
		file := hostfiles.File{Name: "x", Mode: 0o400, UID: -1, GID: -1, Data: []byte("x")}
		if _, err := n.Dir.Publish(set, []hostfiles.File{file}); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.pass(); err != nil {
		t.Fatal(err)
	}
	for set, want := range map[string]bool{"aws": false, "aws-billing": false, "scraper": false, "other": true} {
		if _, err := os.Stat(filepath.Join(path, set, "x")); (err == nil) != want {
			t.Errorf("set %s after a pass: got %v, want it there: %t", set, err, want)
		}
	}
}

// TestSameErrorIsLoggedOnce: what a publish fails with names its own attempt.
func TestSameErrorIsLoggedOnce(t *testing.T) {
	n, _ := newTestNode(t, known)
	failure := func(attempt int, err error) error { return fmt.Errorf("publish ..%d: %w", attempt, err) }
	for i, tt := range []struct {
		err  error
		want bool
	}{
		{failure(1, syscall.EPERM), true},
		{failure(2, syscall.EPERM), false},
		{failure(3, syscall.ENOSPC), true},
		{nil, true},
		{nil, false},
		{errors.Join(failure(4, syscall.EPERM)), true},
	} {
		if got := n.note("aws", tt.err); got != tt.want {
			t.Errorf("%d: %v is new: got %t, want %t", i, tt.err, got, tt.want)
		}
	}
}
