package hostfiles_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/chandler-k8s/chandler/hostfiles"
)

// markGroup is the argument of a getpgid call that does nothing but tell the
// tracer that what it came for begins, or is over.
const markGroup = -7

// publishTraced publishes a numbered set, or removes the set if that is "none".
func publishTraced(dir, set, what string) error {
	if err := onMainThread(); err != nil {
		return err
	}
	d, err := hostfiles.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	mark()
	defer mark()
	if what == "none" {
		_, err = d.Remove(set)
		return err
	}
	n, err := strconv.Atoi(what)
	if err != nil {
		return err
	}
	_, err = d.Publish(set, numbered(n))
	return err
}

// publishCounted publishes a benchmark's sets once.
func publishCounted(dir, sets, size string) error {
	if err := onMainThread(); err != nil {
		return err
	}
	n, err1 := strconv.Atoi(sets)
	bytes, err2 := strconv.Atoi(size)
	d, err3 := hostfiles.Open(dir)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	defer d.Close()
	mark()
	defer mark()
	return publishSets(d, n, sized(bytes))
}

// errOtherThread makes the tracer start another child: this one happens to run
// on a thread that is not traced. It has done nothing yet.
var errOtherThread = errors.New("not on the main thread")

// otherThreadCode is the child's exit code for errOtherThread.
const otherThreadCode = 75

func onMainThread() error {
	if runtime.LockOSThread(); syscall.Gettid() != os.Getpid() {
		return errOtherThread
	}
	return nil
}

func mark() {
	// It fails, as there is no such process.
	_, _ = syscall.Getpgid(markGroup)
}

// trace runs a child and tells onCall the number of each system call of its
// main thread between the marks, before the call is made. Once onCall returns
// false the child is killed with that call not made. The result is whether the
// child ended by itself, without an error.
func trace(t testing.TB, onCall func(number uint64) bool, task ...string) (ended bool) {
	t.Helper()
	for {
		status := traceOnce(t, onCall, task...)
		if !status.Exited() || status.ExitStatus() != otherThreadCode {
			return status.Exited() && status.ExitStatus() == 0
		}
	}
}

func traceOnce(t testing.TB, onCall func(number uint64) bool, task ...string) syscall.WaitStatus {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := childCommand(task...)
	pid, err := syscall.ForkExec(cmd.Path, cmd.Args, &syscall.ProcAttr{
		Env:   cmd.Env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Ptrace: true},
	})
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSYS) {
		t.Skipf("tracing processes is not permitted here: %v", err)
	}
	check(t, err)
	marks := 0
	for first := true; ; first = false {
		status := wait(t, pid)
		if !status.Stopped() {
			return status
		}
		if first {
			check(t, syscall.PtraceSetOptions(pid, syscall.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL))
		}
		signal := status.StopSignal()
		if signal == syscall.SIGTRAP|0x80 {
			call := systemCall(t, pid)
			switch {
			case call.isMark():
				marks++
			case call.entered() && marks == 1 && !onCall(call.number):
				check(t, syscall.Kill(pid, syscall.SIGKILL))
			}
		}
		if signal == syscall.SIGTRAP || signal == syscall.SIGTRAP|0x80 {
			signal = 0
		}
		if err := syscall.PtraceSyscall(pid, int(signal)); !errors.Is(err, syscall.ESRCH) {
			check(t, err)
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wait(t testing.TB, pid int) (status syscall.WaitStatus) {
	t.Helper()
	for {
		_, err := syscall.Wait4(pid, &status, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			check(t, err)
			return status
		}
	}
}

// call is the kernel's struct ptrace_syscall_info, as far as it is used.
type call struct {
	stop          uint8
	_             [23]byte
	number        uint64 // from here on only if entered
	firstArgument uint64
	_             [6]uint64
}

func (c call) entered() bool {
	return c.stop == 1 // PTRACE_SYSCALL_INFO_ENTRY
}

func (c call) isMark() bool {
	return c.entered() && c.number == unix.SYS_GETPGID && int32(c.firstArgument) == markGroup
}

func systemCall(t testing.TB, pid int) (info call) {
	t.Helper()
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO,
		uintptr(pid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		t.Fatalf("ptrace: %v", errno)
	}
	return info
}

// TestKilledAtEveryCall kills a publish before each of its system calls in
// turn, which leaves no instant out, and a Remove likewise.
func TestKilledAtEveryCall(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		there []int  // published before
		task  string // see publishTraced
		want  []int  // each of these is found at some instant, and no other
	}{
		{"first publish", nil, "1", []int{0, 1}},
		{"publish", []int{4, 5}, "6", []int{5, 6}},
		{"unchanged", []int{4, 5}, "5", []int{5}},
		{"remove", []int{4, 5}, "none", []int{0, 5}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			found := map[int]int{}
			kills := 0
			for ended := false; !ended; kills++ {
				dir := filepath.Join(t.TempDir(), "host")
				d := open(t, dir)
				for _, n := range test.there {
					publish(t, d, "set", true, numbered(n)...)
				}
				left := kills
				ended = trace(t, func(uint64) bool { left--; return left >= 0 }, "traced", dir, "set", test.task)
				if !ended && left >= 0 {
					t.Fatal("the child failed")
				}
				found[checkAtRest(t, dir, "set")]++
				publish(t, d, "set", true, numbered(8)...)
				check(t, d.Close())
				if n := checkAtRest(t, dir, "set"); n != 8 {
					t.Fatalf("killed before call %d: then published 8, found %d", kills, n)
				}
			}
			t.Logf("%d kills, found %v", kills-1, found)
			if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, test.want) {
				t.Errorf("found %v, want each of %d and no other", found, test.want)
			}
		})
	}
}

// systemCalls counts what a child does, without what the Go runtime does for
// itself: waking threads, asking for memory, taking its own signals.
func systemCalls(t testing.TB, task ...string) (total int) {
	t.Helper()
	ofRuntime := []uint64{
		unix.SYS_CLONE, unix.SYS_FUTEX, unix.SYS_GETPID, unix.SYS_MADVISE, unix.SYS_MMAP, unix.SYS_MUNMAP,
		unix.SYS_NANOSLEEP, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SCHED_YIELD, unix.SYS_TGKILL,
	}
	count := func(number uint64) bool {
		if !slices.Contains(ofRuntime, number) {
			total++
		}
		return true
	}
	if !trace(t, count, task...) {
		t.Fatal("the child failed")
	}
	return total
}
