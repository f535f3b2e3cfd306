package consumers_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/debian"
	"github.com/chandler-k8s/chandler/test/expect"
)

// variableSDK makes this program a reader with one of the sdks.
const variableSDK = "CONSUMERS_TEST_SDK"

func TestMain(m *testing.M) {
	if sdk := os.Getenv(variableSDK); sdk != "" {
		if err := serve(context.Background(), sdk, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// The agents that run here look for no metadata service.
	if err := os.Setenv("AWS_EC2_METADATA_DISABLED", "true"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// answer is what a reader says of itself.
type answer struct {
	Region string // that it would ask
	ARN    string // who it is to AWS
	Error  string
}

// reader is a running program that uses an SDK.
type reader struct {
	in    io.Writer
	lines *bufio.Scanner
	logs  *expect.Log
}

// command is how a reader is started.
type command struct {
	args, env []string
}

// start runs a reader with no environment but the given one, until the test ends.
func (c command) start(t *testing.T, env []string) *reader {
	t.Helper()
	cmd := exec.Command(c.args[0], c.args[1:]...)
	cmd.Env = append(append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, c.env...), env...)
	r := &reader{logs: &expect.Log{}}
	cmd.Stderr = r.logs
	in, err := cmd.StdinPipe()
	expect.OK(t, err)
	out, err := cmd.StdoutPipe()
	expect.OK(t, err)
	expect.OK(t, cmd.Start())
	r.in, r.lines = in, bufio.NewScanner(out)
	t.Cleanup(func() {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Errorf("%v: %v", cmd, err)
		}
		if t.Failed() {
			t.Logf("%v said:\n%s", cmd, r.logs)
		}
	})
	return r
}

// unprivileged is the command without root's right to read every file.
func (c command) unprivileged() command {
	if os.Getuid() == 0 {
		c.args = slices.Concat([]string{"setpriv", "--bounding-set=-dac_override,-dac_read_search"}, c.args)
	}
	return c
}

// ask asks with a new client, or else with the one before.
func (r *reader) ask(t *testing.T, which string) answer {
	t.Helper()
	_, err := io.WriteString(r.in, which+"\n")
	expect.OK(t, err)
	if !r.lines.Scan() {
		t.Fatalf("no answer: %v\n%s", r.lines.Err(), r.logs)
	}
	var a answer
	expect.OK(t, json.Unmarshal(r.lines.Bytes(), &a))
	return a
}

// ours is this program itself.
func ours(sdk string) func(*testing.T) command {
	return func(t *testing.T) command {
		t.Helper()
		self, err := os.Executable()
		expect.OK(t, err)
		return command{args: []string{self}, env: []string{variableSDK + "=" + sdk}}
	}
}

// skip says aloud what this machine lacks.
func skip(t *testing.T, format string, args ...any) {
	t.Helper()
	fmt.Fprintf(os.Stderr, "SKIPPED %s: %s\n", t.Name(), fmt.Sprintf(format, args...))
	t.SkipNow()
}

// notInstalled ends a test whose SDK cannot be had. That is a skip where a developer has
// no network, and a failure in CI: it would pass without ever reading with the SDK.
func notInstalled(t *testing.T, sdk string, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("install %s: %v", sdk, err)
	}
	skip(t, "%s cannot be installed: %v", sdk, err)
}

// botocore lists the packages of Debian that it is made of.
var botocore = []string{
	"python3-botocore", "python3-certifi", "python3-chardet", "python3-charset-normalizer", "python3-dateutil",
	"python3-idna", "python3-jmespath", "python3-requests", "python3-six", "python3-urllib3",
}

// python uses Debian's botocore, and no other package that this machine may have.
func python(t *testing.T) command {
	t.Helper()
	interpreter, err := exec.LookPath("python3")
	if err != nil {
		skip(t, "install python3")
	}
	cache, err := cluster.CacheDir()
	expect.OK(t, err)
	dir := filepath.Join(cache, "botocore")
	if err := debian.Unpack(t.Context(), dir, os.Stderr, botocore...); err != nil {
		notInstalled(t, "botocore", err)
	}
	return command{
		args: []string{interpreter, "-S", filepath.Join("testdata", "reader.py")},
		env:  []string{"PYTHONPATH=" + filepath.Join(dir, "usr/lib/python3/dist-packages")},
	}
}

// leastNode is what the SDK for JavaScript demands.
const leastNode = 20

// javaScript uses the packages of testdata/package-lock.json.
func javaScript(t *testing.T) command {
	t.Helper()
	version, err := exec.Command("node", "--print", "process.versions.node").Output()
	if err != nil {
		skip(t, "install Node.js %d or newer, and npm", leastNode)
	}
	major, _, _ := strings.Cut(string(version), ".")
	if number, err := strconv.Atoi(major); err != nil || number < leastNode {
		skip(t, "Node.js is %s, want %d or newer", version, leastNode)
	}
	modules, err := npmModules(t.Context())
	if err != nil {
		notInstalled(t, "the SDK for JavaScript", err)
	}
	return command{args: []string{"node", filepath.Join("testdata", "reader.cjs")}, env: []string{"NODE_PATH=" + modules}}
}

// npmModules installs, once, what the lock names, into the cache. The directory
// appears whole at once.
func npmModules(ctx context.Context) (dir string, err error) {
	cache, err := cluster.CacheDir()
	if err != nil {
		return "", err
	}
	const manifest, lock = "package.json", "package-lock.json"
	locked, err := os.ReadFile(filepath.Join("testdata", lock))
	if err != nil {
		return "", err
	}
	dir = filepath.Join(cache, fmt.Sprintf("consumers-%x", sha256.Sum256(locked))[:len("consumers-")+16])
	modules := filepath.Join(dir, "node_modules")
	if _, err := os.Stat(dir); err == nil {
		return modules, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	scratch, err := os.MkdirTemp(cache, "npm-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	for _, file := range []string{manifest, lock} {
		data, err := os.ReadFile(filepath.Join("testdata", file))
		if err == nil {
			err = os.WriteFile(filepath.Join(scratch, file), data, 0o600)
		}
		if err != nil {
			return "", err
		}
	}
	npm := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir, npm.Stdout, npm.Stderr = scratch, os.Stderr, os.Stderr
	if err := npm.Run(); err != nil {
		return "", fmt.Errorf("npm ci: %w", err)
	}
	if err := os.Rename(scratch, dir); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return modules, nil
}
