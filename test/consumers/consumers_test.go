// Package consumers_test reads what an agent publishes with the SDKs of AWS that
// programs have in them. It holds docs/consumers.md to what they do. It is a module
// of its own, so that the product's go.mod does not carry them.
package consumers_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fakeaws"
)

// consumer is an SDK, and the row of the table that it has in docs/consumers.md.
type consumer struct {
	name    string
	command func(*testing.T) command
	env     []string // that it is given besides
	// takesRegion: config.ini is read.
	takesRegion bool
	// refusesRole is the error for a role in the files, empty where it is assumed.
	refusesRole string
	// legacySTS is the host that is asked for a role's keys where the files say
	// "legacy". It is also the one that older versions ask where they say nothing.
	legacySTS string
	// keepsFile: a new client in the same process has the old credentials, too.
	keepsFile bool
	// prefersFile: a key pair in the files comes before the variables of IRSA.
	prefersFile bool
	// oneIsOff: AWS_EC2_METADATA_DISABLED=1 turns the metadata service off.
	oneIsOff bool
}

var consumers = []consumer{
	{name: "Go v1", command: ours(moduleV1), refusesRole: "requires role_arn"},
	{name: "Go v1 with AWS_SDK_LOAD_CONFIG", command: ours(moduleV1), env: []string{"AWS_SDK_LOAD_CONFIG=1"}, takesRegion: true, legacySTS: globalSTS},
	{name: "Go v2", command: ours(moduleV2), takesRegion: true, legacySTS: regionalSTS},
	{name: "sigv4 of Prometheus", command: ours(moduleSigV4), takesRegion: true, legacySTS: regionalSTS},
	{name: "botocore", command: python, takesRegion: true, legacySTS: globalSTS},
	{name: "JavaScript", command: javaScript, takesRegion: true, legacySTS: regionalSTS, keepsFile: true, prefersFile: true, oneIsOff: true},
}

// world is one consumer and what is around it.
type world struct {
	consumer
	*cloud
	program command
	token   string // file with a web identity token
}

// each runs a test for every consumer.
func each(t *testing.T, check func(*testing.T, *world)) {
	for _, c := range consumers {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := &world{consumer: c, program: c.command(t), cloud: newCloud(t), token: filepath.Join(t.TempDir(), "token")}
			expect.OK(t, os.WriteFile(w.token, []byte("header.payload.signature"), 0o600))
			check(t, w)
		})
	}
}

// noMetadata is what every consumer should set.
const noMetadata = "AWS_EC2_METADATA_DISABLED=true"

// start runs the consumer with the files of a set.
func (w *world) start(t *testing.T, set string, env ...string) *reader {
	t.Helper()
	return w.program.start(t, slices.Concat([]string{
		"AWS_CONFIG_FILE=" + filepath.Join(set, "config.ini"), "AWS_SHARED_CREDENTIALS_FILE=" + filepath.Join(set, "credentials.ini"),
		"HTTPS_PROXY=" + w.proxy, "AWS_CA_BUNDLE=" + w.ca, "NODE_EXTRA_CA_CERTS=" + w.ca, "SSL_CERT_FILE=" + w.ca,
		"AWS_EC2_METADATA_SERVICE_ENDPOINT=" + w.node.URL(), "AWS_METADATA_SERVICE_TIMEOUT=30", // for slow machines
	}, w.env, env))
}

func pair(k fakeaws.Keys) map[string]string {
	secret := map[string]string{"aws_access_key_id": k.AccessKeyID, "aws_secret_access_key": k.SecretAccessKey}
	if k.SessionToken != "" {
		secret["aws_session_token"] = k.SessionToken
	}
	return secret
}

func wantARN(t *testing.T, when string, got answer, want string) {
	t.Helper()
	if got.Error != "" || got.ARN != want {
		t.Errorf("%s: got %q, error %q, want %s", when, got.ARN, got.Error, want)
	}
}

func wantError(t *testing.T, when string, got answer, want string) {
	t.Helper()
	if got.ARN != "" || !strings.Contains(got.Error, want) || got.Error == "" {
		t.Errorf("%s: got %q, error %q, want an error with %q", when, got.ARN, got.Error, want)
	}
}

func TestKeyPair(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		lasting := w.NewKeys("lasting")
		temporary := w.SetKeys(fakeaws.Keys{
			AccessKeyID: "ASIAIOSFODNN7EXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", SessionToken: "IQoJb3JpZ2luX2VjEXAMPLE//token==",
			ARN: "arn:aws:sts::" + account + ":assumed-role/temporary/session",
		})
		for _, keys := range []fakeaws.Keys{lasting, temporary} {
			node := supply(t, pair(keys))
			node.await(t, "credentials.ini", keys.AccessKeyID)
			got := w.start(t, node.set, noMetadata).ask(t, "new")
			wantARN(t, "a key pair", got, keys.ARN)
			if takes := got.Region == region; takes != w.takesRegion {
				t.Errorf("got region %q, want that of config.ini: %t", got.Region, w.takesRegion)
			}
		}
	})
}

