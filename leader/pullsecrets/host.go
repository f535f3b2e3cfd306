package pullsecrets

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// PublicHost is the host of ECR Public, as namespaces are labelled with it.
const PublicHost = "public.ecr.aws"

// publicAlias is its other name: https://docs.aws.amazon.com/AmazonECR/latest/public/public-registries.html
const publicAlias = "ecr-public.aws.com"

// publicRegion is the only region whose API gives out tokens for ECR Public.
const publicRegion = "us-east-1"

// Registry is an ECR registry, named by one of its hosts.
type Registry struct {
	// Host is the host as given, e.g. "123456789012.dkr.ecr.eu-west-1.amazonaws.com".
	Host string
	// Account is the 12-digit account that owns it. Empty for ECR Public.
	Account string
	// Region is e.g. "eu-west-1"; for ECR Public the region of its API.
	Region string
	// Partition is e.g. "aws" or "aws-us-gov".
	Partition string
	// FIPS and DualStack tell which form Host has.
	FIPS, DualStack bool
}

// partition is a row of the SDK's partitions.json, with the dual-stack suffix of
// registry hosts, which is not the one of API hosts. Where that is empty, no
// dual-stack registry host is known.
type partition struct {
	name      string
	regions   *regexp.Regexp
	suffix    string
	dualStack string
}

// Regions of aws-cn would pass for regions of aws, which therefore comes last.
var partitions = []partition{
	{"aws-cn", regexp.MustCompile(`^cn-[a-z]+-[0-9]+$`), "amazonaws.com.cn", "on.amazonwebservices.com.cn"},
	{"aws-us-gov", regexp.MustCompile(`^us-gov-[a-z]+-[0-9]+$`), "amazonaws.com", "on.aws"},
	{"aws-iso", regexp.MustCompile(`^us-iso-[a-z]+-[0-9]+$`), "c2s.ic.gov", ""},
	{"aws-iso-b", regexp.MustCompile(`^us-isob-[a-z]+-[0-9]+$`), "sc2s.sgov.gov", ""},
	{"aws-iso-e", regexp.MustCompile(`^eu-isoe-[a-z]+-[0-9]+$`), "cloud.adc-e.uk", ""},
	{"aws-iso-f", regexp.MustCompile(`^us-isof-[a-z]+-[0-9]+$`), "csp.hci.ic.gov", ""},
	{"aws-eusc", regexp.MustCompile(`^eusc-[a-z]+-[a-z]+-[0-9]+$`), "amazonaws.eu", ""},
	{"aws", regexp.MustCompile(`^[a-z]{2}-[a-z]+-[0-9]+$`), "amazonaws.com", "on.aws"},
}

// fipsRegions are those where AWS offers FIPS endpoints at all.
var fipsRegions = regexp.MustCompile(`^(us|ca)-(gov-)?[a-z]+-[0-9]+$`)

var hostForm = regexp.MustCompile(`^([0-9]{12})\.dkr([.-])ecr(-fips)?\.([a-z0-9-]+)\.([a-z0-9.-]+)$`)

// IsCandidate reports whether a label key is meant to be a registry's host, so
// that a mistake in it is worth telling.
func IsCandidate(key string) bool {
	return strings.Contains(key, ".dkr.ecr") || strings.Contains(key, ".dkr-ecr") ||
		key == PublicHost || key == publicAlias
}

// Parse takes the host of an ECR registry apart. It accepts the classic, FIPS and
// dual-stack hosts of every partition as they are in DNS: lower case, no port,
// region and suffix of one partition. The error says what is wrong and what to
// use instead.
func Parse(host string) (Registry, error) {
	registry, err := parse(host)
	if err != nil {
		return Registry{}, fmt.Errorf("registry host %q: %w", host, err)
	}
	return registry, nil
}

func parse(host string) (Registry, error) {
	switch {
	case host == PublicHost:
		return Registry{Host: host, Region: publicRegion, Partition: "aws"}, nil
	case host == publicAlias:
		return Registry{}, errors.New("use " + PublicHost)
	case strings.Contains(host, ":"):
		return Registry{}, errors.New("a registry's host has no port")
	case host != strings.ToLower(host):
		return Registry{}, errors.New("use lower case")
	}
	parts := hostForm.FindStringSubmatch(host)
	if parts == nil {
		return Registry{}, errors.New("want 12 digits of an account, .dkr.ecr., a region and AWS's domain")
	}
	found := Registry{Host: host, Account: parts[1], Region: parts[4], FIPS: parts[3] != "", DualStack: parts[2] == "-"}
	home := partitionOf(found.Region)
	if home == nil {
		return Registry{}, fmt.Errorf("%q is not the form of an AWS region", found.Region)
	}
	found.Partition = home.name
	if found.DualStack && home.dualStack == "" {
		return Registry{}, fmt.Errorf("partition %s has no dual-stack hosts, use the classic one", home.name)
	}
	if want := found.in(home, found.FIPS, found.DualStack); want != host {
		return Registry{}, fmt.Errorf("in region %s it would be %s", found.Region, want)
	}
	return found, nil
}

func partitionOf(region string) *partition {
	i := slices.IndexFunc(partitions, func(p partition) bool { return p.regions.MatchString(region) })
	if i < 0 {
		return nil
	}
	return &partitions[i]
}

// Public reports whether this is ECR Public.
func (r Registry) Public() bool { return r.Host == PublicHost }

// Aliases returns every host of this account and region, Host among them, each
// once: classic, FIPS where AWS offers it, dual-stack, and dual-stack FIPS. One
// token is good for all of them, and kubelet matches images by host.
func (r Registry) Aliases() []string {
	if r.Public() {
		return []string{PublicHost, publicAlias}
	}
	home := partitionOf(r.Region)
	hosts := []string{r.in(home, false, false)}
	withFIPS := fipsRegions.MatchString(r.Region)
	if withFIPS {
		hosts = append(hosts, r.in(home, true, false))
	}
	if home.dualStack != "" {
		hosts = append(hosts, r.in(home, false, true))
	}
	if withFIPS && home.dualStack != "" {
		hosts = append(hosts, r.in(home, true, true))
	}
	if !slices.Contains(hosts, r.Host) {
		hosts = append(hosts, r.Host)
	}
	return hosts
}

// in returns the host of one form in the registry's partition.
func (r Registry) in(home *partition, fips, dualStack bool) string {
	service, suffix := ".dkr.ecr", home.suffix
	if dualStack {
		service, suffix = ".dkr-ecr", home.dualStack
	}
	if fips {
		service += "-fips"
	}
	return r.Account + service + "." + r.Region + "." + suffix
}
