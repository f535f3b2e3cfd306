package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// standing is the record of the control plane that Up left running. It is written
// before the first process starts and after each one, so that there is never a
// process that Down does not know.
type standing struct {
	Dir       string     `json:"dir"`
	Processes []Identity `json:"processes"`
	// Ready says that the start was completed.
	Ready bool `json:"ready"`
	path  string
}

// Up starts a control plane that goes on when this process ends, one per cache
// directory, and tells out how to use it. If it runs already, Up only tells that.
// What a crash or a kill left behind is removed first, data included. Dir and Log
// are set by Up.
func Up(ctx context.Context, out io.Writer, o Options) error {
	s, unlock, err := openStanding(ctx)
	if err != nil {
		return fmt.Errorf("up: %w", err)
	}
	defer unlock()
	if s.runs() {
		fmt.Fprintln(out, "The control plane runs already.")
		s.usage(out)
		return nil
	}
	if err := s.clear(); err != nil {
		return fmt.Errorf("up: remove what is left of an earlier control plane: %w", err)
	}
	begin := time.Now()
	o.Dir, o.Log, o.detached, o.started = s.Dir, out, true, s.record
	if err := s.start(ctx, o); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	fmt.Fprintf(out, "The control plane is ready (%.1f s).\n", time.Since(begin).Seconds())
	s.usage(out)
	return nil
}

// Down stops the control plane that Up started, exactly its processes, and
// removes its data. It is no error if none runs.
func Down(ctx context.Context, out io.Writer) error {
	s, unlock, err := openStanding(ctx)
	if err != nil {
		return fmt.Errorf("down: %w", err)
	}
	defer unlock()
	known := len(s.Processes) > 0
	if err := s.clear(); err != nil {
		return fmt.Errorf("down: %w", err)
	}
	if !known {
		fmt.Fprintln(out, "No control plane runs.")
		return nil
	}
	fmt.Fprintln(out, "The control plane is stopped and its data removed.")
	return nil
}

// Standing returns the directory of the control plane of Up, which holds its
// kubeconfig and pki, and whether all of it runs.
func Standing(ctx context.Context) (dir string, runs bool, err error) {
	s, unlock, err := openStanding(ctx)
	if err != nil {
		return "", false, err
	}
	defer unlock()
	return s.Dir, s.runs(), nil
}

// openStanding reads the record, empty if there is none, and holds its lock.
func openStanding(ctx context.Context) (*standing, func(), error) {
	cache, err := CacheDir()
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, nil, err
	}
	unlock, err := Lock(ctx, filepath.Join(cache, "up.lock"), func() {})
	if err != nil {
		return nil, nil, err
	}
	s := &standing{path: filepath.Join(cache, "up.json")}
	if err := s.read(); err != nil {
		unlock()
		return nil, nil, err
	}
	s.Dir = filepath.Join(cache, "up")
	return s, unlock, nil
}

func (s *standing) read() error {
	data, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, s); err != nil {
		return fmt.Errorf("read %s: %w", s.path, err)
	}
	return nil
}

func (s *standing) write() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	partial := s.path + ".partial"
	if err := os.WriteFile(partial, append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(partial, s.path)
}

// start starts the components one by one, each recorded as soon as it runs.
func (s *standing) start(ctx context.Context, o Options) error {
	c, err := Start(ctx, o)
	if err != nil {
		return errors.Join(err, s.clear())
	}
	s.Ready = true
	if err := s.write(); err != nil {
		return errors.Join(err, c.Stop(), s.clear())
	}
	return nil
}

func (s *standing) record(p *process) error {
	id, err := Identify(p.cmd.Process.Pid)
	if err != nil {
		return err
	}
	id.Name = p.name
	s.Processes = append(s.Processes, id)
	return s.write()
}

// runs tells whether every process of a completed start is alive.
func (s *standing) runs() bool {
	if !s.Ready {
		return false
	}
	for _, id := range s.Processes {
		if !id.Alive() {
			return false
		}
	}
	return true
}

// clear ends the recorded processes, the last started first, and removes data
// and record.
func (s *standing) clear() error {
	for _, id := range slices.Backward(s.Processes) {
		if err := id.End(); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(s.Dir); err != nil {
		return err
	}
	s.Processes, s.Ready = nil, false
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (s *standing) usage(out io.Writer) {
	fmt.Fprintf(out, "\n  export KUBECONFIG=%s\n\nStop it with: make cluster-down\n", filepath.Join(s.Dir, "kubeconfig"))
}

// End ends the process unless it has ended, and waits until it has.
func (id Identity) End() error {
	// The handle means this process whatever becomes of its number, as long as
	// it is the one we meant, which is asked afterwards.
	process, err := os.FindProcess(id.PID)
	if err != nil {
		return fmt.Errorf("end %s: %w", id.Name, err)
	}
	// It only closes the handle.
	defer func() { _ = process.Release() }()
	if !id.Alive() {
		return nil
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("end %s: %w", id.Name, err)
		}
		if id.gone(grace) {
			return nil
		}
	}
	return fmt.Errorf("end %s: process %d is still there after SIGKILL", id.Name, id.PID)
}

// gone waits for the process to end, which a process that is not our child does
// not tell us about.
func (id Identity) gone(within time.Duration) bool {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.Now().Add(within)
	for id.Alive() {
		if time.Now().After(deadline) {
			return false
		}
		<-ticker.C
	}
	return true
}
