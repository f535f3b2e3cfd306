package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/node"
)

// waitTick is the net under lost file events.
const waitTick = 2 * time.Second

// ErrWrongSets says that Wait was asked for what is no set, or for credentials of sets
// that hold none.
var ErrWrongSets = errors.New("wrong sets")

// WaitOptions are the flags of Wait.
type WaitOptions struct {
	// HostDir is where the sets are, as this container sees it. It may be mounted
	// read-only, and need not exist yet.
	HostDir string
	// Sets lists the sets to wait for, e.g. "cluster", "aws". At least one.
	Sets []string
	// RequireCredentials waits until each set of AWS files has credentials, too. An AWS
	// SDK that finds none, or may not read them, falls back to the node's role.
	RequireCredentials bool
	Log                *slog.Logger
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
	if o.RequireCredentials && !slices.ContainsFunc(o.Sets, node.MayHoldCredentials) {
		errs = append(errs, errors.New("--require-credentials needs a set of AWS files: add --set aws or --set aws-NAME"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrWrongSets, err)
	}
	following, stop := context.WithCancel(ctx)
	hints := make(chan struct{}, 1)
	go func() {
		defer close(hints)
		hostfiles.Follow(following, dirs, waitTick, func() { offer(hints) }, func(err error) {
			o.Log.Warn("cannot watch the sets, polling instead", "every", waitTick, "err", err)
		})
	}()
	last := o.check()
	for following.Err() == nil && last != nil {
		o.Log.Debug("waiting", "err", last)
		<-hints // or the end of them
		last = o.check()
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

// check reads the directory again each time: it may be mounted over meanwhile.
func (o WaitOptions) check() error {
	var errs []error
	for _, set := range o.Sets {
		if err := o.checkSet(set); err != nil {
			errs = append(errs, fmt.Errorf("set %s in %s: %w", set, o.HostDir, err))
		}
	}
	return errors.Join(errs...)
}

func (o WaitOptions) checkSet(set string) error {
	files, err := hostfiles.ReadSet(o.HostDir, set)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("not found: is the agent running on this node, and hostDir mounted here?")
	case errors.Is(err, fs.ErrPermission):
		return barred(filepath.Join(o.HostDir, set), err)
	case err != nil:
		return err
	}
	if err := node.Check(set, files); err != nil {
		return err
	}
	if o.RequireCredentials && node.MayHoldCredentials(set) {
		return node.CheckCredentials(files)
	}
	return nil
}

// barred adds to a permission that was denied in dir who has it and how to get it.
func barred(dir string, denied error) error {
	at, ok := errors.AsType[*fs.PathError](denied)
	if !ok {
		return denied
	}
	path := at.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return denied // a directory above it, which it names
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return denied
	}
	groups, err := os.Getgroups()
	if err != nil {
		return errors.Join(denied, err)
	}
	r := reader{uid: os.Geteuid(), groups: append(groups, os.Getegid())}
	return fmt.Errorf("%w: %s", denied, r.barred(path, info.Mode(), int(owner.Uid), int(owner.Gid)))
}

// reader is who reads: a user and all of its groups.
type reader struct {
	uid    int
	groups []int
}

// barred says why a reader may not read what has this mode and owner.
func (r reader) barred(path string, mode fs.FileMode, uid, gid int) string {
	slices.Sort(r.groups)
	facts := fmt.Sprintf("%s has mode %04o, user %d and group %d, and this is user %d with the groups %v",
		path, mode.Perm(), uid, gid, r.uid, slices.Compact(r.groups))
	class := fs.FileMode(0o004) // the first class that fits decides, also if a later one had more
	switch {
	case r.uid == uid:
		class = 0o400
	case slices.Contains(r.groups, gid):
		class = 0o040
	}
	need := class
	if mode.IsDir() {
		need |= class >> 2 // the right to search
	}
	const files = "change files (uid, gid, mode) of awsCredentials or scraper in the agent's configuration"
	switch {
	case mode&need == need:
		return facts + "; owner and mode allow it, so SELinux or another policy on the node denies it"
	case class == 0o004 && mode&(need<<3) == need<<3:
		return fmt.Sprintf("%s: add %d to supplementalGroups of the pod, or %s", facts, gid, files)
	default:
		return facts + ": " + files
	}
}
