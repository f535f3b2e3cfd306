package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// partition is a row of the SDK's partitions.json, with the domains of ECR's hosts.
// Package leader/pullsecrets holds the labels of namespaces to the same domains.
type partition struct {
	name string
	// prefix begins the name of each region, also of those that AWS has yet to open.
	prefix string
	// regions are those that the SDK knows.
	regions []string
	// suffix and dualStack end the hosts of registries; empty means there is none.
	suffix, dualStack string
}

// The last one takes every region that none before it takes.
var partitions = []partition{
	{"aws-cn", "cn-", strings.Fields("cn-north-1 cn-northwest-1"), "amazonaws.com.cn", "on.amazonwebservices.com.cn"},
	{"aws-us-gov", "us-gov-", strings.Fields("us-gov-east-1 us-gov-west-1"), "amazonaws.com", "on.aws"},
	{"aws-iso", "us-iso-", strings.Fields("us-iso-east-1 us-iso-west-1"), "c2s.ic.gov", ""},
	{"aws-iso-b", "us-isob-", strings.Fields("us-isob-east-1 us-isob-west-1"), "sc2s.sgov.gov", ""},
	{"aws-iso-e", "eu-isoe-", strings.Fields("eu-isoe-west-1"), "cloud.adc-e.uk", ""},
	{"aws-iso-f", "us-isof-", strings.Fields("us-isof-east-1 us-isof-south-1"), "csp.hci.ic.gov", ""},
	{"aws-eusc", "eusc-", strings.Fields("eusc-de-east-1"), "amazonaws.eu", ""},
	{"aws", "", strings.Fields("af-south-1 ap-east-1 ap-east-2 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 ap-south-2" +
		" ap-southeast-1 ap-southeast-2 ap-southeast-3 ap-southeast-4 ap-southeast-5 ap-southeast-6 ap-southeast-7" +
		" ca-central-1 ca-west-1 eu-central-1 eu-central-2 eu-north-1 eu-south-1 eu-south-2 eu-west-1 eu-west-2 eu-west-3" +
		" il-central-1 me-central-1 me-south-1 mx-central-1 sa-east-1 us-east-1 us-east-2 us-west-1 us-west-2"), "amazonaws.com", "on.aws"},
}

func partitionOf(region string) partition {
	return partitions[slices.IndexFunc(partitions, func(p partition) bool { return strings.HasPrefix(region, p.prefix) })]
}

var registryForm = regexp.MustCompile(`^[0-9]{12}\.dkr([.-])ecr(?:-fips)?\.([a-z0-9-]+)\.([a-z0-9.-]+)$`)

// registryRegion returns the region of a registry's host, which for ECR Public is the
// only one of its API, and "" for what is no host.
func registryRegion(host string) string {
	if host == PublicRegistry {
		return "us-east-1"
	}
	if parts := registryForm.FindStringSubmatch(host); parts != nil {
		return parts[2]
	}
	return ""
}

// registryDomain reports a host whose region and domain do not go together: no such
// registry exists.
func (ps *problems) registryDomain(path, host string) {
	parts := registryForm.FindStringSubmatch(host)
	if parts == nil || !registryRule.shape.MatchString(host) {
		return // reported, or ECR Public
	}
	region, domain, home := parts[2], parts[3], partitionOf(parts[2])
	want := home.suffix
	if parts[1] == "-" {
		want = home.dualStack
	}
	switch {
	case !regionRule.shape.MatchString(region):
		ps.add(path, host, "want an AWS region, such as \"eu-west-1\", in place of %q", region)
	case want == "":
		ps.add(path, host, "want the classic host, with .dkr.ecr. and %s: partition %s has no dual-stack hosts", home.suffix, home.name)
	case want != domain:
		ps.add(path, host, "want the domain %s in place of %s: region %s is in partition %s", want, domain, region, home.name)
	}
}

// rolePartition reports a role of another partition than the registry's: no role can
// be assumed across partitions.
func (ps *problems) rolePartition(path, arn, registry string) {
	region := registryRegion(registry)
	if region == "" || !roleARNRule.shape.MatchString(arn) {
		return // reported
	}
	if home := partitionOf(region).name; strings.Split(arn, ":")[1] != home {
		ps.add(path, arn, "want a role of the registry's partition, such as \"arn:%s:iam::123456789012:role/ecr-pull\": region %s is in %[1]s", home, region)
	}
}

// unknownRegion returns a warning if a region is likely to be a slip. New ones are
// opened, so it cannot be more.
func unknownRegion(path, region string) []string {
	var known []string
	for _, p := range partitions {
		known = append(known, p.regions...)
	}
	if region == "" || slices.Contains(known, region) {
		return nil
	}
	meant := ""
	if regionRule.shape.MatchString(region) {
		meant = nearest(region, known)
	} else if i := slices.IndexFunc(known, func(k string) bool {
		return distance(region, k) == 1 || strings.TrimRight(k, "-0123456789") == region
	}); i >= 0 {
		meant = known[i]
	} else {
		return nil // another store's
	}
	if meant != "" {
		meant = fmt.Sprintf("; did you mean %q?", meant)
	}
	return []string{fmt.Sprintf("%s: %q is no AWS region that this version knows%s", path, region, meant)}
}

// regionWarnings lists what is likely to be a slip in the name of a region.
func (c *Config) regionWarnings() []string {
	out := unknownRegion("identity.region", c.Identity.Region)
	secrets, status := c.Leader.PullSecrets, c.Leader.ClusterStatus
	for i, r := range secrets.Roles {
		out = append(out, unknownRegion(fmt.Sprintf("leader.pullSecrets.roles[%d].registry", i), registryRegion(r.Registry))...)
	}
	for i, host := range secrets.DefaultChainFor {
		out = append(out, unknownRegion(fmt.Sprintf("leader.pullSecrets.defaultChainFor[%d]", i), registryRegion(host))...)
	}
	out = append(out, unknownRegion("leader.clusterStatus.region", status.Region)...)
	if region := c.Identity.Region; status.Enabled && status.Region == "" && region != "" && !regionRule.shape.MatchString(region) {
		out = append(out, fmt.Sprintf("leader.clusterStatus.region is not set: without AWS_REGION the metric would go to identity.region, and %q is no AWS region", region))
	}
	return out
}
