package awsini

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The further keys of a mounted Secret.
const (
	keyProfile = "credentials"        // an ini profile, as cloud-credential-operator writes it
	oldToken   = "aws_security_token" //nolint:gosec // the name of a key; boto's for the session token
	eatrRegion = "aws_region"         // eatr's for the region
)

// sourceKeys lists the keys of a Secret that are read.
var sourceKeys = []string{keyAccess, keySecret, keyToken, oldToken, setRegion, eatrRegion, keyProfile}

const (
	// maxSource bounds one key of a Secret, in bytes. Session tokens are documented
	// to grow, and stay below 4 KiB today.
	maxSource = 16 << 10
	// maxNames bounds the keys that an error or a log line names.
	maxNames = 10
	// maxReads bounds the rereading of a Secret that is rotated again and again.
	maxReads = 10
	// current is the link of a mounted Secret to the generation in force.
	current = "..data"
)

// Read reads the credentials of a mounted Secret. It returns the names of the keys that
// it had no use for, too, so that none is dropped in silence. The error is ErrNone when
// no Secret is mounted; one that names the keys found and those wanted when they yield
// no credentials; and any other when the directory could not be read.
func Read(dir string) (c Credentials, unused []string, err error) {
	found, err := readKeys(dir)
	if err != nil {
		return Credentials{}, nil, fmt.Errorf("read credentials in %s: %w", dir, err)
	}
	c, unused, err = assemble(found)
	if err != nil {
		return Credentials{}, nil, fmt.Errorf("read credentials in %s, which holds %s: %w", dir, found, err)
	}
	return c, unused, nil
}

// keys are what a mounted Secret holds: every name, and the values of those that are
// read, trimmed.
type keys map[string]string

// String names the keys, and says which of those that are read are empty.
func (k keys) String() string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(k)) {
		if k[name] == "" && slices.Contains(sourceKeys, name) {
			name += " (empty)"
		}
		names = append(names, name)
	}
	return strings.Join(some(names), ", ")
}

// some cuts a list off where it is long.
func some(names []string) []string {
	if more := len(names) - maxNames; more > 0 {
		return append(slices.Clone(names[:maxNames]), fmt.Sprintf("%d more", more))
	}
	return names
}

// readKeys starts over if the mounted Secret was rotated meanwhile: the generation
// that was being read may have been removed under way, key by key.
func readKeys(dir string) (keys, error) {
	for range maxReads {
		before := generation(dir)
		found, err := readGeneration(dir)
		if generation(dir) == before {
			return found, err
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

// readGeneration reads all keys through one open directory. In a mounted Secret
// that is one generation, so an old key is never paired with a new one.
func readGeneration(dir string) (keys, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // only read from
	// A link that leads nowhere is a damaged mount, and no Secret that is gone.
	if _, err := root.Lstat(current); err == nil {
		generation, err := root.OpenRoot(current)
		if err != nil {
			return nil, err
		}
		defer generation.Close() //nolint:errcheck // only read from
		root = generation
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return readAll(root)
}

// readAll returns ErrNone for a directory without keys. No key of a Secret may begin
// with two dots: such names are kubelet's own.
func readAll(root *os.Root) (keys, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close() //nolint:errcheck // only read from
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	found := keys{}
	for _, name := range names {
		if strings.HasPrefix(name, "..") {
			continue
		}
		found[name] = ""
		if slices.Contains(sourceKeys, name) {
			if found[name], err = readKey(root, name); err != nil {
				return nil, err
			}
		}
	}
	if len(found) == 0 {
		return nil, ErrNone
	}
	return found, nil
}

// readKey returns one value without the newline that people leave in Secrets.
func readKey(root *os.Root, key string) (string, error) {
	f, err := root.Open(key)
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

// assemble chooses between the key pair and the profile. Where an operator wrote both,
// they say the same, and the plain keys win; a profile that says something else is named
// as unused.
func assemble(found keys) (c Credentials, unused []string, err error) {
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if !slices.Contains(sourceKeys, name) {
			unused = append(unused, name)
		}
	}
	settings, err := settle(found)
	if err != nil {
		return Credentials{}, nil, err
	}
	profile := found[keyProfile]
	switch pair := settings[keyAccess]+settings[keySecret]+settings[keyToken] != ""; {
	case pair && profile != "" && !repeats(profile, settings):
		unused = append(unused, keyProfile)
	case pair:
	case profile == "":
		err = errors.New("no credentials: want " + keyAccess + " and " + keySecret + ", or an ini profile in " + keyProfile)
	default:
		settings, err = parseProfile(profile, settings[setRegion])
	}
	if err != nil {
		return Credentials{}, nil, err
	}
	c, err = newCredentials(settings)
	return c, some(unused), err
}

// aliases are further names of settings.
var aliases = []struct{ alias, name string }{{oldToken, keyToken}, {eatrRegion, setRegion}}

// settle leaves each setting under one name.
func settle(values map[string]string) (map[string]string, error) {
	settled := maps.Clone(values)
	for _, a := range aliases {
		alias, value := settled[a.alias], settled[a.name]
		if alias != "" && value != "" && alias != value {
			return nil, fmt.Errorf("%s and %s differ: keep one of them", a.alias, a.name)
		}
		delete(settled, a.alias)
		settled[a.name] = cmp.Or(value, alias)
	}
	return settled, nil
}

// parseProfile reads the profile in a Secret. region is what the Secret says beside it.
func parseProfile(text, region string) (map[string]string, error) {
	sections, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyProfile, err)
	}
	if len(sections) > 1 {
		return nil, fmt.Errorf("%s: line %d: a second section; keep one profile", keyProfile, sections[1].line)
	}
	settled, err := settle(sections[0].settings)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyProfile, err)
	}
	if named := settled[setRegion]; named != "" && region != "" && named != region {
		return nil, fmt.Errorf("%s: %s is not the one that the Secret names beside it: keep one of them", keyProfile, setRegion)
	}
	settled[setRegion] = cmp.Or(settled[setRegion], region)
	return settled, nil
}

// repeats reports whether a profile says nothing but what plain keys say too.
func repeats(profile string, plain map[string]string) bool {
	said, err := parseProfile(profile, "")
	for key, value := range said {
		if value != "" && value != plain[key] {
			return false
		}
	}
	return err == nil
}
