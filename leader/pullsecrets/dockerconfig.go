package pullsecrets

import (
	"encoding/json"
	"fmt"
)

// render returns the content of a pull secret: credentials for every alias host
// of the registry, and nothing else. The field auth alone is what eatr wrote and
// what every reader takes; user name and password beside it would double the size.
func render(registry Registry, auth secretText) (secretText, error) {
	auths := map[string]map[string]string{}
	for _, host := range registry.Aliases() {
		auths[host] = map[string]string{"auth": auth.reveal()}
	}
	data, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		return secretText{}, fmt.Errorf("render pull secret for %s: %w", registry.Host, err)
	}
	return secret(string(data)), nil
}
