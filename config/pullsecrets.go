package config

import "fmt"

// PublicRegistry is the host of ECR Public.
const PublicRegistry = "public.ecr.aws"

// PullSecrets is about image pull secrets in namespaces that are labelled with a
// registry's host.
type PullSecrets struct {
	// Enabled is true by default.
	Enabled bool `json:"enabled"`
	// HostNamespace is the namespace of the Secrets with AWS keys. The leader reads
	// every Secret of it, so it is never our own. Default: "ci-cd".
	HostNamespace string `json:"hostNamespace"`
	// CredentialsSecretPrefix begins the names of those Secrets, which go on with
	// "-" and the registry's host. Default: "eatr-aws-credentials".
	CredentialsSecretPrefix string `json:"credentialsSecretPrefix"`
	// Adopt takes over a Secret that somebody else made, when it has the right
	// name and type and holds nothing but this registry's hosts. False by
	// default; true is for the move from eatr.
	Adopt bool `json:"adopt"`
	// PatchServiceAccounts names ServiceAccounts, e.g. "default", that get the
	// secret added to their imagePullSecrets in every labelled namespace. Empty
	// means none.
	PatchServiceAccounts []string `json:"patchServiceAccounts"`
	// DefaultChainFor lists the registries, by host or by the account's 12 digits,
	// that may be asked as the leader's own AWS identity (the SDK's default chain)
	// where there is no Secret with keys. Absent means every registry, an empty
	// list none.
	DefaultChainFor []string `json:"defaultChainFor"`
	// Roles lists the IAM roles to assume, one at most for each registry. A
	// registry without one is asked as whoever the credentials belong to.
	Roles []RegistryRole `json:"roles"`
	// ECRPublic also serves namespaces labelled "public.ecr.aws". False by
	// default: it needs sts:GetServiceBearerToken besides the token's own right.
	ECRPublic bool `json:"ecrPublic"`
}

// RegistryRole is the IAM role for one registry.
type RegistryRole struct {
	// Registry is a host as namespaces are labelled with it, e.g.
	// "123456789012.dkr.ecr.eu-west-1.amazonaws.com". Required.
	Registry string `json:"registry"`
	// RoleARN is the role, e.g. "arn:aws:iam::123456789012:role/ecr-pull".
	// Required.
	RoleARN string `json:"roleARN"`
	// ExternalID is what the role's trust policy asks for. Empty means nothing.
	ExternalID string `json:"externalID"`
}

func defaultPullSecrets() PullSecrets {
	return PullSecrets{Enabled: true, HostNamespace: "ci-cd", CredentialsSecretPrefix: "eatr-aws-credentials"} //nolint:gosec // a name, not a credential
}

var (
	// The hosts of every partition, classic, FIPS and dual-stack, and ECR Public.
	registryRule = newRule(`^([0-9]{12}\.dkr[.-]ecr(-fips)?\.[a-z0-9][a-z0-9-]*\.`+
		`(amazonaws\.(com|com\.cn|eu)|on\.(aws|amazonwebservices\.com\.cn)|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)`+
		`|public\.ecr\.aws)$`, 128,
		`want the host of an ECR registry, such as "123456789012.dkr.ecr.eu-west-1.amazonaws.com"`)
	chainRule = newRule(`^[0-9]{12}$|`+registryRule.shape.String(), 128,
		`want the host of an ECR registry, or the 12 digits of an account, such as "123456789012"`)
	roleARNRule = newRule(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$`, 600,
		`want the ARN of an IAM role, such as "arn:aws:iam::123456789012:role/ecr-pull"`)
	// Shape and length as STS has them for AssumeRole.
	externalIDRule = newRule(`^[A-Za-z0-9_+=,.@:/-]{2,}$`, 1224, "want 2 to 1224 letters, digits and _+=,.@:/-")
)

// Namespace is where we are installed, always: the admission policies name it.
const Namespace = "chandler"

// maxPrefix leaves room for "-" and the longest host in the name of an object.
const maxPrefix = 180

func (p PullSecrets) validate(path string, ps *problems) {
	ps.dnsLabel(path+".hostNamespace", p.HostNamespace)
	if p.HostNamespace == Namespace {
		ps.add(path+".hostNamespace", p.HostNamespace, "want a namespace for registries' keys alone, such as %q: "+
			"the leader reads every Secret of it, and those of chandler's own are not all for it", "chandler-registries")
	}
	ps.objectName(path+".credentialsSecretPrefix", p.CredentialsSecretPrefix)
	if len(p.CredentialsSecretPrefix) > maxPrefix {
		ps.add(path+".credentialsSecretPrefix", p.CredentialsSecretPrefix, "want at most %d characters: a host is appended", maxPrefix)
	}
	accounts := map[string]bool{}
	for i, name := range p.PatchServiceAccounts {
		at := fmt.Sprintf("%s.patchServiceAccounts[%d]", path, i)
		ps.objectName(at, name)
		if len(name) > maxPrefix {
			ps.add(at, name, "want at most %d characters", maxPrefix)
		}
		ps.unique(at, name, accounts)
	}
	chained := map[string]bool{}
	for i, name := range p.DefaultChainFor {
		at := fmt.Sprintf("%s.defaultChainFor[%d]", path, i)
		ps.matches(at, name, chainRule)
		ps.registryDomain(at, name)
		ps.unique(at, name, chained)
	}
	registries := map[string]bool{}
	for i, r := range p.Roles {
		at := fmt.Sprintf("%s.roles[%d]", path, i)
		r.validate(at, ps)
		ps.unique(at+".registry", r.Registry, registries)
		if r.Registry == PublicRegistry && !p.ECRPublic {
			ps.add(at+".registry", r.Registry, "has no effect without %s.ecrPublic: true", path)
		}
	}
}

func (r RegistryRole) validate(path string, ps *problems) {
	ps.matches(path+".registry", r.Registry, registryRule)
	ps.registryDomain(path+".registry", r.Registry)
	ps.matches(path+".roleARN", r.RoleARN, roleARNRule)
	ps.rolePartition(path+".roleARN", r.RoleARN, r.Registry)
	if r.ExternalID != "" {
		ps.matches(path+".externalID", r.ExternalID, externalIDRule)
	}
}
