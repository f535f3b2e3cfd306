// Package awsini reads AWS credentials from mounted Secrets and renders the ini
// files that AWS SDKs load.
//
// It accepts what exists in the field: Secrets with a key pair, with or without
// a session token, and Secrets whose "credentials" key holds an ini profile, as
// OpenShift's cloud credential operator writes them, with a key pair or with a
// role to assume by web identity. Everything else, above all a value that could
// end a line or begin another key, is refused by name.
//
// The package reads a directory and returns bytes; it publishes nothing. Package
// node calls it.
package awsini

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// ErrNone says that the source holds no credentials: it does not exist, or none
// of the keys that we read is in it.
var ErrNone = errors.New("no credentials")

// The keys of a mounted Secret, by cloud-credential-operator convention.
const (
	keyAccess  = "aws_access_key_id"
	keySecret  = "aws_secret_access_key" //nolint:gosec // the name of a key
	keyToken   = "aws_session_token"     //nolint:gosec // the name of a key
	keyProfile = "credentials"
)

// The further settings of a profile that assumes a role by web identity.
const (
	setRole        = "role_arn"
	setTokenFile   = "web_identity_token_file"
	setSessionName = "role_session_name"
	setRegional    = "sts_regional_endpoints"
)

// maxSource bounds one key of a Secret, in bytes. Session tokens are documented
// to grow, and stay below 4 KiB today.
const maxSource = 16 << 10

// Secret is a string that no log and no error shows.
type Secret string

// String implements fmt.Stringer.
func (Secret) String() string { return "[redacted]" }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return "[redacted]" }

