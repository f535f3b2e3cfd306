package hostfiles_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chandler-k8s/chandler/hostfiles"
)

// TestFollowGoesOnByTheClock follows what cannot be watched: a name longer than
// any file system takes stands for exhausted inotify limits, which belong to the
// whole machine.
func TestFollowGoesOnByTheClock(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	hints, failures, ended := make(chan struct{}, 100), make(chan error, 100), make(chan struct{})
	go func() {
		defer close(ended)
		hostfiles.Follow(ctx, []string{filepath.Join(t.TempDir(), strings.Repeat("x", 300))}, time.Millisecond,
			func() {
				select {
				case hints <- struct{}{}:
				default:
				}
			}, func(err error) { failures <- err })
	}()
	if err := <-failures; err == nil {
		t.Error("told of no failure")
	}
	for range 10 {
		<-hints
	}
	cancel()
	<-ended
	if n := len(failures); n != 0 {
		t.Errorf("told of the same failure %d times more", n)
	}
}

func TestFollowSeesChanges(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	hints, ended := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(ended)
		hostfiles.Follow(ctx, []string{dir}, time.Hour, func() { hints <- struct{}{} }, func(err error) { t.Errorf("watch: %v", err) })
	}()
	<-hints // armed
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	<-hints
	cancel()
	<-ended
}
