package config

import (
	"fmt"
	"strings"
)

// AWSCredential turns one mounted Secret into one profile of AWS ini files.
type AWSCredential struct {
	// Name is a DNS label, unique in the list, e.g. "billing". Required.
	Name string `json:"name"`
	// Source is the directory where the Secret is mounted, e.g.
	// "/etc/chandler/aws/default". It holds aws_access_key_id and
	// aws_secret_access_key, with aws_session_token if there is one, or
	// credentials for an STS role. Required; it need not exist yet.
	Source string `json:"source"`
	// SetName is the file set. Empty means "aws" for the entry called "default", and
	// "aws-NAME" for one called NAME. Entries of one set are profiles of the same
	// files: each needs a Profile of its own, and all the same Files.
	SetName string `json:"set"`
	// Profile is the ini section that is written. Default: "default".
	Profile string `json:"profile"`
	// Files says who may read credentials.ini.
	Files Files `json:"files"`
}

// Set returns the name of the file set, "aws" or "aws-<name>".
func (c AWSCredential) Set() string {
	switch {
	case c.SetName != "":
		return c.SetName
	case c.Name == "default":
		return "aws"
	default:
		return "aws-" + c.Name
	}
}

func (c *AWSCredential) setDefaults() {
	c.Profile = "default"
	c.Files = defaultFiles()
}

func defaultAWSCredentials() []AWSCredential {
	c := AWSCredential{Name: "default", Source: "/etc/chandler/aws/default"}
	c.setDefaults()
	return []AWSCredential{c}
}

var setRule = newRule(`^aws(-[a-z0-9]([-a-z0-9]*[a-z0-9])?)?$`, 67,
	`want "aws" or "aws-NAME", the set of files that the profile goes into, with a NAME of lower-case letters, digits and '-'`)

var profileRule = newRule(`^[A-Za-z0-9][A-Za-z0-9_.@:/+-]*$`, 64,
	"want at most 64 letters, digits and _.@:/+- beginning with a letter or digit: it becomes the name of an ini section")

func validateAWSCredentials(path string, list []AWSCredential, hostDir string, ps *problems) {
	names := map[string]bool{}
	for i, c := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		ps.dnsLabel(at+".name", c.Name)
		ps.unique(at+".name", c.Name, names)
		ps.absolutePath(at+".source", c.Source)
		if strings.HasPrefix(c.Source+"/", hostDir+"/") {
			ps.add(at+".source", c.Source, "want a directory outside hostDir, or published files would be read back as input")
		}
		if c.SetName != "" {
			ps.matches(at+".set", c.SetName, setRule)
		}
		ps.matches(at+".profile", c.Profile, profileRule)
		c.Files.validate(at+".files", ps)
		c.validateSet(path, i, list[:i], ps)
	}
}

// validateSet compares the entry at index i with those before it that have its set.
func (c AWSCredential) validateSet(path string, i int, before []AWSCredential, ps *problems) {
	for j, other := range before {
		switch {
		case other.Set() != c.Set(), other.Name == c.Name: // equal names are reported as such
		case other.Profile == c.Profile:
			ps.add(fmt.Sprintf("%s[%d].profile", path, i), c.Profile,
				"is also that of %s[%d] in set %q: want a profile of its own for each entry", path, j, c.Set())
		case other.Files != c.Files:
			ps.addBare(fmt.Sprintf("%s[%d].files", path, i),
				"differs from %s[%d].files, and both are of set %q: want the same, as there is one credentials.ini", path, j, c.Set())
			return
		}
	}
}
