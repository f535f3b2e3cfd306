package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// maxComm is what the kernel keeps of a process's name, in bytes.
const maxComm = 15

// signal signals the process and says which.
func (o ReloadOptions) signal(context.Context, []string) (string, error) {
	find := func() (int, error) { return processCalled(o.Process) }
	if o.PIDFile != "" {
		find = func() (int, error) { return readPID(o.PIDFile) }
	}
	pid, err := find()
	if err != nil {
		return "", err
	}
	if err := syscall.Kill(pid, o.Signal); err != nil {
		return "", fmt.Errorf("send %s to process %d: %w", o.Signal, pid, err)
	}
	return fmt.Sprintf("%s to process %d", o.Signal, pid), nil
}

// readPID reads a pid file. It refuses what would mean other than one process, and
// ourselves.
func readPID(path string) (int, error) {
	f, err := os.Open(path) //nolint:gosec // a flag names it
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // only read from
	data, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("%s holds %.40q, want the number of a process", path, data)
	}
	if pid == os.Getpid() {
		return 0, fmt.Errorf("%s holds %d, which is this process: does the pod share its process namespace?", path, pid)
	}
	return pid, nil
}

// processEntry is one line of the process table.
type processEntry struct {
	pid, parent int
	zombie      bool
	name        string
}

// processCalled finds the one process of a name. Of a family, such as a server and
// its workers, that is the one which is no child of another.
func processCalled(name string) (int, error) {
	table, err := processes()
	if err != nil {
		return 0, err
	}
	family := map[int]bool{}
	for _, p := range table {
		if p.name == name[:min(len(name), maxComm)] && p.pid != os.Getpid() && !p.zombie {
			family[p.pid] = true
		}
	}
	var heads []int
	for _, p := range table {
		if family[p.pid] && !family[p.parent] {
			heads = append(heads, p.pid)
		}
	}
	switch len(heads) {
	case 0:
		return 0, fmt.Errorf("no process is called %q: does the pod set shareProcessNamespace, and is it running?", name)
	case 1:
		return heads[0], nil
	default:
		return 0, fmt.Errorf("processes %v are called %q and none is the parent of the others: use a pid file", heads, name)
	}
}

// processes reads the process table that this container sees.
func processes() ([]processEntry, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var table []processEntry
	for _, path := range paths {
		data, err := os.ReadFile(path) //nolint:gosec // of /proc
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		if p, ok := parseStat(string(data)); ok {
			table = append(table, p)
		}
	}
	return table, nil
}

// parseStat reads "PID (NAME) STATE PARENT …"; the name may hold anything.
func parseStat(line string) (processEntry, bool) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return processEntry{}, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line[:open]))
	fields := strings.Fields(line[end+1:])
	if err != nil || len(fields) < 2 {
		return processEntry{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	return processEntry{pid: pid, parent: parent, zombie: fields[0] == "Z", name: line[open+1 : end]}, err == nil
}

// post sends an empty POST and wants a status of 200 to 299. It follows no
// redirect: that would be a GET of something else.
func (o ReloadOptions) post(ctx context.Context, _ []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, o.URL, nil)
	if err != nil {
		return "", err
	}
	client := &http.Client{Transport: &http.Transport{Proxy: proxyFor, DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close() //nolint:errcheck // only read from
	// What it says is another's text, so the log gets a little of it.
	body, err := io.ReadAll(io.LimitReader(answer.Body, 200))
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return "", fmt.Errorf("POST %s: %s: %q", request.URL.Redacted(), answer.Status, body)
	}
	if err != nil {
		return "", fmt.Errorf("POST %s: read the answer: %w", request.URL.Redacted(), err)
	}
	return "POST " + request.URL.Redacted(), nil
}
