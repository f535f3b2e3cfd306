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

// regionOf returns the AWS region that a value names, which may be a zone of it:
// cloud providers of old labelled the nodes of a local zone with the region
// "us-west-2-lax-1".
func regionOf(value string) string {
	if PartitionOf(value) != "" {
		return value
	}
	return RegionOfZone(value)
}

var (
	instancePattern = regexp.MustCompile(`^m?i-[0-9a-f]{8,32}$`)
	// eksNamePattern is what EKS allows as the name of a cluster.
	eksNamePattern = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_-]{0,99}$`)
)

// Provider is what a Node's spec.providerID says. What it does not say is empty.
type Provider struct {
	// AWS says that the node belongs to AWS, also where the rest makes no sense.
	AWS bool
	// Cluster is the name of an EKS cluster with hybrid nodes.
	Cluster string
	// Region is the one that the zone lies in, e.g. "us-west-2".
	Region string
	// Zone may be a local or a wavelength zone, e.g. "us-west-2-lax-1a".
	Zone string
	// Instance is the ID of an EC2 instance, or of one that Systems Manager manages,
	// e.g. "mi-0123456789abcdef0". Nodes of Fargate have none.
	Instance string
}

// ParseProviderID reads a Node's spec.providerID in each form that something writes
// for AWS: TestParseProviderID lists them. An empty ID, and one of another cloud,
// give an empty Provider and no error. One that claims to be of AWS and makes no
// sense is an error, beside which the Provider holds the part that does.
func ParseProviderID(id string) (Provider, error) {
	if instancePattern.MatchString(id) { // cloud-provider-aws takes it for one of AWS
		return Provider{AWS: true, Instance: id}, nil
	}
	scheme, rest, _ := strings.Cut(id, ":")
	switch scheme {
	case "aws":
		return parseEC2(id, strings.TrimLeft(rest, "/"))
	case "eks-hybrid":
		return parseHybrid(id, strings.TrimLeft(rest, "/"))
	default:
		return Provider{}, nil
	}
}

// parseEC2 reads [ZONE|REGION/][anything/]INSTANCE.
func parseEC2(id, path string) (Provider, error) {
	p := Provider{AWS: true}
	place, rest, found := strings.Cut(path, "/")
	if !found {
		place, rest = "", path // Cluster API left out the zone
	}
	if place != "" {
		p.Region = regionOf(place)
		if RegionOfZone(place) != "" {
			p.Zone = place
		}
	}
	last := rest[strings.LastIndexByte(rest, '/')+1:]
	if instancePattern.MatchString(last) {
		p.Instance = last
	}
	if place != "" && p.Region == "" || p.Instance == "" && !strings.HasPrefix(last, "fargate-") {
		return p, fmt.Errorf("providerID %.140q: want aws:///ZONE/INSTANCE", id)
	}
	return p, nil
}

// parseHybrid reads REGION/CLUSTER/NODE. NODE is the ID of Systems Manager, or
// whatever name the node has been given.
func parseHybrid(id, path string) (Provider, error) {
	p := Provider{AWS: true}
	parts := strings.SplitN(path, "/", 3)
	if PartitionOf(parts[0]) != "" {
		p.Region = parts[0]
	}
	if len(parts) == 3 && eksNamePattern.MatchString(parts[1]) {
		p.Cluster = parts[1]
	}
	if len(parts) == 3 && instancePattern.MatchString(parts[2]) {
		p.Instance = parts[2]
	}
	if p.Region == "" || p.Cluster == "" || parts[2] == "" {
		return p, fmt.Errorf("providerID %.140q: want eks-hybrid:///REGION/CLUSTER/NODE", id)
	}
	return p, nil
}
