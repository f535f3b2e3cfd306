package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// ExitError says that a wrapped command has ended, not with success.
type ExitError struct {
	// Code is its exit code; 128 and the signal's number if a signal ended it.
	Code int
}

// Error implements error.
func (e ExitError) Error() string {
	return fmt.Sprintf("the command has ended with code %d", e.Code)
}

// child is one run of the command, in a process group of its own.
type child struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // of Wait, once ended is closed
}

// startChild starts the command with these variables on top of our own environment.
func (o ReloadOptions) startChild(variables ...string) (*child, error) {
	// Not CommandContext: it gets signals, and time to end.
	cmd := exec.Command(o.Command[0], o.Command[1:]...) //nolint:gosec,noctx // the caller's own command
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, o.Out, o.Err
	cmd.Env = append(os.Environ(), variables...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // what it has left behind must not hold us up
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the command: %w", err)
	}
	c := &child{cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		c.err = cmd.Wait()
	}()
	return c, nil
}

// signal reaches the whole group: a shell does not pass signals on to what it runs.
func (c *child) signal(s syscall.Signal) {
	// It fails when all of the group have ended, which is what we are waiting for.
	_ = syscall.Kill(-c.cmd.Process.Pid, s)
}

// result is what the exit of the command makes of our own.
func (c *child) result() error {
	state := c.cmd.ProcessState
	if state == nil {
		return fmt.Errorf("wait for the command: %w", c.err)
	}
	code := state.ExitCode()
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	if code != 0 {
		return ExitError{Code: code}
	}
	return nil
}

// wrap runs the command until it ends by itself or by a signal that was passed on,
// and restarts it on each change.
func (o ReloadOptions) wrap(ctx context.Context) error {
	changes, done := o.follow(ctx)
	defer done()
	running, err := o.startChild()
	if err != nil {
		return err
	}
	var kill <-chan time.Time // set while the command is being ended for a change
	stopping, told := ctx.Done(), false
	for {
		select {
		case <-running.ended:
			if kill == nil || ctx.Err() != nil {
				return running.result()
			}
			running.signal(syscall.SIGKILL) // what is left of its group
			o.reap(0)
			if running, err = o.startChild(); err != nil {
				return err
			}
			kill = nil
		case changed := <-changes:
			if kill == nil && ctx.Err() == nil {
				o.Log.Info("content changed, restarting the command", "path", pathList(changed), "pid", running.cmd.Process.Pid)
				running.signal(syscall.SIGTERM)
				kill = time.After(o.Grace)
			}
		case <-kill:
			o.Log.Warn("command killed, it did not end in time", "grace", o.Grace, "pid", running.cmd.Process.Pid)
			running.signal(syscall.SIGKILL)
			kill = make(chan time.Time) // still set, and never again
		case s := <-o.Signals:
			o.passOn(running, s)
			told = told || s == syscall.SIGTERM || s == os.Interrupt
		case <-o.Children:
			o.reap(running.cmd.Process.Pid)
		case <-stopping:
			if !told { // a second signal means "at once" to many programs
				o.end(running)
			}
			stopping = nil
		}
	}
}

// end passes on what has ended ctx. As a rule that is a signal, which is on its way
// to us as well; else it is SIGTERM. How long the command may take is up to whoever
// ends us.
func (o ReloadOptions) end(running *child) {
	select {
	case s := <-o.Signals:
		o.passOn(running, s)
	case <-running.ended:
	case <-time.After(100 * time.Millisecond):
		running.signal(syscall.SIGTERM)
	}
}

func (o ReloadOptions) passOn(running *child, s os.Signal) {
	if number, ok := s.(syscall.Signal); ok {
		o.Log.Debug("signal passed on", "signal", number.String())
		running.signal(number)
	}
}

// reap clears away children that ended, but for the command: as the first process
// of a container we inherit what its descendants leave behind.
func (o ReloadOptions) reap(command int) {
	table, err := processes()
	if err != nil {
		o.Log.Warn("process table not read", "err", err)
		return
	}
	for _, p := range table {
		if p.parent != os.Getpid() || !p.zombie || p.pid == command {
			continue
		}
		if _, err := syscall.Wait4(p.pid, nil, syscall.WNOHANG, nil); err != nil && !errors.Is(err, syscall.ECHILD) {
			o.Log.Warn("ended process not cleared away", "pid", p.pid, "err", err)
		}
	}
}
