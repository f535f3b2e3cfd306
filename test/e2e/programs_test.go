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
	"strings"
	"testing"
)

// root is the checkout's.
var root = filepath.Join("..", "..")

// kubectl runs it as an administrator, and returns what it says.
func (s *suite) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*patience)
	defer cancel()
	output, err := s.tryKubectl(ctx, args...)
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
