package awsini

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/google/go-cmp/cmp"
)

const (
	accessKey = "AKIAIOSFODNN7EXAMPLE"
	secretKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	token     = "IQoJb3JpZ2luX2VjEXAMPLE//token=="
	roleARN   = "arn:aws:iam::123456789012:role/exporter"
	tokenFile = "/var/run/secrets/openshift/serviceaccount/token"
)

// mount lays a Secret out as kubelet does.
func mount(t *testing.T, keys map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	generation := filepath.Join(dir, "..2026_01_01_00_00_00.1")
	if err := os.Mkdir(generation, 0o755); err != nil {
		t.Fatal(err)
	}
	for k, v := range keys {
		if err := os.WriteFile(filepath.Join(generation, k), []byte(v), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", k), filepath.Join(dir, k)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Base(generation), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRead(t *testing.T) {
	sts := "[default]\nsts_regional_endpoints = regional\nrole_arn = " + roleARN + "\nweb_identity_token_file = " + tokenFile
	tests := map[string]struct {
		keys map[string]string
		want Credentials
		rest string // the keys without a use
		err  string // a part of it; empty means none
	}{
		"key pair": {
			keys: map[string]string{keyAccess: accessKey, keySecret: secretKey},
			want: Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey},
		},
		"newlines that people leave": {
			keys: map[string]string{keyAccess: accessKey + "\r\n", keySecret: "\n" + secretKey + "\n\n"},
			want: Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey},
		},
		"session token": {
			keys: map[string]string{keyAccess: accessKey, keySecret: secretKey, keyToken: token},
			want: Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey, SessionToken: token},
		},
		"STS profile": {
			keys: map[string]string{keyProfile: sts},
			want: Credentials{RoleARN: roleARN, WebIdentityTokenFile: tokenFile, STSRegionalEndpoints: "regional"},
		},
		"keys beside their profile": {
			keys: map[string]string{keyAccess: accessKey, keySecret: secretKey, keyProfile: sts},
			want: Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey},
			rest: keyProfile,
		},
		"keys and their profile": {
			keys: map[string]string{keyAccess: accessKey, keySecret: secretKey, keyProfile: "[x]\n" + keyAccess + " = " + accessKey + "\n" + keySecret + "=" + secretKey},
			want: Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey},
		},
		"old name of the token": {
			keys: map[string]string{keyAccess: accessKey, keySecret: secretKey, oldToken: token},
			want: Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey, SessionToken: token},
		},
		"both names of the token": {
			keys: map[string]string{keyAccess: accessKey, keySecret: secretKey, oldToken: token, keyToken: token + "\n"},
			want: Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey, SessionToken: token},
		},
		"eatr's region": {
			keys: map[string]string{keyAccess: accessKey, keySecret: secretKey, eatrRegion: "eu-west-1\n"},
			want: Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey, Region: "eu-west-1"},
		},
		"region in the profile, old name of the token": {
			keys: map[string]string{keyProfile: "[x]\nregion = eu-west-1\n" + keyAccess + " = " + accessKey + "\n" + keySecret + "=" + secretKey + "\n" + oldToken + "=" + token},
			want: Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey, SessionToken: token, Region: "eu-west-1"},
		},
		"region beside the profile": {
			keys: map[string]string{keyProfile: sts, setRegion: "eu-west-1"},
			want: Credentials{RoleARN: roleARN, WebIdentityTokenFile: tokenFile, STSRegionalEndpoints: "regional", Region: "eu-west-1"},
		},
		"unknown keys": {
			keys: map[string]string{keyAccess: accessKey, keySecret: secretKey, "b": "x", "a": "x"},
			want: Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey},
			rest: "a, b",
		},
		"two tokens":          {keys: map[string]string{keyAccess: accessKey, keySecret: secretKey, keyToken: token, oldToken: "x"}, err: oldToken + " and " + keyToken + " differ"},
		"two regions":         {keys: map[string]string{keyAccess: accessKey, keySecret: secretKey, setRegion: "a", eatrRegion: "b"}, err: eatrRegion + " and " + setRegion + " differ"},
		"region besides":      {keys: map[string]string{keyProfile: sts + "\nregion = a", eatrRegion: "b"}, err: "region is not the one"},
		"region of no shape":  {keys: map[string]string{keyAccess: accessKey, keySecret: secretKey, setRegion: "eu west"}, err: "region has"},
		"other keys only":     {keys: map[string]string{"password": "x"}, err: "which holds password: no credentials: want " + keyAccess},
		"empty values":        {keys: map[string]string{keyAccess: "", keySecret: "\n"}, err: keyAccess + " (empty), " + keySecret + " (empty)"},
		"no keys":             {err: ErrNone.Error()},
		"no secret key":       {keys: map[string]string{keyAccess: accessKey}, err: keySecret + " is missing"},
		"no access key":       {keys: map[string]string{keySecret: secretKey}, err: keyAccess + " is missing"},
		"token alone":         {keys: map[string]string{keyToken: token}, err: keyAccess + " is missing"},
		"injected line":       {keys: map[string]string{keyAccess: accessKey, keySecret: secretKey + "\ncredential_process = /bin/sh"}, err: keySecret + " has"},
		"injected section":    {keys: map[string]string{keyAccess: accessKey + "\n[other]", keySecret: secretKey}, err: keyAccess + " has"},
		"comment sign":        {keys: map[string]string{keyAccess: accessKey, keySecret: "abc #def"}, err: keySecret + " has"},
		"NUL":                 {keys: map[string]string{keyAccess: accessKey, keySecret: "abc\x00def"}, err: keySecret + " has"},
		"too long":            {keys: map[string]string{keyAccess: strings.Repeat("A", maxSource+1), keySecret: secretKey}, err: "longer than"},
		"profile: process":    {keys: map[string]string{keyProfile: "[default]\ncredential_process = /bin/sh"}, err: "line 2: unknown setting"},
		"profile: key":        {keys: map[string]string{keyProfile: "[default]\n" + secretKey + "=="}, err: "line 2: unknown setting"},
		"profile: no section": {keys: map[string]string{keyProfile: "role_arn = x"}, err: "before the first"},
		"profile: two":        {keys: map[string]string{keyProfile: sts + "\n[b]\n"}, err: "second section"},
		"profile: twice":      {keys: map[string]string{keyProfile: sts + "\nrole_arn = x"}, err: "is given twice"},
		"profile: half":       {keys: map[string]string{keyProfile: "[default]\nrole_arn = " + roleARN}, err: setTokenFile + " is missing"},
		"profile: bad role":   {keys: map[string]string{keyProfile: "[default]\nrole_arn = admin\nweb_identity_token_file = " + tokenFile}, err: setRole + " has"},
		"profile: empty":      {keys: map[string]string{keyProfile: "[default]\n"}, err: "neither a key pair nor a role: want " + keyAccess},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, unused, err := Read(mount(t, tt.keys))
			if rest := strings.Join(unused, ", "); rest != tt.rest {
				t.Errorf("unused keys: got %q, want %q", rest, tt.rest)
			}
			if diff := cmp.Diff(got, tt.want); tt.err == "" && diff != "" {
				t.Errorf("credentials (-got +want):\n%s", diff)
			}
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got error %v, want one with %q", err, tt.err)
			}
			if wantNone := len(tt.keys) == 0; errors.Is(err, ErrNone) != wantNone {
				t.Errorf("got error %v, want ErrNone: %t", err, wantNone)
			}
			if err != nil && strings.Contains(strings.ToLower(err.Error()), strings.ToLower(secretKey[:10])) {
				t.Errorf("the error shows the secret key: %v", err)
			}
		})
	}
}