// MarshalText implements encoding.TextMarshaler, and with it what package json does.
func (Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// Credentials are one identity: either a key pair or a role.
type Credentials struct {
	// AccessKeyID is, e.g., "AKIAIOSFODNN7EXAMPLE". Empty means a role.
	AccessKeyID string
	// SecretAccessKey goes with AccessKeyID.
	SecretAccessKey Secret
	// SessionToken goes with temporary keys. Empty means permanent ones.
	SessionToken Secret
	// RoleARN is the role to assume by web identity, e.g.
	// "arn:aws:iam::123456789012:role/exporter". Empty means a key pair.
	RoleARN string
	// WebIdentityTokenFile is a path in the pod that uses the file, not in ours.
	WebIdentityTokenFile string
	// RoleSessionName is optional.
	RoleSessionName string
	// STSRegionalEndpoints is "regional", "legacy" or empty.
	STSRegionalEndpoints string
}

// Read reads the credentials of a mounted Secret. It returns ErrNone when there
// are none, an error that names the key when one is malformed or has no
// counterpart, and any other error when the directory could not be read.
func Read(dir string) (Credentials, error) {
	values, err := readKeys(dir)
	if err != nil {
		return Credentials{}, fmt.Errorf("read credentials in %s: %w", dir, err)
	}
	c, err := assemble(values)
	if err != nil {
		return Credentials{}, fmt.Errorf("read credentials in %s: %w", dir, err)
	}
	return c, nil
}

// maxReads bounds the rereading of a Secret that is rotated again and again.
const maxReads = 10

// readKeys starts over if the mounted Secret was rotated meanwhile: the generation
// that was being read may have been removed under way, key by key.
func readKeys(dir string) (map[string]string, error) {
	for range maxReads {
		before := generation(dir)
		values, err := readGeneration(dir)
		if generation(dir) == before {
			return values, err
		}
	}
	return nil, fmt.Errorf("the Secret changed %d times while it was read", maxReads)
}

// generation names the one that is mounted; a plain directory has none.
func generation(dir string) string {
	target, err := os.Readlink(filepath.Join(dir, current))
	if err != nil {
		return ""
	}
	return target
}

// current is the link of a mounted Secret to the generation in force.
const current = "..data"

// readGeneration reads all keys through one open directory. In a mounted Secret
// that is one generation, so an old key is never paired with a new one.
func readGeneration(dir string) (map[string]string, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // only read from
	if generation, err := root.OpenRoot(current); err == nil {
		defer generation.Close() //nolint:errcheck // only read from
		root = generation
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	values := map[string]string{}
	for _, key := range []string{keyAccess, keySecret, keyToken, keyProfile} {
		value, err := readKey(root, key)
		if err != nil {
			return nil, err
		}
		if value != "" {
			values[key] = value
		}
	}
	return values, nil
}

// readKey returns one value without the newline that people leave in Secrets,
// and "" for a key that is absent.
func readKey(root *os.Root, key string) (string, error) {
	f, err := root.Open(key)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // only read from
	data, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxSource {
		return "", fmt.Errorf("%s is longer than %d bytes", key, maxSource)
	}
	return strings.TrimSpace(string(data)), nil
}

// assemble chooses between the key pair and the profile. Where an operator wrote
// both, they say the same, and the plain keys win.
func assemble(values map[string]string) (Credentials, error) {
	if values[keyAccess] == "" && values[keySecret] == "" && values[keyToken] == "" {
		if values[keyProfile] == "" {
			return Credentials{}, ErrNone
		}
		profile, err := parse(values[keyProfile])
		if err != nil {
			return Credentials{}, fmt.Errorf("%s: %w", keyProfile, err)
		}
		values = profile
	}
	c := Credentials{
		AccessKeyID:          values[keyAccess],
		SecretAccessKey:      Secret(values[keySecret]),
		SessionToken:         Secret(values[keyToken]),
		RoleARN:              values[setRole],
		WebIdentityTokenFile: values[setTokenFile],
		RoleSessionName:      values[setSessionName],
		STSRegionalEndpoints: values[setRegional],
	}
	return c, c.validate()
}

// New returns the credentials of a key pair. It refuses what Read refuses, with
// values trimmed alike; both empty is ErrNone.
func New(accessKeyID string, secretAccessKey Secret) (Credentials, error) {
	return assemble(map[string]string{
		keyAccess: strings.TrimSpace(accessKeyID),
		keySecret: strings.TrimSpace(string(secretAccessKey)),
	})
}

// The shapes of values. They leave out white space, quotes, brackets, and the
// signs that begin a comment, so nothing here can break out of its line.
var (
	accessKeyShape   = regexp.MustCompile(`^[A-Za-z0-9_]{4,128}$`)
	secretShape      = regexp.MustCompile(`^[A-Za-z0-9/+=_.-]+$`)
	roleShape        = regexp.MustCompile(`^arn:aws[a-z-]*:iam::\d{12}:role/[A-Za-z0-9+=,.@_/-]{1,512}$`)
	tokenFileShape   = regexp.MustCompile(`^/[A-Za-z0-9._/-]+$`)
	sessionNameShape = regexp.MustCompile(`^[A-Za-z0-9+=,.@_-]{2,64}$`)
	regionalShape    = regexp.MustCompile(`^(regional|legacy)$`)
	regionShape      = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
	profileShape     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.@:/+-]{0,63}$`)
)

// validate refuses half of a pair and values of the wrong shape. Errors name the
// key and never the value.
func (c Credentials) validate() error {
	var errs []error
	keys := c.AccessKeyID != "" || c.SecretAccessKey != "" || c.SessionToken != ""
	role := c.RoleARN != "" || c.WebIdentityTokenFile != ""
	for _, v := range []struct {
		key, value string
		shape      *regexp.Regexp
		required   bool
	}{
		{keyAccess, c.AccessKeyID, accessKeyShape, keys},
		{keySecret, string(c.SecretAccessKey), secretShape, keys},
		{keyToken, string(c.SessionToken), secretShape, false},
		{setRole, c.RoleARN, roleShape, role},
		{setTokenFile, c.WebIdentityTokenFile, tokenFileShape, role},
		{setSessionName, c.RoleSessionName, sessionNameShape, false},
		{setRegional, c.STSRegionalEndpoints, regionalShape, false},
	} {
		switch {
		case v.value == "" && v.required:
			errs = append(errs, fmt.Errorf("%s is missing: add it to the Secret", v.key))
		case v.value != "" && !v.shape.MatchString(v.value):
			errs = append(errs, fmt.Errorf("%s has a character or a length that it cannot have: want %s", v.key, v.shape))
		}
	}
	if keys && role {
		errs = append(errs, errors.New("both a key pair and a role: keep one of them"))
	}
	if !keys && !role && len(errs) == 0 {
		errs = append(errs, ErrNone)
	}
	return errors.Join(errs...)
}

// RenderConfig gives config.ini: the region, which may be empty when it is not
// known, and the role, for SDKs that look for it there. profile is, e.g.,
// "default".
func RenderConfig(profile, region string, c Credentials) ([]byte, error) {
	if region != "" && !regionShape.MatchString(region) {
		return nil, fmt.Errorf("render config.ini: region %.80q: want %s", region, regionShape)
	}
	section := profile
	if profile != "default" {
		section = "profile " + profile // the form of config files alone
	}
	return render("config.ini", profile, section, append([]setting{{"region", region}}, c.role()...))
}

// RenderCredentials gives credentials.ini: the key pair or the role.
func RenderCredentials(profile string, c Credentials) ([]byte, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("render credentials.ini: %w", err)
	}
	return render("credentials.ini", profile, profile, append([]setting{
		{keyAccess, c.AccessKeyID},
		{keySecret, string(c.SecretAccessKey)},
		{keyToken, string(c.SessionToken)},
	}, c.role()...))
}

type setting struct{ key, value string }

func (c Credentials) role() []setting {
	if c.RoleARN == "" {
		return nil
	}
	return []setting{
		{setRole, c.RoleARN},
		{setTokenFile, c.WebIdentityTokenFile},
		{setSessionName, c.RoleSessionName},
		{setRegional, c.STSRegionalEndpoints},
	}
}

// render writes one section and reads it back before it lets go of it.
func render(file, profile, section string, settings []setting) ([]byte, error) {
	if !profileShape.MatchString(profile) {
		return nil, fmt.Errorf("render %s: profile %.80q: want %s", file, profile, profileShape)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "[%s]\n", section)
	want := 0
	for _, s := range settings {
		if s.value == "" {
			continue
		}
		fmt.Fprintf(&b, "%s = %s\n", s.key, s.value)
		want++
	}
	if got, err := parse(b.String()); err != nil || len(got) != want {
		return nil, fmt.Errorf("render %s: the result does not read back (%d of %d settings): %w", file, len(got), want, err)
	}
	return b.Bytes(), nil
}
