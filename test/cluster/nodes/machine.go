package nodes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// programs tells what the machine lacks.
func programs() error {
	for name, from := range map[string]string{"ip": "iproute2", "nsenter": "util-linux", "setsid": "util-linux", "unshare": "util-linux", "go": "go.dev"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("real nodes need the program %s (%s): %w", name, from, err)
		}
	}
	all, err := mounts()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(m mount) bool { return m.kind == "cgroup" && m.point == "/sys/fs/cgroup/memory" }) {
		return errors.New("real nodes need cgroup v1 hierarchies, which this machine has not mounted below /sys/fs/cgroup; " +
			"kernels that have only cgroup v2 are not supported")
	}
	return nil
}

// mount is a line of /proc/self/mountinfo, see proc_pid_mountinfo(5).
type mount struct{ point, kind string }

func mounts() ([]mount, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var all []mount
	for line := range strings.Lines(string(data)) {
		before, after, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(kind) < 1 {
			return nil, fmt.Errorf("read mounts: %q", line)
		}
		all = append(all, mount{fields[4], kind[0]})
	}
	return all, nil
}

// unmounted makes sure that removing dir removes only what is in it: the mounts of
// nodes are in namespaces of their own, and would otherwise be this machine's /usr.
func unmounted(dir string) error {
	all, err := mounts()
	if err != nil {
		return err
	}
	for _, m := range all {
		if m.point == dir || strings.HasPrefix(m.point, dir+"/") {
			return fmt.Errorf("remove %s: %s is mounted; unmount it first", dir, m.point)
		}
	}
	return nil
}

// hierarchies returns where those of cgroup v1 are mounted, and the one of v2 that may
// stand beside them.
func hierarchies() ([]string, error) {
	all, err := mounts()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, m := range all {
		if strings.HasPrefix(m.kind, "cgroup") && filepath.Dir(m.point) == "/sys/fs/cgroup" {
			dirs = append(dirs, m.point)
		}
	}
	return dirs, nil
}

// enterCgroups puts the node's process, and so all that will descend from it, into
// cgroups of the node's own.
func (n *node) enterCgroups() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, hierarchy := range all {
		dir := filepath.Join(hierarchy, n.cgroup())
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if filepath.Base(hierarchy) == "cpuset" {
			if err := inherit(dir); err != nil {
				return fmt.Errorf("make cgroup %s: %w", dir, err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(n.Init.PID)), 0); err != nil {
			return fmt.Errorf("enter cgroup: %w", err)
		}
	}
	return nil
}

// inherit lets a cgroup and those below it have every processor and memory node; a
// new one has none.
func inherit(dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.clone_children"), []byte("1"), 0)
}

// removeCgroups waits until the kernel lets them go: that takes a moment after the
// last process of one has ended.
func (n *node) removeCgroups(ctx context.Context) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, hierarchy := range all {
		err := retry(ctx, 30*time.Second, func() error { return prune(filepath.Join(hierarchy, n.cgroup())) })
		if err != nil {
			return err
		}
	}
	return nil
}

// prune removes a cgroup and those below it.
func prune(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := prune(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// retry asks again until the answer is nil, and returns the last one when ctx or the
// time ends.
func retry(ctx context.Context, within time.Duration, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}
