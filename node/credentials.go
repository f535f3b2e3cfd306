package node

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/node/awsini"
	"github.com/chandler-k8s/chandler/node/identity"
)

// Credential is one mounted Secret and the profile that it becomes.
type Credential struct {
	// Set is "aws" or "aws-<name>". Credentials of one set are profiles of the same
	// files, each with a Profile of its own and all with the same Mode, UID and GID.
	Set string
	// Source is the directory of the mounted Secret.
	Source string
	// Profile is the section's name in the ini files, e.g. "default".
	Profile string
	// Mode, UID and GID are those of credentials.ini.
	Mode     fs.FileMode
	UID, GID int
}

// bySet groups credentials by the set that they share, in the order of the first of each.
func bySet(all []Credential) [][]Credential {
	var groups [][]Credential
	for _, c := range all {
		i := slices.IndexFunc(groups, func(g []Credential) bool { return g[0].Set == c.Set })
		if i < 0 {
			groups = append(groups, []Credential{c})
		} else {
			groups[i] = append(groups[i], c)
		}
	}
	return groups
}

// awsFiles gives the files of one set. A Secret that yields no credentials does not hold
// back the other profiles: its own keeps what is published, and the error says why. Without
// anything to keep, the profile is left out. When all Secrets fail, nothing is published. A
// region that is missing holds back no credentials.
func (n *Node) awsFiles(group []Credential, facts identity.Facts) ([]hostfiles.File, error) {
	published, damaged := n.publishedProfiles(group[0].Set)
	var profiles []awsini.Profile
	var refused, missing []error
	for _, c := range group {
		last, kept := published[c.Profile]
		found, err := n.readSecret(c)
		switch {
		case err != nil && damaged != nil:
			return nil, errors.Join(err, damaged) // what would be left out may be good
		case err != nil:
			refused = append(refused, err)
			if !kept {
				continue
			}
			found = last
		case found.Region == "":
			found.Region, err = n.region(c.Profile, facts, last.Region, !found.Empty())
			missing = append(missing, err)
		}
		profiles = append(profiles, awsini.Profile{Name: c.Profile, Credentials: found})
	}
	if len(refused) == len(group) {
		return nil, errors.Join(refused...)
	}
	files, err := renderAWS(group[0], profiles)
	return files, errors.Join(append(append(refused, missing...), err)...)
}

// readSecret reads the Secret of a profile; one that is not there is empty credentials.
func (n *Node) readSecret(c Credential) (awsini.Credentials, error) {
	found, unused, err := awsini.Read(c.Source)
	if errors.Is(err, awsini.ErrNone) {
		err = nil
	}
	if err != nil {
		return found, fmt.Errorf("profile %s: %w", c.Profile, err)
	}
	names := strings.Join(unused, ", ")
	if names != "" && n.unused[c.Source] != names {
		n.Log.Warn("keys of a mounted Secret are not used", "set", c.Set, "path", c.Source, "keys", names)
	}
	n.unused[c.Source] = names
	return found, nil
}

// publishedProfiles reads back the profiles of a set, none if it is not published.
func (n *Node) publishedProfiles(set string) (map[string]awsini.Credentials, error) {
	files, err := n.Dir.Read(set)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseAWS(contents(files))
}

func parseAWS(files map[string][]byte) (map[string]awsini.Credentials, error) {
	return awsini.Parse(files[fileConfig], files[fileCredentials])
}

// renderAWS gives the files of the profiles of one set. No credentials, no
// credentials.ini: the regions stand by themselves.
func renderAWS(c Credential, profiles []awsini.Profile) ([]hostfiles.File, error) {
	config, err := awsini.RenderConfig(profiles...)
	if err != nil {
		return nil, err
	}
	credentials, err := awsini.RenderCredentials(profiles...)
	if err != nil {
		return nil, err
	}
	files := []hostfiles.File{{Name: fileConfig, Mode: publicMode, UID: asCreated, GID: asCreated, Data: config}}
	if credentials != nil {
		files = append(files, hostfiles.File{Name: fileCredentials, Mode: c.Mode, UID: c.UID, GID: c.GID, Data: credentials})
	}
	return files, nil
}

// checkAWS wants a region for each profile. Credentials are checked where there are
// some: on a node whose pods assume roles, there are none.
func checkAWS(files map[string][]byte) error {
	profiles, err := parseAWS(files)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(profiles)) {
		if profiles[name].Region == "" {
			return fmt.Errorf("%s has no region for profile %s: set identity.region, or region in the Secret; the agent's log has what each source answered", fileConfig, name)
		}
	}
	return nil
}

// MayHoldCredentials reports whether AWS credentials belong in a set.
func MayHoldCredentials(set string) bool { return isAWS(set) }

// CheckCredentials wants credentials of a set that Check finds right.
func CheckCredentials(files []hostfiles.File) error {
	if _, ok := contents(files)[fileCredentials]; !ok {
		return fmt.Errorf("%s does not exist: the Secret is missing or invalid, see the agent's log", fileCredentials)
	}
	return nil
}