// TestReadDuringRotations reads while generations come and go as fast as they can:
// it must never take a Secret for removed, or for half of one.
func TestReadDuringRotations(t *testing.T) {
	dir := mount(t, map[string]string{keyAccess: accessKey, keySecret: secretKey})
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := rotate(dir, i); err != nil {
				stopped <- err
				return
			}
		}
	}()
	for range 5000 {
		if _, _, err := Read(dir); err != nil && (errors.Is(err, ErrNone) || strings.Contains(err.Error(), "missing")) {
			t.Fatalf("got %v of a Secret that is there", err)
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}

// rotate swaps a mounted Secret as kubelet does, and removes the old generation.
func rotate(dir string, i int) error {
	old, err := os.Readlink(filepath.Join(dir, current))
	if err != nil {
		return err
	}
	next := fmt.Sprintf("..generation-%d", i)
	return errors.Join(
		os.Mkdir(filepath.Join(dir, next), 0o755),
		os.WriteFile(filepath.Join(dir, next, keyAccess), []byte(accessKey), 0o600),
		os.WriteFile(filepath.Join(dir, next, keySecret), []byte(secretKey), 0o600),
		os.Symlink(next, filepath.Join(dir, "..data_tmp")),
		os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, current)),
		os.RemoveAll(filepath.Join(dir, old)),
	)
}

