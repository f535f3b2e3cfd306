package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chandler-k8s/chandler/cli"
	"github.com/chandler-k8s/chandler/test/expect"
)

func TestInstall(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b") // no pattern
	expect.OK(t, os.Mkdir(dir, 0o755))
	left := write(t, dir, "..chandler-123", "what a killed run has left")
	write(t, dir, "other", "")
	for range 2 { // an init container may run again
		if code, said := program(t, os.Args[0], "install", dir); code != 0 {
			t.Fatalf("got exit code %d: %s", code, said)
		}
	}
	installed := filepath.Join(dir, "chandler")
	if code, said := program(t, installed, "version"); code != 0 || !strings.HasPrefix(said, "chandler ") {
		t.Errorf("what is installed: got exit code %d and %q", code, said)
	}
	info, err := os.Stat(installed)
	expect.OK(t, err)
	if got := info.Mode(); got != 0o755 {
		t.Errorf("mode: got %s, want -rwxr-xr-x", got)
	}
	wantNames(t, dir, "chandler", "other")
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("%s: got %v, want it removed", left, err)
	}
}

// TestInstallWithoutRoom: a write that fails half-way leaves what was there.
func TestInstallWithoutRoom(t *testing.T) {
	dir := t.TempDir()
	before := write(t, dir, "chandler", "the one before")
	code, said := program(t, "/bin/sh", "-c", `trap '' XFSZ; ulimit -f 100; exec "$0" install "$1"`, os.Args[0], dir)
	if code != 1 || !strings.Contains(said, before) || !strings.Contains(said, "MiB") {
		t.Errorf("got exit code %d and %q, want 1 and the path and size", code, said)
	}
	data, err := os.ReadFile(before)
	expect.OK(t, err)
	if got := string(data); got != "the one before" {
		t.Errorf("got %q in place of what was there", got)
	}
	wantNames(t, dir, "chandler")
}

func TestInstallUsage(t *testing.T) {
	dir, blocked := t.TempDir(), t.TempDir()
	expect.OK(t, os.MkdirAll(filepath.Join(blocked, "chandler", "x"), 0o755))
	for name, tt := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no directory":     {nil, 2, "want one directory"},
		"two directories":  {[]string{dir, dir}, 2, "want one directory"},
		"absent directory": {[]string{filepath.Join(dir, "absent")}, 1, "mount a volume there"},
		"not a directory":  {[]string{write(t, dir, "file", "")}, 1, "not a directory: mount a volume there"},
		"name is taken":    {[]string{blocked}, 1, filepath.Join(blocked, "chandler")},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := cli.Run(t.Context(), append([]string{"install"}, tt.args...), os.Getenv, &out, &out)
			if cli.ExitCode(err) != tt.code || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want exit code %d and %q", err, tt.code, tt.want)
			}
		})
	}
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	expect.OK(t, err)
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("in %s: got %q, want %q", dir, got, want)
	}
}
