package scrapercsr

import (
	_ "embed" // the texts
	"fmt"
	"strconv"
	"strings"
)

// OwnSigner is the signer that the leader signs for itself.
const OwnSigner = "chandler.dev/scraper-client"

const leaderAccount = "chandler-leader"

// longestText bounds spec.request as policies see it. The longest honest one, with a
// common name of 116 bytes and a node name of 253, has some 1,230 characters.
const longestText = 1536

// policiesText has @NAME@ where the rules decide. It is no text/template: that finds
// methods by name, so the linker would keep every method of the program and double it.
//
//go:embed policies.yaml.in
var policiesText string

// signingText is what the policies say besides where the leader signs.
//
//go:embed signing.yaml.in
var signingText string

// Policies returns the ValidatingAdmissionPolicies that hold agents and leader to
// the rules, with their bindings, as a commented YAML stream to be applied as it
// is. They pin the common name byte by byte; the error tells of one that cannot be
// pinned.
func Policies(r Rules) ([]byte, error) {
	start, err := beginning(r.CommonName)
	if err != nil {
		return nil, fmt.Errorf("pin the common name: %w", err)
	}
	own := r.SignerName == OwnSigner
	signing, signsNone := "", "; it signs none"
	if own {
		signing, signsNone = signingText, ""
	}
	text := strings.Replace(policiesText, "@Signing@", signing, 1)
	return []byte(strings.NewReplacer(
		"@CommonName@", r.CommonName, "@SignerName@", r.SignerName, "@Seconds@", strconv.FormatInt(r.longestSeconds(), 10),
		"@LeastSeconds@", strconv.Itoa(int(ShortestLife.Seconds())), "@LongestText@", strconv.Itoa(longestText),
		"@Agent@", r.AgentUser(), "@Leader@", "system:serviceaccount:"+r.Namespace+":"+leaderAccount,
		"@Beginning@", start, "@Ending@", ending(), "@Signs@", strconv.FormatBool(own), "@SignsNone@", signsNone,
	).Replace(text)), nil
}
