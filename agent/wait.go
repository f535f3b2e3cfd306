package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/node"
)

// waitTick is the net under lost file events.
const waitTick = 2 * time.Second

// ErrUnknownSet says that Wait was asked for what is no set.
var ErrUnknownSet = errors.New("unknown set")

// WaitOptions are the flags of Wait.
type WaitOptions struct {
	// HostDir is where the sets are, as this container sees it. It may be mounted
	// read-only, and need not exist yet.
	HostDir string
	// Sets lists the sets to wait for, e.g. "cluster", "aws". At least one.
	Sets []string
	Log  *slog.Logger
}

// Wait blocks until every set is there and valid, and returns nil then. When ctx
// ends first, the error says what is wrong with each set.
func Wait(ctx context.Context, o WaitOptions) error {
	var errs []error
	dirs := []string{o.HostDir}
	for _, set := range o.Sets {
		errs = append(errs, node.CheckName(set))
		dirs = append(dirs, filepath.Join(o.HostDir, set))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrUnknownSet, err)
	}
	following, stop := context.WithCancel(ctx)
	hints := make(chan struct{}, 1)
	go func() {
		defer close(hints)
		hostfiles.Follow(following, dirs, waitTick, func() { offer(hints) }, func(err error) {
			o.Log.Warn("the sets are not watched, looking at them now and then", "every", waitTick, "err", err)
		})
	}()
	last := checkSets(o.HostDir, o.Sets)
	for following.Err() == nil && last != nil {
		o.Log.Debug("waiting", "err", last)
		<-hints // or the end of them
		last = checkSets(o.HostDir, o.Sets)
	}
	stop()
	for range hints { // until nothing follows any more
	}
	return last
}

func offer(hints chan<- struct{}) {
	select {
	case hints <- struct{}{}:
	default: // one is waiting already
	}
}

// checkSets reads the directory anew each time: it may be mounted over meanwhile.
func checkSets(hostDir string, sets []string) error {
	var errs []error
	for _, set := range sets {
		files, err := hostfiles.ReadSet(hostDir, set)
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("it is not there; is the agent running on this node, and the directory mounted?")
		} else if err == nil {
			err = node.Check(set, files)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("set %s in %s: %w", set, hostDir, err))
		}
	}
	return errors.Join(errs...)
}