// TestPage holds the versions of docs/consumers.md to those that are read with here.
// That of botocore is Debian's.
func TestPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "consumers.md"))
	expect.OK(t, err)
	modules, err := os.ReadFile("go.mod")
	expect.OK(t, err)
	for _, module := range []string{moduleV1, moduleV2, moduleSigV4} {
		found := regexp.MustCompile(regexp.QuoteMeta(module) + ` (\S+)\n`).FindSubmatch(modules)
		if found == nil || !bytes.Contains(page, found[1]) {
			t.Errorf("docs/consumers.md does not have the version of %s: %q", module, found)
		}
	}
	manifest, err := os.ReadFile(filepath.Join("testdata", "package.json"))
	expect.OK(t, err)
	var javaScript struct{ Dependencies map[string]string }
	expect.OK(t, json.Unmarshal(manifest, &javaScript))
	for name, version := range javaScript.Dependencies {
		if !strings.Contains(string(page), strings.TrimPrefix(name, "@aws-sdk/")+" "+version) {
			t.Errorf("docs/consumers.md does not have version %s of %s", version, name)
		}
	}
}

func TestRole(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, tt := range []struct{ name, setting, host string }{
			{"as the Secret leaves it", "", regionalSTS},
			{"as the Secret says", "sts_regional_endpoints = legacy\n", w.legacySTS},
		} {
			node := supply(t, map[string]string{"credentials": "[default]\nrole_arn = " + roleARN + "\nrole_session_name = chandler\n" +
				"web_identity_token_file = " + w.token + "\n" + tt.setting})
			node.await(t, "credentials.ini", roleARN)
			got := w.start(t, node.set, noMetadata).ask(t, "new")
			if w.refusesRole != "" {
				wantError(t, tt.name, got, w.refusesRole)
				continue
			}
			wantARN(t, tt.name, got, "arn:aws:sts::"+account+":assumed-role/exporter/chandler")
			if got := w.asked(); !slices.Equal(got, []string{tt.host}) {
				t.Errorf("%s: asked %v, want %s", tt.name, got, tt.host)
			}
		}
	})
}

// TestRotation: nobody looks at the files again.
func TestRotation(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		before, after := w.NewKeys("before"), w.NewKeys("after")
		node := supply(t, pair(before))
		node.await(t, "credentials.ini", before.AccessKeyID)
		running := w.start(t, node.set, noMetadata)
		wantARN(t, "before", running.ask(t, "new"), before.ARN)
		node.mount(t, pair(after))
		node.await(t, "credentials.ini", after.AccessKeyID)
		wantARN(t, "the same client", running.ask(t, "same"), before.ARN)
		fresh := after.ARN
		if w.keepsFile {
			fresh = before.ARN
		}
		wantARN(t, "a new client", running.ask(t, "new"), fresh)
		wantARN(t, "a new process", w.start(t, node.set, noMetadata).ask(t, "new"), after.ARN)
	})
}

// TestNodeRole: without a readable credentials.ini, consumers take what the node
// has, unless the metadata service is off.
func TestNodeRole(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		asNode := "arn:aws:sts::" + account + ":assumed-role/node/" + w.node.Instance().ID
		bare := supply(t, nil)
		wantARN(t, "no file", w.start(t, bare.set).ask(t, "new"), asNode)
		wantError(t, "no file, metadata off", w.start(t, bare.set, noMetadata).ask(t, "new"), "")
		one := w.start(t, bare.set, "AWS_EC2_METADATA_DISABLED=1").ask(t, "new")
		if w.oneIsOff {
			wantError(t, "no file, metadata 1", one, "")
		} else {
			wantARN(t, "no file, metadata 1", one, asNode)
		}
		set := unreadable(t, w.NewKeys("exporter"))
		w.program = w.program.unprivileged()
		wantARN(t, "unreadable file", w.start(t, set).ask(t, "new"), asNode)
		wantError(t, "unreadable file, metadata off", w.start(t, set, noMetadata).ask(t, "new"), "")
	})
}

// unreadable is a copy of a published set for those who are not in the group.
func unreadable(t *testing.T, keys fakeaws.Keys) string {
	t.Helper()
	node := supply(t, pair(keys))
	node.await(t, "credentials.ini", keys.AccessKeyID)
	set := t.TempDir()
	for file, mode := range map[string]os.FileMode{"config.ini": 0o444, "credentials.ini": 0} {
		data, err := os.ReadFile(filepath.Join(node.set, file))
		expect.OK(t, errors.Join(err, os.WriteFile(filepath.Join(set, file), data, mode)))
	}
	return set
}

// TestIRSABesideTheFiles: a pod with both the variables of IRSA and a key pair.
func TestIRSABesideTheFiles(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		keys := w.NewKeys("exporter")
		node := supply(t, pair(keys))
		node.await(t, "credentials.ini", keys.AccessKeyID)
		got := w.start(t, node.set, noMetadata, "AWS_ROLE_ARN="+roleARN, "AWS_WEB_IDENTITY_TOKEN_FILE="+w.token, "AWS_ROLE_SESSION_NAME=irsa").ask(t, "new")
		want := "arn:aws:sts::" + account + ":assumed-role/exporter/irsa"
		if w.prefersFile {
			want = keys.ARN
		}
		wantARN(t, "IRSA beside a key pair", got, want)
	})
}
