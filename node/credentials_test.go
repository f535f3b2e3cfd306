package node

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/chandler-k8s/chandler/test/expect"
)

const (
	accessKey = "AKIAIOSFODNN7EXAMPLE"
	secretKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

func pair(access string) map[string]string {
	return map[string]string{"aws_access_key_id": access, "aws_secret_access_key": secretKey}
}

func section(name, access string) string {
	return fmt.Sprintf("[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\n", name, access, secretKey)
}

// mount puts a Secret in place as kubelet does: a new directory, the swap of ..data, the
// names, and the end of the directory before. An optional Secret that is gone has no keys.
func mount(t *testing.T, dir string, keys map[string]string) {
	t.Helper()
	current := filepath.Join(dir, "..data")
	next, err := os.MkdirTemp(dir, "..2026_01_01_00_00_00.")
	expect.OK(t, err)
	for key, value := range keys {
		expect.OK(t, os.WriteFile(filepath.Join(next, key), []byte(value), 0o600))
	}
	before, _ := os.Readlink(current) // the first has none before it
	expect.OK(t, os.Symlink(filepath.Base(next), current+"_tmp"))
	expect.OK(t, os.Rename(current+"_tmp", current))
	names, err := filepath.Glob(filepath.Join(dir, "[^.]*"))
	expect.OK(t, err)
	for _, name := range names {
		expect.OK(t, os.Remove(name))
	}
	for key := range keys {
		expect.OK(t, os.Symlink(filepath.Join("..data", key), filepath.Join(dir, key)))
	}
	if before != "" {
		expect.OK(t, os.RemoveAll(filepath.Join(dir, before)))
	}
}

// newMount is a mounted Secret with these keys.
func newMount(t *testing.T, keys map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	mount(t, dir, keys)
	return dir
}

// credential is an entry of the configuration whose files belong to us.
func credential(set, profile, source string) Credential {
	return Credential{Set: set, Source: source, Profile: profile, Mode: 0o440, UID: os.Getuid(), GID: os.Getgid()}
}

// published reads a file of a node's set, "" if it is not there.
func published(t *testing.T, path, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path, name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(data)
}

func pass(t *testing.T, n *Node) {
	t.Helper()
	expect.OK(t, n.pass())
}

func setErrors(t *testing.T, n *Node, set string) float64 {
	t.Helper()
	count, _ := expect.Metric(t, n.Metrics.(prometheus.Gatherer), "chandler_set_errors_total", "set="+set)
	return count
}

// useless Secrets are there and yield no credentials; found is what the error names.
var useless = map[string]struct {
	keys  map[string]string
	found string
}{
	"empty values":         {map[string]string{"aws_access_key_id": "", "aws_secret_access_key": ""}, "aws_access_key_id (empty), aws_secret_access_key (empty)"},
	"a newline each":       {map[string]string{"aws_access_key_id": "\n", "aws_secret_access_key": "\r\n"}, "aws_access_key_id (empty)"},
	"names of others":      {map[string]string{"AWS_ACCESS_KEY_ID": accessKey, "AWS_SECRET_ACCESS_KEY": secretKey}, "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"},
	"a region alone":       {map[string]string{"aws_region": "eu-west-1"}, "aws_region"},
	"an empty profile":     {map[string]string{"credentials": "\n"}, "credentials (empty)"},
	"a profile of no keys": {map[string]string{"credentials": "[default]\nregion = eu-west-1\n"}, "credentials"},
	"half a pair":          {map[string]string{"aws_access_key_id": accessKey, "aws_secret_access_key": ""}, "aws_secret_access_key (empty)"},
}

// TestUselessSecretIsNoRemoval: what is there and yields no credentials is an error,
// whatever the reason; only what is not there takes credentials.ini away.
func TestUselessSecretIsNoRemoval(t *testing.T) {
	for name, tt := range useless {
		t.Run(name, func(t *testing.T) {
			source := newMount(t, pair(accessKey))
			n, path := newTestNode(t, known, credential("aws", "default", source))
			var logs expect.Log
			n.Log = slog.New(slog.NewTextHandler(&logs, nil))
			pass(t, n)
			mount(t, source, tt.keys)
			pass(t, n)
			if got, want := published(t, path, "aws/credentials.ini"), section("default", accessKey); got != want {
				t.Errorf("credentials.ini: got %q, want the last good %q", got, want)
			}
			if got := setErrors(t, n, "aws"); got != 1 {
				t.Errorf("errors of the set: got %v, want 1", got)
			}
			for _, want := range []string{tt.found, "aws_secret_access_key", source} {
				if got := logs.String(); !strings.Contains(got, want) {
					t.Errorf("the log does not name %s:\n%s", want, got)
				}
			}
			if strings.Contains(logs.String(), secretKey) {
				t.Error("the log shows the secret key")
			}
			mount(t, source, nil)
			pass(t, n)
			if got := published(t, path, "aws/credentials.ini"); got != "" {
				t.Errorf("credentials.ini once the Secret is gone: got %q, want it absent", got)
			}
			if got, want := published(t, path, "aws/config.ini"), "[default]\nregion = eu-west-1\n"; got != want {
				t.Errorf("config.ini once the Secret is gone: got %q, want %q", got, want)
			}
		})
	}
}

// TestUselessSecretAtFirst publishes nothing: a consumer that found a config.ini alone
// would go on as the node's own role.
func TestUselessSecretAtFirst(t *testing.T) {
	for name, tt := range useless {
		t.Run(name, func(t *testing.T) {
			n, path := newTestNode(t, known, credential("aws", "default", newMount(t, tt.keys)))
			pass(t, n)
			if got := published(t, path, "aws/config.ini"); got != "" {
				t.Errorf("config.ini: got %q, want it absent", got)
			}
			if err := n.Ready(); err == nil || !strings.Contains(err.Error(), tt.found) {
				t.Errorf("readiness: got %v, want an error that names the keys found: %s", err, tt.found)
			}
		})
	}
}

// TestTornMount: a mount whose ..data leads nowhere is not a Secret that is gone.
func TestTornMount(t *testing.T) {
	source := newMount(t, pair(accessKey))
	n, path := newTestNode(t, known, credential("aws", "default", source))
	pass(t, n)
	generation, err := os.Readlink(filepath.Join(source, "..data"))
	expect.OK(t, err)
	expect.OK(t, os.RemoveAll(filepath.Join(source, generation)))
	pass(t, n)
	if got, want := published(t, path, "aws/credentials.ini"), section("default", accessKey); got != want {
		t.Errorf("credentials.ini: got %q, want the last good %q", got, want)
	}
	expect.OK(t, os.RemoveAll(source))
	pass(t, n)
	if got := published(t, path, "aws/credentials.ini"); got != "" {
		t.Errorf("credentials.ini without the mount: got %q, want it absent", got)
	}
}

// profiles is a node with two Secrets as profiles of the set "aws".
func profiles(t *testing.T) (n *Node, path, first, second string) {
	t.Helper()
	first, second = newMount(t, pair(accessKey)), newMount(t, pair("AKIABILLING"))
	n, path = newTestNode(t, known, credential("aws", "default", first), credential("aws", "billing", second))
	return n, path, first, second
}

func wantFiles(t *testing.T, path string, want map[string]string) {
	t.Helper()
	for name, content := range want {
		if diff := cmp.Diff(published(t, path, name), content); diff != "" {
			t.Errorf("%s (-got +want):\n%s", name, diff)
		}
	}
}

// TestProfilesOfOneSet: a Secret each, one pair of files.
func TestProfilesOfOneSet(t *testing.T) {
	n, path, first, second := profiles(t)
	var logs expect.Log
	n.Log = slog.New(slog.NewTextHandler(&logs, nil))
	pass(t, n)
	wantFiles(t, path, map[string]string{
		"aws/config.ini":      "[default]\nregion = eu-west-1\n\n[profile billing]\nregion = eu-west-1\n",
		"aws/credentials.ini": section("default", accessKey) + "\n" + section("billing", "AKIABILLING"),
	})

	// One that turns useless keeps its section; the other follows its Secret.
	mount(t, second, map[string]string{"aws_access_key_id": "", "aws_secret_access_key": ""})
	mount(t, first, pair("AKIAROTATED"))
	pass(t, n)
	wantFiles(t, path, map[string]string{
		"aws/credentials.ini": section("default", "AKIAROTATED") + "\n" + section("billing", "AKIABILLING"),
	})
	if got := setErrors(t, n, "aws"); got != 1 {
		t.Errorf("errors of the set: got %v, want 1", got)
	}
	if got := logs.String(); !strings.Contains(got, "set published with problems") || !strings.Contains(got, "profile billing") {
		t.Errorf("the log does not say which profile is not current:\n%s", got)
	}

	// One that is gone takes its section alone.
	mount(t, second, nil)
	pass(t, n)
	wantFiles(t, path, map[string]string{
		"aws/config.ini":      "[default]\nregion = eu-west-1\n\n[profile billing]\nregion = eu-west-1\n",
		"aws/credentials.ini": section("default", "AKIAROTATED"),
	})
	expect.OK(t, n.Ready())
}

// TestUselessProfileAtFirst: the other profiles are published, and the error names it.
func TestUselessProfileAtFirst(t *testing.T) {
	n, path, _, second := profiles(t)
	mount(t, second, map[string]string{"password": "x"})
	pass(t, n)
	wantFiles(t, path, map[string]string{
		"aws/config.ini": "[default]\nregion = eu-west-1\n", "aws/credentials.ini": section("default", accessKey),
	})
	if err := n.Ready(); err == nil || !strings.Contains(err.Error(), "profile billing") {
		t.Errorf("readiness: got %v, want an error that names the profile", err)
	}
	mount(t, second, pair("AKIABILLING"))
	pass(t, n)
	wantFiles(t, path, map[string]string{"aws/credentials.ini": section("default", accessKey) + "\n" + section("billing", "AKIABILLING")})
	expect.OK(t, n.Ready())
}

// TestUselessProfileBesideDamagedFiles: a section that cannot be read back must not be
// lost, so the set stays as it is.
func TestUselessProfileBesideDamagedFiles(t *testing.T) {
	n, path, first, second := profiles(t)
	pass(t, n)
	file := filepath.Join(path, "aws", "credentials.ini")
	expect.OK(t, os.Chmod(file, 0o600))
	damaged := section("default", accessKey) + "[billing]\nno setting\n"
	expect.OK(t, os.WriteFile(file, []byte(damaged), 0o600))
	mount(t, first, pair("AKIAROTATED"))
	mount(t, second, map[string]string{"password": "x"})
	pass(t, n)
	wantFiles(t, path, map[string]string{"aws/credentials.ini": damaged})
	mount(t, second, pair("AKIABILLING"))
	pass(t, n)
	wantFiles(t, path, map[string]string{"aws/credentials.ini": section("default", "AKIAROTATED") + "\n" + section("billing", "AKIABILLING")})
}

// TestRegionOfASecret: the region that a Secret names is about its identity, and wins
// over the node's.
func TestRegionOfASecret(t *testing.T) {
	keys := pair("AKIABILLING")
	keys["aws_region"] = "us-east-1"
	n, path, _, second := profiles(t)
	mount(t, second, keys)
	pass(t, n)
	want := map[string]string{"aws/config.ini": "[default]\nregion = eu-west-1\n\n[profile billing]\nregion = us-east-1\n"}
	wantFiles(t, path, want)
	mount(t, second, map[string]string{"aws_access_key_id": ""})
	pass(t, n)
	wantFiles(t, path, want) // the last good section, the region with it
}

// TestUnusedKeysAreNamedOnce in the log, without their values.
func TestUnusedKeysAreNamedOnce(t *testing.T) {
	keys := pair(accessKey)
	keys["aws_sesion_token"] = "IQoJb3JpZ2luX2VjEXAMPLE"
	n, _ := newTestNode(t, known, credential("aws", "default", newMount(t, keys)))
	var logs expect.Log
	n.Log = slog.New(slog.NewTextHandler(&logs, nil))
	pass(t, n)
	pass(t, n)
	if got := strings.Count(logs.String(), "aws_sesion_token"); got != 1 || strings.Contains(logs.String(), keys["aws_sesion_token"]) {
		t.Errorf("the key is named %d times, want once and without its value:\n%s", got, logs.String())
	}
}
