package hostfiles_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chandler-k8s/chandler/hostfiles"
)

var killRounds = flag.Int("killrounds", 2000, "how often TestKilled kills a publisher")

// A child is this test binary, run again to be killed. Its environment holds
// what to do, the host directory and the set.
const childVariable = "HOSTFILES_TEST_CHILD"

func TestMain(m *testing.M) {
	if task := os.Getenv(childVariable); task != "" {
		err := child(strings.Split(task, ","))
		if errors.Is(err, errOtherThread) {
			os.Exit(otherThreadCode)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(task []string) error {
	switch what, dir := task[0], task[1]; what {
	case "publish":
		return publishOn(dir, task[2], task[3])
	case "own":
		return ownForever(dir, task[2])
	case "traced":
		return publishTraced(dir, task[2], task[3])
	case "counted":
		return publishCounted(dir, task[2], task[3])
	default:
		return fmt.Errorf("no such task: %q", task)
	}
}

func childCommand(task ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+strings.Join(task, ","))
	cmd.Stderr = os.Stderr
	return cmd
}

// forever is more than a child lives to publish.
const forever = "1000000000"

// publishOn continues the set's count so many times, and says each number on standard
// output once it is published, beginning with the one it found.
func publishOn(dir, set, times string) error {
	left, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	d, err := hostfiles.Open(dir)
	if err != nil {
		return err
	}
	n := 0
	if files, err := d.Read(set); err == nil {
		if n, err = number(files); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for ; left > 0; left-- {
		if _, err := fmt.Println(n); err != nil {
			return err
		}
		n++
		if err := publishAtLast(d, set, numbered(n)); err != nil {
			return err
		}
	}
	return nil
}

// publishAtLast asks for the set's lock until it gets it.
func publishAtLast(d *hostfiles.Dir, set string, files []hostfiles.File) error {
	for {
		if _, err := d.Publish(set, files); !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// numbered is a set whose files all bear n, with one name that comes and goes.
func numbered(n int) []hostfiles.File {
	var files []hostfiles.File
	for i, name := range numberedNames(n) {
		body := bytes.Repeat([]byte{byte('a' + n%26)}, 1+n*(i+1)%5000)
		data := fmt.Appendf(nil, "%d %x %s", n, sha256.Sum256(body), body)
		files = append(files, hostfiles.File{Name: name, Mode: 0o440, UID: -1, GID: -1, Data: data})
	}
	return files
}

func numberedNames(n int) []string {
	return []string{"ca", "cert", "key", [...]string{"third-0", "third-1", "third-2"}[n%3]}
}

// number proves that the files are one whole set and tells which.
func number(files []hostfiles.File) (int, error) {
	first := -1
	var names []string
	for _, f := range files {
		fields := strings.SplitN(string(f.Data), " ", 3)
		n, err := strconv.Atoi(fields[0])
		if err != nil || len(fields) != 3 || fmt.Sprintf("%x", sha256.Sum256([]byte(fields[2]))) != fields[1] {
			return 0, fmt.Errorf("%s is torn: %.80q", f.Name, f.Data)
		}
		if first >= 0 && n != first {
			return 0, fmt.Errorf("%s is of %d, others of %d", f.Name, n, first)
		}
		first = n
		names = append(names, f.Name)
	}
	if first < 0 || !slices.Equal(names, numberedNames(first)) {
		return 0, fmt.Errorf("set %d has the names %q", first, names)
	}
	return first, nil
}

// TestKilled kills publishers at random instants, under the eyes of readers.
// One works on the usual file system, where a publish mostly waits for the
// disk, and one in memory, where its instants are spread more evenly.
func TestKilled(t *testing.T) {
	t.Parallel()
	rounds := *killRounds
	if testing.Short() {
		rounds = min(rounds, 100)
	}
	for name, dir := range map[string]string{"disk": t.TempDir(), "memory": memoryDir(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var seen counts
			last := 0
			for range rounds / 2 {
				last = killOnce(t, dir, "set", last, &seen)
			}
			t.Logf("%d kills; %d sets published; readers saw %v", rounds/2, last, seen)
		})
	}
}

// TestReadWhilePublished has Read overtaken by publishes.
func TestReadWhilePublished(t *testing.T) {
	t.Parallel()
	dir := memoryDir(t)
	d := open(t, dir)
	publish(t, d, "set", true, numbered(1)...)
	var readers sync.WaitGroup
	var reading atomic.Bool
	reading.Store(true)
	for range 4 {
		readers.Go(func() {
			for range 2000 {
				files, err := d.Read("set")
				if err == nil {
					_, err = number(files)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	go func() { readers.Wait(); reading.Store(false) }()
	for n := 2; reading.Load(); n++ {
		publish(t, d, "set", true, numbered(n)...)
	}
}

// memoryDir is a directory in shared memory, or any if there is none.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "hostfiles")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// killOnce lets a publisher go on from last until a random instant, reading
// meanwhile, checks what it leaves, and returns how far it got.
func killOnce(t *testing.T, dir, set string, last int, seen *counts) int {
	t.Helper()
	cmd := childCommand("publish", dir, set, forever)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(pipe)
	said := last
	for range 1 + rand.IntN(2) {
		said = readNumber(t, out, said)
	}
	// Reading takes a while: this makes the instant random.
	for range rand.IntN(60) {
		readThroughData(t, dir, set, seen)
		readPairByName(t, dir, set, seen)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for next := -1; next != said; {
		next, said = said, readNumber(t, out, said)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the child ended by itself: %v", err)
	}
	now := checkAtRest(t, dir, set)
	if now != said && now != said+1 {
		t.Fatalf("set %d is on disk after %d was published", now, said)
	}
	return now
}

// readNumber reads what a publisher says next, or returns last at its end.
func readNumber(t *testing.T, out *bufio.Reader, last int) int {
	t.Helper()
	line, err := out.ReadString('\n')
	if errors.Is(err, io.EOF) {
		return last
	}
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// checkAtRest looks at a set whose publisher was killed, first as that left it
// and then as the next Open does, and returns the number of its files.
func checkAtRest(t *testing.T, dir, set string) int {
	t.Helper()
	before := readByName(t, dir, set)
	age(t, dir, set, time.Minute)
	d := open(t, dir)
	defer d.Close()
	n := 0
	files, err := d.Read(set)
	if err == nil {
		n, err = number(files)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if n != before {
		t.Fatalf("names lead to %d, ..data to %d", before, n)
	}
	var want []string
	if n > 0 {
		want = slices.Concat([]string{"..data", "GEN"}, numberedNames(n))
	}
	if got := names(t, dir, set); !slices.Equal(got, want) {
		t.Fatalf("after Open the set holds %q, want %q", got, want)
	}
	return n
}

// names lists the set's directory, if any, with each generation called GEN.
func names(t *testing.T, dir, set string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, set))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, generationName.ReplaceAllString(entry.Name(), "GEN"))
	}
	slices.Sort(names)
	return names
}

// readByName follows every visible name that leads anywhere. 0 is no set.
func readByName(t *testing.T, dir, set string) int {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, set, "[a-z]*"))
	if err != nil {
		t.Fatal(err)
	}
	var files []hostfiles.File
	for _, name := range names {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, hostfiles.File{Name: filepath.Base(name), Data: data})
	}
	if len(files) == 0 {
		return 0
	}
	n, err := number(files)
	if err != nil {
		t.Fatalf("by name: %v", err)
	}
	return n
}

// counts tells what readers saw.
type counts struct {
	whole, restarted int // through ..data, as readers should
	torn, missed     int // by name, as they should not
}

func (c counts) String() string {
	return fmt.Sprintf("%d whole sets through ..data (started over %d times); by name %d torn pairs, %d absent files",
		c.whole, c.restarted, c.torn, c.missed)
}

// readThroughData is what docs tell readers to do: open ..data once.
func readThroughData(t *testing.T, dir, set string, seen *counts) {
	t.Helper()
	data, err := os.OpenRoot(filepath.Join(dir, set, "..data"))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	first := ""
	for _, name := range []string{"cert", "key", "ca"} {
		content, err := data.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) { // two changes since ..data was opened
			seen.restarted++
			return
		}
		n, _, _ := strings.Cut(string(content), " ")
		if err != nil || first != "" && n != first {
			t.Fatalf("through ..data: %s is of %q, others of %q: %v", name, n, first, err)
		}
		first = n
	}
	seen.whole++
}

// readPairByName counts what it sees: nothing can keep two opens together.
func readPairByName(t *testing.T, dir, set string, seen *counts) {
	t.Helper()
	cert, err1 := os.ReadFile(filepath.Join(dir, set, "cert"))
	key, err2 := os.ReadFile(filepath.Join(dir, set, "key"))
	if errors.Is(err1, fs.ErrNotExist) || errors.Is(err2, fs.ErrNotExist) {
		seen.missed++
		return
	}
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	n1, _, _ := bytes.Cut(cert, []byte(" "))
	n2, _, _ := bytes.Cut(key, []byte(" "))
	if !bytes.Equal(n1, n2) {
		seen.torn++
	}
}
