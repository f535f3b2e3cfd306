package awsini

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// settings lists what a profile may hold. Anything else is refused: a
// credential_process, for one, would run a command in every pod that reads it.
var settings = []string{keyAccess, keySecret, keyToken, setRole, setTokenFile, setSessionName, setRegional, "region"}

// Parse reads an ini file of one section, as this package writes it. Errors give
// the line and what is known of it, never what stands there.
func Parse(data []byte) (map[string]string, error) { return parse(string(data)) }

func parse(text string) (map[string]string, error) {
	values := map[string]string{}
	section := ""
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			if section != "" {
				return nil, fmt.Errorf("line %d: a second section; keep one profile", i+1)
			}
			section = line
			if !strings.HasSuffix(line, "]") || len(line) < 3 {
				return nil, fmt.Errorf("line %d: a section is written [name]", i+1)
			}
		case section == "":
			return nil, fmt.Errorf("line %d: a setting before the first [section]", i+1)
		default:
			if err := parseSetting(values, line); err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
		}
	}
	if section == "" {
		return nil, errors.New("no [section]")
	}
	return values, nil
}

func parseSetting(values map[string]string, line string) error {
	key, value, ok := strings.Cut(line, "=")
	key = strings.ToLower(strings.TrimSpace(key))
	if !ok {
		return errors.New("want key = value")
	}
	if !slices.Contains(settings, key) {
		return fmt.Errorf("unknown setting; known are %s", strings.Join(settings, ", ")) // what stands there may be half a secret
	}
	if _, again := values[key]; again {
		return fmt.Errorf("%s stands twice", key)
	}
	values[key] = strings.TrimSpace(value)
	return nil
}