func TestReadTellsAbsenceFromFailure(t *testing.T) {
	if _, _, err := Read(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, ErrNone) {
		t.Errorf("absent directory: got %v, want ErrNone", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(file); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("a file for a directory: got %v, want another error than ErrNone", err)
	}
	unreadable := mount(t, map[string]string{keyAccess: accessKey})
	key := filepath.Join(unreadable, "..data", keyAccess)
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(key, 0o755); err != nil { // reading a directory fails with EISDIR, also for root
		t.Fatal(err)
	}
	if _, _, err := Read(unreadable); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("unreadable key: got %v, want another error than ErrNone", err)
	}
}

// TestSDKReadsBack loads the rendered files with the loader that consumers use.
func TestSDKReadsBack(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	for name, c := range map[string]Credentials{
		"keys":          {AccessKeyID: accessKey, SecretAccessKey: secretKey},
		"session token": {AccessKeyID: accessKey, SecretAccessKey: secretKey, SessionToken: token},
		"role":          {RoleARN: roleARN, WebIdentityTokenFile: tokenFile, STSRegionalEndpoints: "regional"},
	} {
		for _, profile := range []string{"default", "exporter"} {
			t.Run(name+"/"+profile, func(t *testing.T) {
				dir := t.TempDir()
				c.Region = "eu-west-1"
				in := Profile{Name: profile, Credentials: c}
				configFile := write(t, dir, "config.ini", must(RenderConfig(in)))
				credentialsFile := write(t, dir, "credentials.ini", must(RenderCredentials(in)))
				got, err := awsconfig.LoadSharedConfigProfile(context.Background(), profile, func(o *awsconfig.LoadSharedConfigOptions) {
					o.ConfigFiles, o.CredentialsFiles = []string{configFile}, []string{credentialsFile}
				})
				if err != nil {
					t.Fatal(err)
				}
				back := Credentials{
					AccessKeyID: got.Credentials.AccessKeyID, SecretAccessKey: Secret(got.Credentials.SecretAccessKey),
					SessionToken: Secret(got.Credentials.SessionToken), RoleARN: got.RoleARN,
					WebIdentityTokenFile: got.WebIdentityTokenFile, STSRegionalEndpoints: c.STSRegionalEndpoints,
					Region: got.Region,
				}
				if diff := cmp.Diff(back, c); diff != "" {
					t.Errorf("credentials (-got +want):\n%s", diff)
				}
			})
		}
	}
}

func TestRenderIsTheSeedsFormat(t *testing.T) {
	c := Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey, Region: "eu-west-1"}
	p := Profile{Name: "default", Credentials: c}
	got := string(must(RenderConfig(p))) + string(must(RenderCredentials(p)))
	want := "[default]\nregion = eu-west-1\n[default]\naws_access_key_id = " + accessKey + "\naws_secret_access_key = " + secretKey + "\n"
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("files (-got +want):\n%s", diff)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	c := Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey, SessionToken: token}
	var b strings.Builder
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "secret", c.SecretAccessKey, "token", c.SessionToken, "all", c, "in", []any{&c})
	fmt.Fprintf(&b, "%v %+v %#v %s %q", c, c, c, c.SecretAccessKey, c.SessionToken)
	for _, secret := range []string{secretKey, token} {
		if strings.Contains(b.String(), secret) {
			t.Errorf("a secret is printed: %s", b.String())
		}
	}
}

// TestRoleIsRegional: old SDKs ask the global host of STS unless both files say otherwise.
func TestRoleIsRegional(t *testing.T) {
	for said, want := range map[string]string{"": "regional", "regional": "regional", "legacy": "legacy"} {
		role := Profile{"default", Credentials{RoleARN: roleARN, WebIdentityTokenFile: tokenFile, STSRegionalEndpoints: said}}
		rest := "role_arn = " + roleARN + "\nweb_identity_token_file = " + tokenFile + "\nsts_regional_endpoints = " + want + "\n"
		for file, got := range map[string][]byte{"config.ini": must(RenderConfig(role)), "credentials.ini": must(RenderCredentials(role))} {
			if diff := cmp.Diff(string(got), "[default]\n"+rest); diff != "" {
				t.Errorf("%s of a role that says %q (-got +want):\n%s", file, said, diff)
			}
		}
	}
}

