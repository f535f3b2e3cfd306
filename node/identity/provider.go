package identity

import (
	"fmt"
	"regexp"
	"strings"
)

// zonePattern splits a zone into its region and the rest. The rest is one letter
// for an availability zone, and words for a local zone (us-west-2-lax-1a) or a
// wavelength zone (us-east-1-wl1-bos-wlz-1).
var zonePattern = regexp.MustCompile(`^([a-z]{2,4}(?:-[a-z]+)+-\d+)(?:[a-z]|-[a-z0-9]+(?:-[a-z0-9]+)*)$`)

// RegionOfZone returns the AWS region that a zone lies in, e.g. "us-west-2" for
// "us-west-2-lax-1a", and "" for what is no AWS zone.
func RegionOfZone(zone string) string {
	m := zonePattern.FindStringSubmatch(zone)
	if m == nil || PartitionOf(m[1]) == "" {
		return ""
	}
	return m[1]
}

var instancePattern = regexp.MustCompile(`^m?i-[0-9a-f]{8,32}$`)

// ParseProviderID reads a Node's spec.providerID, e.g.
// "aws:///eu-west-1a/i-0123456789abcdef0". Nodes of other clouds, and an empty
// ID, give empty strings and no error. Nodes without an instance of their own,
// as on Fargate, give a zone alone. An ID that claims to be of AWS and makes no
// sense is an error.
func ParseProviderID(id string) (zone, instance string, err error) {
	rest, ok := strings.CutPrefix(id, "aws://")
	if !ok {
		return "", "", nil
	}
	parts := strings.Split(strings.TrimLeft(rest, "/"), "/")
	if len(parts) < 2 || RegionOfZone(parts[0]) == "" {
		return "", "", fmt.Errorf("providerID %.140q: want aws:///ZONE/INSTANCE", id)
	}
	if last := parts[len(parts)-1]; instancePattern.MatchString(last) {
		instance = last
	}
	return parts[0], instance, nil
}
