package pullsecrets

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/validation"
)

// kubeletHosts is what kubelet's own ECR plugin takes for a registry
// (kubernetes/cloud-provider-aws v1.37.0, cmd/ecr-credential-provider/main.go:51).
var kubeletHosts = regexp.MustCompile(`^(\d{12})\.dkr[\.\-]ecr(\-fips)?\.([a-zA-Z0-9][a-zA-Z0-9-_]*)\.(amazonaws\.(?:com(?:\.cn)?|eu)|on\.(?:aws|amazonwebservices\.com\.cn)|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)

// allRegions are those of the SDK's partitions.json with the most characters, and
// some more, by partition.
var allRegions = map[string][]string{
	"aws": {
		"us-east-1", "us-west-2", "eu-west-1", "eu-central-2", "ap-southeast-7", "ap-northeast-3",
		"ca-central-1", "sa-east-1", "me-central-1", "af-south-1", "il-central-1", "mx-central-1",
	},
	"aws-cn":     {"cn-north-1", "cn-northwest-1"},
	"aws-us-gov": {"us-gov-east-1", "us-gov-west-1"},
	"aws-iso":    {"us-iso-east-1", "us-iso-west-1"},
	"aws-iso-b":  {"us-isob-east-1", "us-isob-west-1"},
	"aws-iso-e":  {"eu-isoe-west-1"},
	"aws-iso-f":  {"us-isof-east-1", "us-isof-south-1"},
	"aws-eusc":   {"eusc-de-east-1"},
}

func TestParse(t *testing.T) {
	const account = "123456789012"
	tests := map[string]struct {
		host string
		want Registry
	}{
		"classic": {account + ".dkr.ecr.eu-west-1.amazonaws.com", Registry{Region: "eu-west-1", Partition: "aws"}},
		"FIPS":    {account + ".dkr.ecr-fips.us-east-1.amazonaws.com", Registry{Region: "us-east-1", Partition: "aws", FIPS: true}},
		"FIPS where AWS offers none": {
			account + ".dkr.ecr-fips.eu-west-1.amazonaws.com",
			Registry{Region: "eu-west-1", Partition: "aws", FIPS: true},
		},
		"dual-stack":      {account + ".dkr-ecr.ap-southeast-2.on.aws", Registry{Region: "ap-southeast-2", Partition: "aws", DualStack: true}},
		"dual-stack FIPS": {account + ".dkr-ecr-fips.us-west-2.on.aws", Registry{Region: "us-west-2", Partition: "aws", FIPS: true, DualStack: true}},
		"government":      {account + ".dkr.ecr.us-gov-west-1.amazonaws.com", Registry{Region: "us-gov-west-1", Partition: "aws-us-gov"}},
		"China":           {account + ".dkr.ecr.cn-north-1.amazonaws.com.cn", Registry{Region: "cn-north-1", Partition: "aws-cn"}},
		"China dual-stack": {
			account + ".dkr-ecr.cn-northwest-1.on.amazonwebservices.com.cn",
			Registry{Region: "cn-northwest-1", Partition: "aws-cn", DualStack: true},
		},
		"iso":       {account + ".dkr.ecr.us-iso-east-1.c2s.ic.gov", Registry{Region: "us-iso-east-1", Partition: "aws-iso"}},
		"iso-b":     {account + ".dkr.ecr.us-isob-east-1.sc2s.sgov.gov", Registry{Region: "us-isob-east-1", Partition: "aws-iso-b"}},
		"iso-e":     {account + ".dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", Registry{Region: "eu-isoe-west-1", Partition: "aws-iso-e"}},
		"iso-f":     {account + ".dkr.ecr.us-isof-south-1.csp.hci.ic.gov", Registry{Region: "us-isof-south-1", Partition: "aws-iso-f"}},
		"sovereign": {account + ".dkr.ecr.eusc-de-east-1.amazonaws.eu", Registry{Region: "eusc-de-east-1", Partition: "aws-eusc"}},
		"a region that does not exist yet": {
			account + ".dkr.ecr.xx-middle-12.amazonaws.com",
			Registry{Region: "xx-middle-12", Partition: "aws"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(test.host)
			if err != nil {
				t.Fatal(err)
			}
			test.want.Host, test.want.Account = test.host, account
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestParsePublic(t *testing.T) {
	got, err := Parse("public.ecr.aws")
	if err != nil {
		t.Fatal(err)
	}
	want := Registry{Host: "public.ecr.aws", Region: "us-east-1", Partition: "aws"}
	if diff := cmp.Diff(want, got); diff != "" || !got.Public() {
		t.Errorf("public %t, -want +got:\n%s", got.Public(), diff)
	}
}

func TestParseRefuses(t *testing.T) {
	tests := map[string]struct{ host, want string }{
		"empty":                                {"", "want 12 digits"},
		"port":                                 {"123456789012.dkr.ecr.eu-west-1.amazonaws.com:443", "no port"},
		"scheme":                               {"https://123456789012.dkr.ecr.eu-west-1.amazonaws.com", "no port"},
		"upper case":                           {"123456789012.dkr.ecr.EU-WEST-1.amazonaws.com", "lower case"},
		"short account":                        {"12345678901.dkr.ecr.eu-west-1.amazonaws.com", "want 12 digits"},
		"long account":                         {"1234567890123.dkr.ecr.eu-west-1.amazonaws.com", "want 12 digits"},
		"another service":                      {"123456789012.dkr.s3.eu-west-1.amazonaws.com", "want 12 digits"},
		"repository":                           {"123456789012.dkr.ecr.eu-west-1.amazonaws.com/app", "want 12 digits"},
		"region without number":                {"123456789012.dkr.ecr.eu-west.amazonaws.com", "form of an AWS region"},
		"region with underscore":               {"123456789012.dkr.ecr.eu_west_1.amazonaws.com", "want 12 digits"},
		"no region":                            {"123456789012.dkr.ecr.amazonaws.com", "form of an AWS region"},
		"China without .cn":                    {"123456789012.dkr.ecr.cn-north-1.amazonaws.com", "it would be 123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn"},
		"Ireland with .cn":                     {"123456789012.dkr.ecr.eu-west-1.amazonaws.com.cn", "it would be"},
		"dash with classic suffix":             {"123456789012.dkr-ecr.eu-west-1.amazonaws.com", "it would be 123456789012.dkr-ecr.eu-west-1.on.aws"},
		"dot with dual-stack":                  {"123456789012.dkr.ecr.eu-west-1.on.aws", "it would be 123456789012.dkr.ecr.eu-west-1.amazonaws.com"},
		"dual-stack in a partition without it": {"123456789012.dkr-ecr.us-iso-east-1.on.aws", "no dual-stack hosts"},
		"somebody else's domain":               {"123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example", "it would be"},
		"ECR Public's second name":             {"ecr-public.aws.com", "use public.ecr.aws"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(test.host)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %+v, %v, want an error with %q", got, err, test.want)
			}
		})
	}
}

func TestAliases(t *testing.T) {
	tests := map[string]struct {
		host string
		want []string
	}{
		"every form where AWS offers FIPS": {
			"123456789012.dkr.ecr.us-east-1.amazonaws.com",
			[]string{
				"123456789012.dkr.ecr.us-east-1.amazonaws.com", "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
				"123456789012.dkr-ecr.us-east-1.on.aws", "123456789012.dkr-ecr-fips.us-east-1.on.aws",
			},
		},
		"the same from another form": {
			"123456789012.dkr-ecr-fips.us-gov-east-1.on.aws",
			[]string{
				"123456789012.dkr.ecr.us-gov-east-1.amazonaws.com", "123456789012.dkr.ecr-fips.us-gov-east-1.amazonaws.com",
				"123456789012.dkr-ecr.us-gov-east-1.on.aws", "123456789012.dkr-ecr-fips.us-gov-east-1.on.aws",
			},
		},
		"no FIPS in Europe": {
			"123456789012.dkr.ecr.eu-west-1.amazonaws.com",
			[]string{"123456789012.dkr.ecr.eu-west-1.amazonaws.com", "123456789012.dkr-ecr.eu-west-1.on.aws"},
		},
		"but the label's own host in any case": {
			"123456789012.dkr.ecr-fips.eu-west-1.amazonaws.com",
			[]string{
				"123456789012.dkr.ecr.eu-west-1.amazonaws.com", "123456789012.dkr-ecr.eu-west-1.on.aws",
				"123456789012.dkr.ecr-fips.eu-west-1.amazonaws.com",
			},
		},
		"China": {
			"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
			[]string{"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn"},
		},
		"no dual-stack": {
			"123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov",
			[]string{"123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov"},
		},
		"public": {"public.ecr.aws", []string{"public.ecr.aws", "ecr-public.aws.com"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			registry, err := Parse(test.host)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, registry.Aliases()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A label key without a prefix has at most 63 characters. Every form of host fits,
// though China's longest with not one to spare, except FIPS hosts of China that AWS
// does not offer. Where a host did not fit, the registry's classic one would do: the
// Secret holds every alias.
func TestEveryHostFitsALabel(t *testing.T) {
	for partition, regions := range allRegions {
		for _, region := range regions {
			registry := Registry{Account: "123456789012", Region: region}
			if home := partitionOf(region); home == nil || home.name != partition {
				t.Fatalf("region %s: got partition %v, want %s", region, home, partition)
			}
			registry.Host = registry.in(partitionOf(region), false, false)
			for _, host := range registry.Aliases() {
				if problems := validation.IsQualifiedName(host); len(problems) > 0 {
					t.Errorf("%s, %d characters: %v", host, len(host), problems)
				}
				if problems := validation.IsDNS1123Subdomain(host); len(problems) > 0 {
					t.Errorf("%s as the name of a Secret: %v", host, problems)
				}
				if _, err := Parse(host); err != nil {
					t.Error(err)
				}
			}
		}
	}
	const none = "123456789012.dkr-ecr-fips.cn-northwest-1.on.amazonwebservices.com.cn"
	if problems := validation.IsQualifiedName(none); len(problems) == 0 {
		t.Errorf("%s: got no problem, want it too long", none)
	}
}

// The admission policy knows the names of Secrets by a pattern of its own.
func TestPolicyAcceptsEveryHost(t *testing.T) {
	for _, file := range []string{"base/pullsecrets.yaml", "optional/pullsecrets-adopt.yaml"} {
		manifest, err := os.ReadFile(filepath.Join("..", "..", "deploy", file))
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`'(\^\[0-9\]\{12\}.*\$)'`).FindSubmatch(manifest)
		if found == nil {
			t.Fatalf("%s: got no pattern of names", file)
		}
		names := regexp.MustCompile(string(found[1]))
		for _, regions := range allRegions {
			for _, region := range regions {
				for _, host := range (Registry{Account: "123456789012", Region: region}).Aliases() {
					if host != "" && !names.MatchString(host) {
						t.Errorf("%s: the policy refuses %s", file, host)
					}
				}
			}
		}
		for _, host := range []string{prefixed(irish), irish + ".evil.example", "password", "x" + irish} {
			if names.MatchString(host) {
				t.Errorf("%s: the policy accepts %s", file, host)
			}
		}
	}
}

func prefixed(host string) string { return "eatr-aws-credentials-" + host }

func FuzzParse(f *testing.F) {
	for _, regions := range allRegions {
		for _, region := range regions {
			registry := Registry{Account: "123456789012", Region: region}
			for _, host := range registry.Aliases() {
				f.Add(host)
			}
		}
	}
	for _, host := range []string{"", "public.ecr.aws", "ecr-public.aws.com", "123456789012.dkr.ecr.", "123456789012.dkr.ecr.a.b:1", "123456789012.DKR.ecr.eu-west-1.amazonaws.com"} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		registry, err := Parse(host)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: the error has more than one line: %v", host, err)
			}
			return
		}
		if !registry.Public() && !kubeletHosts.MatchString(host) {
			t.Errorf("%q: accepted, but kubelet's plugin does not take it for a registry", host)
		}
		if problems := validation.IsDNS1123Subdomain(host); len(problems) > 0 {
			t.Errorf("%q: accepted, but is no name of a Secret: %v", host, problems)
		}
		if !IsCandidate(host) {
			t.Errorf("%q: accepted, but not a candidate", host)
		}
		for _, alias := range registry.Aliases() {
			other, err := Parse(alias)
			if registry.Public() {
				continue
			}
			if err != nil || other.Account != registry.Account || other.Region != registry.Region || other.Partition != registry.Partition {
				t.Errorf("%q: alias %q is %+v, %v", host, alias, other, err)
			}
		}
	})
}

// What kubelet's plugin accepts and Parse does not, is not in use.
func TestParseAcceptsWhatKubeletDoes(t *testing.T) {
	for partition, regions := range allRegions {
		for _, region := range regions {
			home := partitionOf(region)
			for _, suffix := range []string{home.suffix, home.dualStack} {
				if suffix == "" {
					continue
				}
				for _, form := range []string{".dkr.ecr.", ".dkr.ecr-fips.", ".dkr-ecr.", ".dkr-ecr-fips."} {
					host := "123456789012" + form + region + "." + suffix
					dash := strings.Contains(form, "dkr-ecr")
					_, err := Parse(host)
					want := kubeletHosts.MatchString(host) && dash == (suffix == home.dualStack)
					if (err == nil) != want {
						t.Errorf("partition %s, %s: got %v, want accepted %t", partition, host, err, want)
					}
				}
			}
		}
	}
}
