package awsini

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// allowed lists the settings that a profile may hold, in the order in which they are written.
// Anything else is refused: a credential_process, for one, would run a command in
// every pod that reads it.
var allowed = []string{
	setRegion, keyAccess, keySecret, keyToken, oldToken, setRole, setTokenFile, setSessionName, setRegional,
}

// The forms of a section's name. Files of credentials have no prefix.
const (
	defaultProfile = "default"
	profilePrefix  = "profile "
)

// Parse reads back what this package wrote: config.ini and, unless it is empty, the
// credentials.ini beside it. It returns what each profile has, by its name. Errors give
// the file, the line and what is known of it, never what stands there.
func Parse(config, credentialsFile []byte) (map[string]Credentials, error) {
	profiles := map[string]Credentials{}
	if len(credentialsFile) > 0 {
		sections, err := parse(string(credentialsFile))
		if err != nil {
			return nil, fmt.Errorf("credentials.ini: %w", err)
		}
		for _, s := range sections {
			c, err := newCredentials(s.settings)
			if err != nil {
				return nil, fmt.Errorf("credentials.ini: profile %.80q: %w", s.name, err)
			}
			profiles[s.name] = c
		}
	}
	sections, err := parse(string(config))
	if err != nil {
		return nil, fmt.Errorf("config.ini: %w", err)
	}
	for _, s := range sections {
		name := strings.TrimPrefix(s.name, profilePrefix)
		c := profiles[name]
		c.Region = s.settings[setRegion]
		profiles[name] = c
	}
	return profiles, nil
}

// section is one profile of a file.
type section struct {
	name     string
	line     int
	settings map[string]string
}

// parse reads an ini file of one section or more, each with a name of its own.
func parse(text string) ([]section, error) {
	var sections []section
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			s, err := parseHeader(line, sections)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
			s.line = i + 1
			sections = append(sections, s)
		case len(sections) == 0:
			return nil, fmt.Errorf("line %d: a setting before the first [section]", i+1)
		default:
			if err := parseSetting(sections[len(sections)-1].settings, line); err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
		}
	}
	if len(sections) == 0 {
		return nil, errors.New("no [section]")
	}
	return sections, nil
}

func parseHeader(line string, before []section) (section, error) {
	name, closed := strings.CutSuffix(line[1:], "]")
	if name = strings.TrimSpace(name); !closed || name == "" {
		return section{}, errors.New("a section is written [name]")
	}
	if slices.ContainsFunc(before, func(s section) bool { return s.name == name }) {
		return section{}, errors.New("duplicate section; keep one")
	}
	return section{name: name, settings: map[string]string{}}, nil
}

func parseSetting(values map[string]string, line string) error {
	key, value, ok := strings.Cut(line, "=")
	key = strings.ToLower(strings.TrimSpace(key))
	if !ok {
		return errors.New("want key = value")
	}
	if !slices.Contains(allowed, key) {
		return fmt.Errorf("unknown setting; known are %s", strings.Join(allowed, ", ")) // what stands there may be half a secret
	}
	if _, again := values[key]; again {
		return fmt.Errorf("%s is given twice; keep one", key)
	}
	values[key] = strings.TrimSpace(value)
	return nil
}
