package config

import (
	"fmt"
	"strings"
)

// AWSCredential turns one mounted Secret into one file set of AWS ini files.
type AWSCredential struct {
	// Name is a DNS label, unique in the list, e.g. "billing". Required.
	Name string `json:"name"`
	// Source is the directory where the Secret is mounted, e.g.
	// "/etc/chandler/aws/default". It holds aws_access_key_id and
	// aws_secret_access_key, with aws_session_token if there is one, or
	// credentials for an STS role. Required; it need not exist yet.
	Source string `json:"source"`
	// Profile is the ini section that is written. Default: "default".
	Profile string `json:"profile"`
	// Files says who may read credentials.ini.
	Files Files `json:"files"`
}

// Set returns the name of the file set: "aws" for the entry called "default",
// and "aws-<name>" for others.
func (c AWSCredential) Set() string {
	if c.Name == "default" {
		return "aws"
	}
	return "aws-" + c.Name
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

var profileRule = newRule(`^[A-Za-z0-9][A-Za-z0-9_.@:/+-]*$`, 64,
	"want at most 64 letters, digits and _.@:/+- beginning with a letter or digit: it becomes the name of an ini section")

func validateAWSCredentials(path string, list []AWSCredential, hostDir string, ps *problems) {
	names := map[string]bool{}
	for i, c := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		ps.dnsLabel(at+".name", c.Name)
		ps.unique(at+".name", c.Name, names) // equal names would share a file set
		ps.absolutePath(at+".source", c.Source)
		if strings.HasPrefix(c.Source+"/", hostDir+"/") {
			ps.add(at+".source", c.Source, "want a directory outside hostDir, or published files would be read back as input")
		}
		ps.matches(at+".profile", c.Profile, profileRule)
		c.Files.validate(at+".files", ps)
	}
}