// TestProfilesReadBack: what was written for several profiles is what Parse returns.
func TestProfilesReadBack(t *testing.T) {
	want := map[string]Credentials{
		"default": {AccessKeyID: accessKey, SecretAccessKey: secretKey, SessionToken: token, Region: "eu-west-1"},
		"role":    {RoleARN: roleARN, WebIdentityTokenFile: tokenFile, RoleSessionName: "me", STSRegionalEndpoints: "legacy", Region: "us-east-1"},
		"region":  {Region: "eu-west-1"},
		"nothing": {},
	}
	var in []Profile
	for name, c := range want {
		in = append(in, Profile{name, c})
	}
	got, err := Parse(must(RenderConfig(in...)), must(RenderCredentials(in...)))
	if diff := cmp.Diff(got, want); err != nil || diff != "" {
		t.Errorf("got error %v and profiles (-got +want):\n%s", err, diff)
	}
	if data, err := RenderCredentials(in[:0]...); data != nil || err != nil {
		t.Errorf("credentials.ini of no profile: got %q, %v, want none", data, err)
	}
	if _, err := RenderConfig(in[0], in[0]); err == nil {
		t.Error("a profile twice: got no error")
	}
}

func FuzzRender(f *testing.F) {
	f.Add("default", "second", "eu-west-1", accessKey, secretKey, "")
	f.Add("a b", "profile x", "eu\n[x]", "A\nB", "x = y", "#")
	f.Add("default", "default", "", accessKey, "abc;def", token)
	f.Add("profile", "a/b", "", accessKey, secretKey, token)
	f.Fuzz(func(t *testing.T, profile, second, region, access, secret, token string) {
		c := Credentials{AccessKeyID: access, SecretAccessKey: Secret(secret), SessionToken: Secret(token), Region: region}
		in := []Profile{{profile, c}, {second, Credentials{AccessKeyID: "other", SecretAccessKey: "other"}}}
		credentials, err := RenderCredentials(in...)
		if err != nil {
			return
		}
		config, err := RenderConfig(in...)
		if err != nil {
			return
		}
		want := map[string]Credentials{profile: in[0].Credentials, second: in[1].Credentials}
		got, err := Parse(config, credentials)
		if diff := cmp.Diff(got, want); err != nil || diff != "" {
			t.Fatalf("%q and %q read back with error %v and profiles (-got +want):\n%s", config, credentials, err, diff)
		}
		if lines, most := strings.Count(string(config)+string(credentials), "\n"), 12; lines > most {
			t.Errorf("got %d lines, want at most %d: %q, %q", lines, most, config, credentials)
		}
	})
}

// FuzzSecret assembles what a Secret may hold: an error or credentials that render, and
// never the loss of both.
func FuzzSecret(f *testing.F) {
	f.Add(accessKey, secretKey, token, "", "", "eu-west-1")
	f.Add("", "", "", "", "[default]\nrole_arn = "+roleARN+"\nweb_identity_token_file = "+tokenFile, "")
	f.Add("", "", "", token, "[x]\nregion=a\naws_security_token=b\n[y]", "b")
	f.Fuzz(func(t *testing.T, access, secret, token, old, profile, region string) {
		c, _, err := assemble(keys{
			keyAccess: access, keySecret: secret, keyToken: token, oldToken: old, keyProfile: profile, eatrRegion: region,
		})
		if errors.Is(err, ErrNone) {
			t.Fatal("a Secret that is there counts as none")
		}
		if err != nil {
			return
		}
		p := Profile{"default", c}
		back, err := Parse(must(RenderConfig(p)), must(RenderCredentials(p)))
		if c.RoleARN != "" && c.STSRegionalEndpoints == "" {
			c.STSRegionalEndpoints = "regional"
		}
		if diff := cmp.Diff(back["default"], c); err != nil || diff != "" {
			t.Errorf("read back with error %v and (-got +want):\n%s", err, diff)
		}
	})
}

// FuzzParse takes any two files, and writes again what it understood.
func FuzzParse(f *testing.F) {
	f.Add("[default]\nregion = eu-west-1\n\n[profile b]\n", "[b]\naws_access_key_id = "+accessKey+"\naws_secret_access_key = "+secretKey+"\n")
	f.Add("[]\n[a\n", "; x\n[a]\n[a]\n")
	f.Add("[profile profile x]\nregion=", "")
	f.Fuzz(func(t *testing.T, config, credentials string) {
		got, err := Parse([]byte(config), []byte(credentials))
		if err != nil {
			return
		}
		var again []Profile
		for name, c := range got {
			again = append(again, Profile{name, c})
		}
		data, err := RenderConfig(again...)
		if err != nil {
			return // a name or a region that we would not write
		}
		secrets, err := RenderCredentials(again...)
		if err != nil {
			t.Fatalf("%q was read and is not written: %v", credentials, err)
		}
		if _, err := Parse(data, secrets); err != nil {
			t.Errorf("%q and %q do not read back: %v", data, secrets, err)
		}
	})
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

func write(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
