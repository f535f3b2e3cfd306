package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// builder builds the components of one version into one directory.
type builder struct {
	set    set
	source string        // directory of the module in binaries/
	target string        // directory of the executables, named by the key
	log    io.Writer     // never nil
	remind time.Duration // how often a build that goes on says so
}

func newBuilder(ctx context.Context, s set, log io.Writer) (*builder, error) {
	source, err := sourceDir(ctx)
	if err != nil {
		return nil, err
	}
	source = filepath.Join(source, s.module)
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	key, err := cacheKey(source)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = io.Discard
	}
	return &builder{set: s, source: source, target: filepath.Join(cache, "binaries", key), log: log, remind: 15 * time.Second}, nil
}

// sourceDir finds the module in binaries/: beside this file, or, where the
// compiler was told to trim paths, in the main module.
func sourceDir(ctx context.Context) (string, error) {
	_, file, _, _ := runtime.Caller(0)
	beside := filepath.Join(filepath.Dir(file), "binaries")
	if _, err := os.Stat(filepath.Join(beside, "go.mod")); err == nil && filepath.IsAbs(beside) {
		return beside, nil
	}
	output, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the main module: %w", err)
	}
	inside := filepath.Join(filepath.Dir(strings.TrimSpace(string(output))), "test", "cluster", "binaries")
	if _, err := os.Stat(filepath.Join(inside, "go.mod")); err != nil {
		return "", fmt.Errorf("find the module to build from: %w", err)
	}
	return inside, nil
}

// Checkout returns the directory of the checkout that this was built from, which
// must still be there.
func Checkout(ctx context.Context) (string, error) {
	source, err := sourceDir(ctx)
	if err != nil {
		return "", err
	}
	return filepath.Join(source, "..", "..", ".."), nil
}

// cacheKey is a hash of everything the executables depend on.
func cacheKey(source string) (string, error) {
	hash := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(hash, "%s %d\n%s", name, len(data), data)
	}
	fmt.Fprintln(hash, runtime.Version(), runtime.GOOS, runtime.GOARCH, buildFlags("$version"))
	return hex.EncodeToString(hash.Sum(nil))[:20], nil
}

// buildFlags are those of every component; version is Kubernetes', e.g.
// "v1.36.3", which clients would otherwise see as v0.0.0.
func buildFlags(version string) []string {
	const variables = "k8s.io/component-base/version."
	major, minor := majorMinor(version)
	return []string{
		"-trimpath", "-buildvcs=false", "-mod=readonly",
		"-ldflags", "-s -w -X " + variables + "gitVersion=" + version +
			" -X " + variables + "gitMajor=" + major + " -X " + variables + "gitMinor=" + minor,
	}
}

func majorMinor(version string) (major, minor string) {
	major, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ = strings.Cut(rest, ".")
	return major, minor
}

// ensure builds what is missing. Of several processes one builds, and the others
// wait for it. An executable appears by a rename, so that it is always whole.
func (b *builder) ensure(ctx context.Context) error {
	if len(b.set.missing(b.target)) == 0 {
		return nil
	}
	if err := os.MkdirAll(b.target, 0o755); err != nil {
		return err
	}
	unlock, err := Lock(ctx, b.target+".lock", func() {
		b.say("Another process is building for the tests; waiting for it.")
	})
	if err != nil {
		return err
	}
	defer unlock()
	absent := b.set.missing(b.target)
	if len(absent) == 0 {
		return nil
	}
	return b.buildAll(ctx, absent)
}

func (b *builder) buildAll(ctx context.Context, absent []component) error {
	version, err := b.version(ctx)
	if err != nil {
		return err
	}
	b.say("Building %s for the tests, %s %s, from source into\n  %s", b.set.what, b.set.version, version, b.target)
	b.say("%s It happens once; a build that is broken off goes on where it was.", b.set.cost)
	begin := time.Now()
	for i, c := range absent {
		b.say("[%d/%d] %s ...", i+1, len(absent), c.name)
		if err := b.build(ctx, c, version); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	b.say("Built %s in %s.", b.set.what, elapsed(begin))
	return nil
}

// version returns the version that the module requires of what it builds.
func (b *builder) version(ctx context.Context) (string, error) {
	command := exec.CommandContext(ctx, "go", "mod", "edit", "-json")
	command.Dir = b.source
	output, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("read %s/go.mod: %w", b.source, err)
	}
	var module struct {
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal(output, &module); err != nil {
		return "", fmt.Errorf("read %s/go.mod: %w", b.source, err)
	}
	for _, required := range module.Require {
		if required.Path == b.set.version {
			return required.Version, nil
		}
	}
	return "", fmt.Errorf("%s/go.mod does not require %s", b.source, b.set.version)
}

func (b *builder) build(ctx context.Context, c component, version string) error {
	partial := filepath.Join(b.target, c.name+".partial")
	args := append([]string{"build", "-tags=" + b.set.tags}, buildFlags(version)...)
	command := exec.CommandContext(ctx, "go", append(args, "-o", partial, c.pkg)...)
	command.Dir = b.source
	// The flags and workspace of whoever runs the tests are not meant for this.
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off",
		"GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	command.SysProcAttr = attributes(false)
	// The go command and the compilers that it starts are one process group.
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGINT) }
	command.WaitDelay = 10 * time.Second
	if err := b.run(ctx, c.name, command); err != nil {
		return fmt.Errorf("%w\n%s", err, bytes.TrimSpace(output.Bytes()))
	}
	return os.Rename(partial, filepath.Join(b.target, c.name))
}

// run waits for a compilation, which ends with ctx, and says how long it has taken so far.
func (b *builder) run(ctx context.Context, name string, command *exec.Cmd) error {
	begin := time.Now()
	p := &process{name: name, cmd: command, done: make(chan struct{})}
	if err := p.start(); err != nil {
		return err
	}
	ticker := time.NewTicker(b.remind)
	defer ticker.Stop()
	for {
		select {
		case <-p.done:
			return errors.Join(p.err, context.Cause(ctx))
		case <-ticker.C:
			b.say("      %s: still compiling after %s", name, elapsed(begin))
		}
	}
}

func elapsed(begin time.Time) time.Duration { return time.Since(begin).Round(time.Second) }

// say writes one message. That progress cannot be shown is no reason to stop.
func (b *builder) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.log, format+"\n", args...)
}
