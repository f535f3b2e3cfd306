// Package release tests what is otherwise seen only in a release.
package release

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chandler-k8s/chandler/test/expect"
)

const root = "../.."

// TestActionsArePinned wants each action by its commit, since tags can be moved and
// the jobs hold tokens, with the version behind it for people.
func TestActionsArePinned(t *testing.T) {
	workflows, err := filepath.Glob(filepath.Join(root, ".github", "workflows", "*.yaml"))
	expect.OK(t, err)
	uses := regexp.MustCompile(`\buses:\s*(.*)`)
	pinned := regexp.MustCompile(`^([\w.-]+/)+[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$|^\./`)
	found := 0
	for _, path := range workflows {
		data, err := os.ReadFile(path)
		expect.OK(t, err)
		for _, match := range uses.FindAllStringSubmatch(string(data), -1) {
			found++
			if !pinned.MatchString(match[1]) {
				t.Errorf("%s: %q is not OWNER/NAME@COMMIT # vX.Y.Z", filepath.Base(path), match[1])
			}
		}
	}
	if found == 0 {
		t.Error("no workflow uses an action")
	}
}

// TestOneBuild wants the image of `make image`, that of Docker and that of a release
// built in one way, which is what makes their programs the same bytes.
func TestOneBuild(t *testing.T) {
	const module = "-X github.com/chandler-k8s/chandler/cli."
	for path, want := range map[string][]string{
		"Makefile":          {"-s -w " + module + "version=$(VERSION) " + module + "commit=$(COMMIT)\n", "-trimpath -buildvcs=false -ldflags '$(LDFLAGS)'"},
		"deploy/Dockerfile": {"-s -w " + module + "version=$VERSION " + module + "commit=$COMMIT\"", "-trimpath -buildvcs=false"},
		".goreleaser.yaml":  {"-s -w " + module + "version={{ .Tag }} " + module + "commit={{ .FullCommit }}\n", "flags: [-trimpath, -buildvcs=false]"},
	} {
		data, err := os.ReadFile(filepath.Join(root, path))
		expect.OK(t, err)
		for _, part := range append(want, "CGO_ENABLED=0") {
			if !strings.Contains(string(data), part) {
				t.Errorf("%s: want %q", path, part)
			}
		}
	}
}

// TestOneImage wants each way to build the image to give it the name by which the one
// that `chandler init` replaces is called.
func TestOneImage(t *testing.T) {
	for path, want := range map[string]string{
		"tools/image/main.go":       `initScript = "usr/local/bin/init.py"`,
		"deploy/Dockerfile":         "ln -s /chandler /image/usr/local/bin/init.py\n",
		"deploy/Dockerfile.release": "ln -s /chandler /image/usr/local/bin/init.py\n",
	} {
		data, err := os.ReadFile(filepath.Join(root, path))
		expect.OK(t, err)
		if !strings.Contains(string(data), want) {
			t.Errorf("%s: want %q", path, want)
		}
	}
}

// TestReleaseBuildsFromNoOtherImage wants a release to trust no image that those who
// build with Docker do not.
func TestReleaseBuildsFromNoOtherImage(t *testing.T) {
	bases := regexp.MustCompile(`(?m)^FROM (?:--platform=\S+ )?(\S+)`)
	known, err := os.ReadFile(filepath.Join(root, "deploy", "Dockerfile"))
	expect.OK(t, err)
	release, err := os.ReadFile(filepath.Join(root, "deploy", "Dockerfile.release"))
	expect.OK(t, err)
	for _, base := range bases.FindAllStringSubmatch(string(release), -1) {
		if !slices.ContainsFunc(bases.FindAllStringSubmatch(string(known), -1), func(other []string) bool { return other[1] == base[1] }) {
			t.Errorf("deploy/Dockerfile.release builds from %s, deploy/Dockerfile does not", base[1])
		}
	}
}

// TestOneVersion wants every image of ours that is named in deploy/ and by the scripts
// to be the one of the chart: a new version misses none.
func TestOneVersion(t *testing.T) {
	chart, err := os.ReadFile(filepath.Join(root, "deploy", "chart", "Chart.yaml"))
	expect.OK(t, err)
	version := regexp.MustCompile(`(?m)^version: (.+)\nappVersion: v(.+)$`).FindStringSubmatch(string(chart))
	if version == nil || version[1] != version[2] {
		t.Fatalf("got %q, want version and appVersion to be the same", version)
	}
	image := regexp.MustCompile(`ghcr\.io/chandler-k8s/chandler:[^\s"]+`)
	want := "ghcr.io/chandler-k8s/chandler:v" + version[1]
	for _, dir := range []string{"deploy", filepath.Join("test", "kind"), filepath.Join("test", "e2e")} {
		expect.OK(t, filepath.WalkDir(filepath.Join(root, dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			for _, got := range image.FindAllString(string(data), -1) {
				if got != want {
					t.Errorf("%s: got %s, want %s", path, got, want)
				}
			}
			return err
		}))
	}
}
