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
	"strings"
	"syscall"
	"time"

	"github.com/chandler-k8s/chandler/hostfiles"
)

// ReloadOptions are the flags of Reload. Exactly one of PIDFile, Process, URL and
// Command says what to do.
type ReloadOptions struct {
	// Dir is watched, e.g. "/host/scraper". Its subdirectories are not. It need not
	// exist yet.
	Dir string
	// Signal goes to the process whose number is in PIDFile, or which is called
	// Process.
	Signal           syscall.Signal
	PIDFile, Process string
	// URL gets a POST.
	URL string
	// Command is run, and run anew on each change.
	Command []string
	// Grace is how long the command has to end before it is killed. Zero kills it at
	// once.
	Grace time.Duration
	// Signals are passed on to the command.
	Signals <-chan os.Signal
	// Children gets SIGCHLD: ended processes that nobody else waits for are cleared
	// away then. One that waits in it stands for any number.
	Children <-chan os.Signal
	// Out and Err are the command's.
	Out, Err io.Writer
	Log      *slog.Logger
}

// Reload acts whenever the content of the directory has changed: not at the start,
// not for events without a change of content, and not when content is removed.
// It blocks until ctx ends and returns nil then, or with Command until that has
// ended, and returns nil or ExitError then.
func Reload(ctx context.Context, o ReloadOptions) error {
	if len(o.Command) > 0 {
		return o.wrap(ctx)
	}
	act := o.signal
	if o.URL != "" {
		act = o.post
	}
	return o.notify(ctx, act)
}

const (
	firstRetry = time.Second
	mostRetry  = time.Minute
)

// notify acts on each change, and again with growing pauses until that succeeds.
func (o ReloadOptions) notify(ctx context.Context, act func(context.Context) (string, error)) error {
	changes, done := o.follow(ctx)
	defer done()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
		}
		for pause := firstRetry; ; pause = min(2*pause, mostRetry) {
			what, err := act(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err == nil {
				o.Log.Info("told of the change", "path", o.Dir, "what", what)
				break
			}
			o.Log.Error("not told of the change, trying again", "path", o.Dir, "pause", pause, "err", err)
			timer := time.NewTimer(pause)
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil
			case <-changes:
				timer.Stop()
				pause = firstRetry
			case <-timer.C:
			}
		}
	}
}

// follow sends once for one or several changes since it was called. The caller calls
// done, after ctx has ended or to end it.
func (o ReloadOptions) follow(ctx context.Context) (changes <-chan struct{}, done func()) {
	seen, err := fingerprint(o.Dir)
	problem := o.complain("", err)
	o.Log.Info("watching", "path", o.Dir)
	ctx, cancel := context.WithCancel(ctx)
	hints, out, ended := make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(hints)
		hostfiles.Follow(ctx, []string{o.Dir}, reloadTick, func() { offer(hints) }, func(err error) {
			o.Log.Warn("directory is not watched, looking at it now and then", "path", o.Dir, "every", reloadTick, "err", err)
		})
	}()
	go func() {
		defer close(ended)
		for range hints {
			now, err := fingerprint(o.Dir)
			problem = o.complain(problem, err)
			if err == nil && now != "" && now != seen {
				seen = now
				offer(out)
			}
		}
	}()
	return out, func() { cancel(); <-ended }
}

// complain logs an error that differs from the last one.
func (o ReloadOptions) complain(last string, err error) string {
	if err == nil {
		return ""
	}
	if err.Error() != last {
		o.Log.Warn("directory not read, what was there before counts", "path", o.Dir, "err", err)
	}
	return err.Error()
}

// fingerprint stands for the names and contents of the files in a directory, links
// followed; "" for one that is absent or has none. A set that is swapped meanwhile
// is read again.
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
