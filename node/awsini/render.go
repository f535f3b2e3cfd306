package awsini

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Profile is one section of both files.
type Profile struct {
	// Name is the section's name, e.g. "default".
	Name string
	// Credentials may be empty but for the region, and that too: such a profile has a
	// section in config.ini alone.
	Credentials
}

// RenderConfig gives config.ini: for each profile the region, unless it is not known,
// and the role, for SDKs that look for it there.
func RenderConfig(profiles ...Profile) ([]byte, error) {
	var sections []section
	for _, p := range profiles {
		if p.Region != "" && !regionShape.MatchString(p.Region) {
			return nil, fmt.Errorf("render config.ini: region %.80q of profile %.80q: want %s", p.Region, p.Name, regionShape)
		}
		s := section{name: p.Name, settings: p.further()}
		if s.name != defaultProfile {
			s.name = profilePrefix + s.name // the form of config files alone
		}
		s.settings[setRegion] = p.Region
		sections = append(sections, s)
	}
	return render("config.ini", profiles, sections)
}

// RenderCredentials gives credentials.ini: the key pair or the role of each profile.
// Profiles without one are left out; when all are, there is no file, and nil returned.
func RenderCredentials(profiles ...Profile) ([]byte, error) {
	var sections []section
	for _, p := range profiles {
		if p.Empty() {
			continue
		}
		if err := p.validate(); err != nil {
			return nil, fmt.Errorf("render credentials.ini: profile %.80q: %w", p.Name, err)
		}
		s := section{name: p.Name, settings: p.further()}
		s.settings[keyAccess], s.settings[keySecret], s.settings[keyToken] = p.AccessKeyID, string(p.SecretAccessKey), string(p.SessionToken)
		sections = append(sections, s)
	}
	return render("credentials.ini", profiles, sections)
}

// further are the settings that both files have.
func (c Credentials) further() map[string]string {
	if c.RoleARN != "" {
		c.STSRegionalEndpoints = cmp.Or(c.STSRegionalEndpoints, "regional")
	}
	return map[string]string{
		setRole: c.RoleARN, setTokenFile: c.WebIdentityTokenFile,
		setSessionName: c.RoleSessionName, setRegional: c.STSRegionalEndpoints,
	}
}

// render writes the sections and reads them back before it lets go of them.
func render(file string, profiles []Profile, sections []section) ([]byte, error) {
	for _, p := range profiles {
		if !profileShape.MatchString(p.Name) {
			return nil, fmt.Errorf("render %s: profile %.80q: want %s", file, p.Name, profileShape)
		}
	}
	var written []string
	for _, s := range sections {
		maps.DeleteFunc(s.settings, func(_, value string) bool { return value == "" })
		var b strings.Builder
		fmt.Fprintf(&b, "[%s]\n", s.name)
		for _, key := range allowed {
			if value, ok := s.settings[key]; ok {
				fmt.Fprintf(&b, "%s = %s\n", key, value)
			}
		}
		written = append(written, b.String())
	}
	text := strings.Join(written, "\n")
	if text == "" {
		return nil, nil
	}
	got, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("render %s: the result does not read back: %w", file, err)
	}
	same := func(a, b section) bool { return a.name == b.name && maps.Equal(a.settings, b.settings) }
	if !slices.EqualFunc(got, sections, same) {
		return nil, fmt.Errorf("render %s: the result reads back as something else", file)
	}
	return []byte(text), nil
}
