package agent

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/chandler-k8s/chandler/hostfiles"
)

// ErrHoldsSets says that a watched directory has sets in it and no files of its own.
var ErrHoldsSets = errors.New("directory holds sets and no files")

// ReloadOptions are the flags of Reload. Exactly one of PIDFile, Process, URL and
// Command says what to do.
type ReloadOptions struct {
	// Dirs are watched, e.g. "/host/aws". Their subdirectories are not. They need not
	// exist yet. At least one.
	Dirs []string
	// Signal goes to the process whose number is in PIDFile, or which is called
	// Process.
	Signal           syscall.Signal
	PIDFile, Process string
	// URL gets a POST.
	URL string
	// Command runs from the start and is restarted on each change, or with Exec runs
	// once on each change.
	Command []string
	Exec    bool
	// Timeout bounds one POST, and one run of the command with Exec.
	Timeout time.Duration
	// Grace is how long the command has to end before it is killed. Zero kills it at
	// once.
	Grace time.Duration
	// Signals are passed on to a wrapped command, and not read with Exec.
	Signals <-chan os.Signal
	// Children gets SIGCHLD: ended processes that nobody else waits for are cleared
	// away then. One that waits in it stands for any number.
	Children <-chan os.Signal
	// Out and Err are the command's.
	Out, Err io.Writer
	Log      *slog.Logger
}

// Reload acts whenever the content of a directory has changed: not at the start,
// not for events without a change of content, and not when content is removed.
// It blocks until ctx ends and returns nil then, or with a wrapped command until that
// has ended, and returns nil or ExitError then. ErrHoldsSets: it has not started.
func Reload(ctx context.Context, o ReloadOptions) error {
	for _, dir := range o.Dirs {
		if _, err := fingerprint(dir); errors.Is(err, ErrHoldsSets) {
			return err
		}
	}
	switch {
	case o.Exec:
		return o.notify(ctx, o.execute)
	case len(o.Command) > 0:
		return o.wrap(ctx)
	case o.URL != "":
		return o.notify(ctx, o.post)
	default:
		return o.notify(ctx, o.signal)
	}
}

const (
	firstRetry = time.Second
	mostRetry  = time.Minute
)

// action makes the consumer reload and says how. It gets the directories that have
// changed.
type action func(ctx context.Context, changed []string) (what string, err error)

// notify acts on each change, and again with growing pauses until that succeeds.
func (o ReloadOptions) notify(ctx context.Context, act action) error {
	changes, done := o.follow(ctx)
	defer done()
	for {
		changed := o.await(ctx, changes, nil)
		for pause := firstRetry; ; pause = min(2*pause, mostRetry) {
			if ctx.Err() != nil {
				return nil
			}
			what, err := act(ctx, changed)
			if ctx.Err() != nil {
				return nil
			}
			if err == nil {
				o.Log.Info("reload triggered", "path", pathList(changed), "what", what)
				break
			}
			o.Log.Error("reload failed, retrying", "path", pathList(changed), "pause", pause, "err", err)
			if more := o.await(ctx, changes, time.After(pause)); more != nil {
				changed, pause = union(changed, more), firstRetry
			}
		}
	}
}

// await returns the next change, or nil once the pause is over or ctx has ended. While
// it waits no command runs, so every child that has ended is an orphan to reap.
func (o ReloadOptions) await(ctx context.Context, changes <-chan []string, pause <-chan time.Time) []string {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-pause:
			return nil
		case changed := <-changes:
			return changed
		case <-o.Children:
			o.reap(0)
		}
	}
}

// follow sends the directories that have changed since it was called, or since it
// sent last. The caller calls done, after ctx has ended or to end it.
func (o ReloadOptions) follow(ctx context.Context) (changes <-chan []string, done func()) {
	w := watched{dirs: o.Dirs, log: o.Log, seen: map[string]string{}, problems: map[string]string{}}
	w.look()
	for _, dir := range o.Dirs {
		o.Log.Info("watching", "path", dir)
	}
	ctx, cancel := context.WithCancel(ctx)
	hints, out, ended := make(chan struct{}, 1), make(chan []string, 1), make(chan struct{})
	go func() {
		defer close(hints)
		hostfiles.Follow(ctx, o.Dirs, reloadTick, func() { offer(hints) }, func(err error) {
			o.Log.Warn("cannot watch the directories, polling instead", "path", pathList(o.Dirs), "every", reloadTick, "err", err)
		})
	}()
	go func() {
		defer close(ended)
		for range hints {
			changed := w.look()
			if len(changed) == 0 {
				continue
			}
			select {
			case waiting := <-out:
				changed = union(waiting, changed)
			default:
			}
			out <- changed // there is room: nothing else sends
		}
	}()
	return out, func() { cancel(); <-ended }
}

// watched is what a look at the directories is compared with.
type watched struct {
	dirs []string
	log  *slog.Logger
	// seen and problems have each directory's last content and error.
	seen, problems map[string]string
}

// look returns the directories that have other content than at the last look. One
// that is empty or cannot be read has not changed.
func (w watched) look() (changed []string) {
	for _, dir := range w.dirs {
		now, err := fingerprint(dir)
		w.complain(dir, err)
		if err == nil && now != "" && now != w.seen[dir] {
			w.seen[dir] = now
			changed = append(changed, dir)
		}
	}
	return changed
}

// complain logs an error that differs from the last one.
func (w watched) complain(dir string, err error) {
	if err == nil {
		delete(w.problems, dir)
		return
	}
	if err.Error() != w.problems[dir] {
		w.log.Error("cannot read the directory, treating it as unchanged", "path", dir, "err", err)
	}
	w.problems[dir] = err.Error()
}

// pathList joins directories as PATH does.
func pathList(dirs []string) string { return strings.Join(dirs, string(os.PathListSeparator)) }

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// fingerprint stands for the names and contents of the files in a directory, links
// followed; "" for one that is absent or has none. It fails with ErrHoldsSets. A set
// that is swapped meanwhile is read again.
func fingerprint(dir string) (string, error) {
	const attempts = 10
	for range attempts {
		before := current(dir)
		sum, err := hashFiles(dir)
		if current(dir) == before {
			return sum, err
		}
	}
	return "", fmt.Errorf("%s changed %d times while it was read", dir, attempts)
}

// current is where a set's link ..data leads; a plain directory has none.
func current(dir string) string {
	target, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil {
		return ""
	}
	return target
}

func hashFiles(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	total, files := sha256.New(), 0
	var sets []string
	for _, e := range entries { // sorted by name
		if strings.HasPrefix(e.Name(), "..") {
			continue // a set's own, which the links lead to
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a link that dangles, as it does for a moment in a swap
		}
		if err != nil {
			return "", err
		}
		if !info.Mode().IsRegular() {
			if current(path) != "" {
				sets = append(sets, path)
			}
			continue
		}
		content, err := hashFile(path)
		if err != nil {
			return "", err
		}
		files++
		total.Write(binary.BigEndian.AppendUint64(nil, uint64(len(e.Name()))))
		total.Write([]byte(e.Name()))
		total.Write(content)
	}
	if files == 0 && len(sets) > 0 {
		return "", fmt.Errorf("watch %s: %w: watch the sets that the consumer reads instead, e.g. %s", dir, ErrHoldsSets, strings.Join(sets, ", "))
	}
	if files == 0 {
		return "", nil
	}
	return string(total.Sum(nil)), nil
}

func hashFile(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // in the directory that a flag names
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read from
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return nil, err
	}
	return sum.Sum(nil), nil
}
