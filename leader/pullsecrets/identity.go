package pullsecrets

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Keys of a Secret with AWS keys, as eatr reads them.
const (
	regionKey       = "aws_region"
	accessKeyIDKey  = "aws_access_key_id"
	secretAccessKey = "aws_secret_access_key" // #nosec G101 -- the name of a key, not a key
	sessionTokenKey = "aws_session_token"     // #nosec G101 -- likewise
)

var (
	// The pattern of the type AccessKeyIdType:
	// https://docs.aws.amazon.com/STS/latest/APIReference/API_Credentials.html
	accessKeyIDForm = regexp.MustCompile(`^\w{16,128}$`)
	// AWS promises no form for these; white space or quotes come from a mistake.
	secretForm = regexp.MustCompile(`^[!#-&(-~]{16,}$`)
)

// accessKeys are AWS keys. The zero value means the process's own AWS identity.
type accessKeys struct {
	id      string
	secret  secretText
	session secretText // empty for lasting keys
}

// Role is an IAM role to assume before asking for a token.
type Role struct {
	// ARN is e.g. "arn:aws:iam::123456789012:role/ecr-pull". Empty means none.
	ARN string
	// ExternalID is what the role's trust policy asks for. Empty means nothing.
	ExternalID string
}

// identity is who asks where. Registries of equal identity share one token.
type identity struct {
	keys   accessKeys
	role   Role
	region string
	public bool // ask the API of ECR Public
	// A registry that is labelled by its FIPS or dual-stack host is asked for
	// through the API's host of the same form.
	fips, dualStack bool
}

func (r Registry) identity(keys accessKeys, role Role) identity {
	return identity{
		keys: keys, role: role, region: r.Region,
		public: r.Public(), fips: r.FIPS, dualStack: r.DualStack,
	}
}

// parseKeys reads AWS keys from a Secret, trimmed: a newline at the end is the
// most common mistake in making one. The error names every key that is missing
// or malformed, and no value.
func parseKeys(object *corev1.Secret) (accessKeys, error) {
	keys := accessKeys{
		id:      trimmed(object, accessKeyIDKey),
		secret:  secret(trimmed(object, secretAccessKey)),
		session: secret(trimmed(object, sessionTokenKey)),
	}
	var wrong []string
	check := func(name, value string, form *regexp.Regexp) {
		switch {
		case value == "":
			wrong = append(wrong, name+" is missing")
		case !form.MatchString(value):
			wrong = append(wrong, name+" is malformed")
		}
	}
	check(accessKeyIDKey, keys.id, accessKeyIDForm)
	check(secretAccessKey, keys.secret.reveal(), secretForm)
	if keys.session != (secretText{}) {
		check(sessionTokenKey, keys.session.reveal(), secretForm)
	}
	if len(wrong) > 0 {
		return accessKeys{}, fmt.Errorf("keys in Secret %s/%s: %s", object.Namespace, object.Name, strings.Join(wrong, ", "))
	}
	return keys, nil
}

// regionDiffers tells whether a Secret names another region than the registry's
// host does. The host is right: the token has to come from its region.
func regionDiffers(object *corev1.Secret, registry Registry) bool {
	named := trimmed(object, regionKey)
	return named != "" && named != registry.Region && !registry.Public()
}

func trimmed(object *corev1.Secret, key string) string {
	return strings.TrimSpace(string(object.Data[key]))
}
