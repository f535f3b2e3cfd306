package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// grace is how long a component may take to end by itself after SIGTERM. The API
// server would wait a minute for clients that watch something; etcd holds all
// data, and is itself stopped only where the data is thrown away.
const grace = 2 * time.Second

// command describes a component's process.
type command struct {
	name string   // e.g. "etcd"; its log is <dir>/etcd.log
	path string   // of the binary
	args []string // without the binary's name
	dir  string   // working directory
	// detached starts the process in a session of its own, where it outlives us.
	detached bool
}

// process is a child that has been started.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the child has been waited for
	err  error         // how it ended; to be read after done
}

func (c command) logPath() string { return c.dir + "/" + c.name + ".log" }

// start runs the command. Its output is appended to its log file directly, so
// that it does not depend on this process.
func (c command) start() (*process, error) {
	output, err := os.OpenFile(c.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	// The context of a start is not that of the component's life.
	cmd := exec.CommandContext(context.Background(), c.path, c.args...)
	cmd.Dir = c.dir
	cmd.Env = childEnv()
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = attributes(c.detached)
	p := &process{name: c.name, log: c.logPath(), cmd: cmd, done: make(chan struct{})}
	err = p.start()
	if err := errors.Join(err, output.Close()); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	return p, nil
}

func attributes(detached bool) *syscall.SysProcAttr {
	if detached {
		return &syscall.SysProcAttr{Setsid: true}
	}
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// childEnv is what components inherit: etcd takes its flags from any ETCD_
// variable as well, and GODEBUG or a proxy of ours is not meant for them.
func childEnv() []string {
	var env []string
	for _, name := range []string{"HOME", "PATH", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// start starts the child and waits for it on one thread of its own. The kernel
// sends the parent-death signal when the thread that forked ends, not the
// process, so that thread must live as long as the child.
func (p *process) start() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return <-started
}

// ended returns nil while the process runs, and then how it ended with the last
// lines of its log.
func (p *process) ended() error {
	select {
	case <-p.done:
	default:
		return nil
	}
	how := p.err
	if how == nil {
		how = errors.New("exit status 0")
	}
	return fmt.Errorf("%s ended by itself: %w; the end of its log:\n%s", p.name, how, tail(p.log, 25))
}

// stop ends the process and waits for it.
func (p *process) stop() {
	// An error of Signal or Kill means that the process has ended.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// tail returns the last lines of a file, or why there are none.
func tail(path string, lines int) string {
	const window = 16 << 10
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err.Error()
	}
	data, err := io.ReadAll(io.NewSectionReader(file, max(0, size-window), window))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(string(bytes.TrimSpace(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
