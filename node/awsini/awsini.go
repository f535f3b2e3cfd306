// Package awsini reads AWS credentials from mounted Secrets and renders the ini
// files that AWS SDKs load.
//
// It accepts what exists in the field: Secrets with a key pair, with or without
// a session token, and Secrets whose "credentials" key holds an ini profile, as
// OpenShift's cloud credential operator writes them, with a key pair or with a
// role to assume by web identity. Any other setting of a profile, and above all a value
// that could end a line or begin another key, is refused by name. A key of a Secret that
// has no use is named to the caller.
//
// The package reads a directory and returns bytes; it publishes nothing. Package
// node calls it.
package awsini

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
)

// ErrNone says that there is nothing to read credentials from: the directory is not
// there or wholly empty, as kubelet mounts an optional Secret that does not exist.
// A Secret that is there and yields no credentials is another error.
var ErrNone = errors.New("no credentials")

// The settings of a profile. The first three are keys of a Secret too, by
// cloud-credential-operator convention.
const (
	keyAccess      = "aws_access_key_id"     //nolint:gosec // the name of a key
	keySecret      = "aws_secret_access_key" //nolint:gosec // the name of a key
	keyToken       = "aws_session_token"     //nolint:gosec // the name of a key
	setRegion      = "region"
	setRole        = "role_arn"
	setTokenFile   = "web_identity_token_file"
	setSessionName = "role_session_name"
	setRegional    = "sts_regional_endpoints"
)

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

// Credentials are one identity, either a key pair or a role, and its region.
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
	// STSRegionalEndpoints is "regional", "legacy" or empty. A role is written with
	// "regional" where it is empty: old SDKs ask the global host of STS otherwise.
	STSRegionalEndpoints string
	// Region is where the identity is used, e.g. "eu-west-1". Empty means that its
	// Secret does not say.
	Region string
}

// Empty reports whether there is nothing but a region, if that.
func (c Credentials) Empty() bool { return c == Credentials{Region: c.Region} }

// newCredentials are those that a profile's settings make.
func newCredentials(settings map[string]string) (Credentials, error) {
	c := Credentials{
		AccessKeyID:          settings[keyAccess],
		SecretAccessKey:      Secret(settings[keySecret]),
		SessionToken:         Secret(settings[keyToken]),
		RoleARN:              settings[setRole],
		WebIdentityTokenFile: settings[setTokenFile],
		RoleSessionName:      settings[setSessionName],
		STSRegionalEndpoints: settings[setRegional],
		Region:               settings[setRegion],
	}
	return c, c.validate()
}

// New returns the credentials of a key pair. It refuses what Read refuses, with
// values trimmed alike; both empty is ErrNone.
func New(accessKeyID string, secretAccessKey Secret) (Credentials, error) {
	access, secret := strings.TrimSpace(accessKeyID), strings.TrimSpace(string(secretAccessKey))
	if access == "" && secret == "" {
		return Credentials{}, ErrNone
	}
	return newCredentials(map[string]string{keyAccess: access, keySecret: secret})
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

// wanted are the ways to give credentials.
const wanted = keyAccess + " and " + keySecret + ", or " + setRole + " and " + setTokenFile

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
		{setRegion, c.Region, regionShape, false},
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
	if !keys && !role {
		errs = append(errs, errors.New("neither a key pair nor a role: want "+wanted))
	}
	return errors.Join(errs...)
}
