package fakeaws

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	// roleLife is how long keys from instance metadata last at AWS.
	roleLife = 6 * time.Hour
	// roleRenewal is how long before their end new ones appear:
	// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html
	roleRenewal = 5 * time.Minute
)

// serveMetadata answers with the value at a path, or with what is below it.
func (m *IMDS) serveMetadata(w http.ResponseWriter, r *http.Request, i Instance) {
	tree := metadataTree(i)
	m.addRole(tree, i)
	path := strings.TrimPrefix(r.URL.Path, "/latest/")
	value, ok := tree[path]
	if !ok {
		value, ok = listing(tree, strings.TrimSuffix(path, "/"))
	}
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = fmt.Fprint(w, value) // the client went away
}

// metadataTree maps paths below /latest/ to their values.
func metadataTree(i Instance) map[string]string {
	partition, suffix := partitionOf(i.Region)
	tree := map[string]string{
		"meta-data/instance-id":                 i.ID,
		"meta-data/instance-type":               i.Type,
		"meta-data/placement/availability-zone": i.Zone,
		"meta-data/placement/region":            i.Region,
		"meta-data/services/domain":             suffix,
		"meta-data/services/partition":          partition,
		"dynamic/instance-identity/document":    identityDocument(i),
	}
	for key, value := range i.Tags {
		tree["meta-data/tags/instance/"+key] = value
	}
	if i.Tags != nil && len(i.Tags) == 0 {
		tree["meta-data/tags/instance"] = ""
	}
	return tree
}

func identityDocument(i Instance) string {
	return encode(map[string]any{
		"accountId":        i.Account,
		"architecture":     "x86_64",
		"availabilityZone": i.Zone,
		"imageId":          "ami-0123456789abcdef0",
		"instanceId":       i.ID,
		"instanceType":     i.Type,
		"pendingTime":      "2026-01-02T03:04:05Z",
		"privateIp":        "10.0.0.10",
		"region":           i.Region,
		"version":          "2017-09-30",
	})
}

// addRole puts the instance's role and its current keys into the tree.
func (m *IMDS) addRole(tree map[string]string, i Instance) {
	if i.Role == "" {
		return
	}
	now := m.server.now()
	m.mu.Lock()
	if m.role.Role != i.Role || now.After(m.role.Expires.Add(-roleRenewal)) {
		m.role = m.server.newSession(i.Role, i.ID, roleLife)
	}
	keys := m.role
	m.mu.Unlock()
	_, _, name := splitRoleARN(i.Role)
	tree["meta-data/iam/security-credentials/"+name] = encode(map[string]string{
		"Code":            "Success",
		"Type":            "AWS-HMAC",
		"LastUpdated":     keys.Expires.Add(-roleLife).UTC().Format(time.RFC3339),
		"AccessKeyId":     keys.AccessKeyID,
		"SecretAccessKey": keys.SecretAccessKey,
		"Token":           keys.SessionToken,
		"Expiration":      keys.Expires.UTC().Format(time.RFC3339),
	})
}

// encode marshals maps of strings, which cannot fail.
func encode(v any) string {
	data, _ := json.MarshalIndent(v, "", "  ")
	return string(data)
}

// listing returns the names below a path, one a line, those of directories with
// a slash, and false if there are none.
func listing(tree map[string]string, directory string) (string, bool) {
	var names []string
	for path := range tree {
		below, ok := strings.CutPrefix(path, directory+"/")
		if !ok {
			continue
		}
		if name, _, deeper := strings.Cut(below, "/"); deeper {
			below = name + "/"
		}
		names = append(names, below)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), "\n"), len(names) > 0
}
