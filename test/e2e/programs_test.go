//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// root is the checkout's.
var root = filepath.Join("..", "..")

// kubectl runs it as an administrator, and returns what it says.
func (s *suite) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	output, err := s.tryKubectl(context.WithoutCancel(t.Context()), args...)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

func (s *suite) tryKubectl(ctx context.Context, args ...string) (string, error) {
	program := os.Getenv("CHANDLER_E2E_KUBECTL")
	if program == "" {
		program = "kubectl"
	}
	output, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, output)
	}
	return string(output), nil
}

// apply gives kubectl a manifest.
func (s *suite) apply(t *testing.T, manifest string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	s.kubectl(t, "apply", "--filename", file)
}

// build builds a program of a module at dir.
func build(t *testing.T, dir, pkg, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	command := exec.Command("go", "build", "-trimpath", "-o", path, pkg)
	command.Dir = filepath.Join(root, dir)
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, output)
	}
	return path
}

// pack makes an image of a program, called name. The same program by another name is
// another image: kubelet remembers of an image whether it came with a secret, and then
// asks every pod for one.
func pack(t *testing.T, program, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	command := exec.Command("go", "run", ".", "--out", path, "--name", name, "--label", "name="+name, "--binary", runtime.GOARCH+"="+program)
	command.Dir = filepath.Join(root, "tools", "image")
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("image %s: %v\n%s", name, err, output)
	}
	return path
}

// serve runs a program until the test ends, and returns what it says up to the line
// that begins with last.
func serve(t *testing.T, last, program string, args ...string) []string {
	t.Helper()
	command := exec.Command(program, args...)
	command.Stderr = t.Output()
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(command.Process.Signal(os.Interrupt), command.Wait()); err != nil {
			t.Errorf("%s: %v", program, err)
		}
	})
	var lines []string
	for scanner := bufio.NewScanner(output); scanner.Scan(); {
		lines = append(lines, scanner.Text())
		if strings.HasPrefix(scanner.Text(), last) {
			return lines
		}
	}
	t.Fatalf("%s ended early, having said %q", program, lines)
	return nil
}
