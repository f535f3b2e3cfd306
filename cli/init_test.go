package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chandler-k8s/chandler/test/expect"
)

// program runs the program at a path and returns its exit code and what it says.
func program(t *testing.T, path string, args ...string) (code int, said string) {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), asProgram+"=yes", "KUBECONFIG=/absent")
	output, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(output)
}

// TestInitByItsOldName: manifests of the image that `chandler init` replaces name its
// script and write flags as Python reads them.
func TestInitByItsOldName(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "init.py")
	expect.OK(t, os.Symlink(os.Args[0], script))
	id := write(t, dir, "id", "AKIAIOSFODNN7EXAMPLE")
	secret := write(t, dir, "secret", strings.Repeat("s", 40))
	credentials := filepath.Join(dir, "credentials.ini")
	code, said := program(t, script, "-r"+filepath.Join(dir, "config.ini"), "-c", filepath.Join(dir, "CLUSTERID"), "-a="+id, "-A", secret, "-o"+credentials)
	if code != 1 || !strings.Contains(said, "no source knows the cluster ID") { // there is no cluster
		t.Errorf("got exit code %d: %s", code, said)
	}
	if _, err := os.Stat(credentials); err != nil {
		t.Error(err)
	}
	if code, said := program(t, script, "-x"); code != 2 {
		t.Errorf("unknown flag: got exit code %d, want 2: %s", code, said)
	}
	if code, said := program(t, script, "-h"); code != 0 || !strings.Contains(said, "chandler init") {
		t.Errorf("help: got exit code %d and %q", code, said)
	}
}
