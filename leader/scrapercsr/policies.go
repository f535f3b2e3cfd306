package scrapercsr

import (
	"bytes"
	_ "embed" // the template
	"fmt"
	"text/template"
)

// OwnSigner is the signer that the leader signs for itself.
const OwnSigner = "chandler.dev/scraper-client"

const leaderAccount = "chandler-leader"

// longestText bounds spec.request as policies see it. The longest honest one, with a
// common name of 116 bytes and a node name of 253, has some 1,230 characters.
const longestText = 1536

//go:embed policies.yaml.tmpl
var policiesTemplate string

// Policies returns the ValidatingAdmissionPolicies that hold agents and leader to
// the rules, with their bindings, as a commented YAML stream to be applied as it
// is. They pin the common name byte by byte; the error tells of one that cannot be
// pinned.
func Policies(r Rules) ([]byte, error) {
	start, err := beginning(r.CommonName)
	if err != nil {
		return nil, fmt.Errorf("pin the common name: %w", err)
	}
	parsed, err := template.New("policies").Parse(policiesTemplate)
	if err != nil {
		return nil, fmt.Errorf("parse policies: %w", err)
	}
	own := r.SignerName == OwnSigner
	var out bytes.Buffer
	err = parsed.Execute(&out, map[string]any{
		"CommonName": r.CommonName, "SignerName": r.SignerName, "Seconds": r.longestSeconds(),
		"LeastSeconds": int64(ShortestLife.Seconds()), "LongestText": longestText,
		"Agent": r.AgentUser(), "Leader": "system:serviceaccount:" + r.Namespace + ":" + leaderAccount,
		"Beginning": start, "Ending": ending(), "Own": own, "Signs": own,
	})
	if err != nil {
		return nil, fmt.Errorf("write policies: %w", err)
	}
	return out.Bytes(), nil
}
