package config

import (
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// The signers that chandler knows. Any other qualified name is taken for a
// signer that somebody else runs.
const (
	// SignerKubernetes is the control plane's own signer for client certificates.
	SignerKubernetes = "kubernetes.io/kube-apiserver-client"
	// SignerChandler is ours: the leader signs with a CA of its own. It is for
	// control planes that do not sign, such as managed EKS.
	SignerChandler = "chandler.dev/scraper-client"
)

// Scraper is about the client certificate with which Prometheus on the node
// scrapes. The same values on every node and on the leader, or requests are not
// approved.
type Scraper struct {
	// Enabled is true by default. False requests no certificate and publishes no
	// "scraper" set.
	Enabled bool `json:"enabled"`
	// CommonName is the certificate's subject, the user name that targets see,
	// e.g. "system:serviceaccount:openshift-monitoring:prometheus-k8s". Every
	// node gets that user's rights.
	CommonName string `json:"commonName"`
	// SignerName says who signs: SignerKubernetes, SignerChandler or the
	// qualified name of another signer.
	SignerName string `json:"signerName"`
	// Duration is the life of a certificate that is asked for; the signer may
	// give less. At least 10m.
	Duration metav1.Duration `json:"duration"`
	// RenewAfter replaces a certificate this long after it was obtained, less up to a
	// tenth, if its own life does not ask for that earlier: a shorter time leaves more
	// of its life for an outage of the API server. At least 1s and less than duration;
	// 0s, the default, means at 70 to 80 % of its life.
	RenewAfter metav1.Duration `json:"renewAfter"`
	// CAFile is the path of a PEM bundle that is appended to ca.crt, for targets whose
	// certificates the cluster's CA has not signed. It is read anew when it changes.
	// Empty means the cluster's CA alone.
	CAFile string `json:"caFile"`
	// Files says who may read the key.
	Files Files `json:"files"`
}

func defaultScraper() Scraper {
	return Scraper{
		Enabled:    true,
		CommonName: "system:serviceaccount:openshift-monitoring:prometheus-k8s",
		SignerName: SignerKubernetes,
		Duration:   metav1.Duration{Duration: 720 * time.Hour},
		Files:      defaultFiles(),
	}
}

// 116 bytes are the most with which the subject's ASN.1 lengths take one byte
// each, as the admission policy that pins the common name requires.
var commonNameRule = newRule(`^[A-Za-z0-9][A-Za-z0-9._:@/+=-]*$`, 116,
	"want at most 116 letters, digits and ._:@/+=- beginning with a letter or digit: an admission policy pins it byte by byte")

func (s Scraper) validate(path string, ps *problems) {
	ps.matches(path+".commonName", s.CommonName, commonNameRule)
	s.validateUser(path+".commonName", ps)
	s.validateSigner(path+".signerName", ps)
	ps.duration(path+".duration", s.Duration, 10*time.Minute, 365*24*time.Hour,
		"the API refuses expirationSeconds below 600, and a key that leaks should not serve for more than a year")
	if s.RenewAfter.Duration != 0 {
		ps.duration(path+".renewAfter", s.RenewAfter, time.Second, max(time.Second, s.Duration.Duration-time.Second),
			"each renewal is a request to the cluster, and one that comes after the certificate's end is none")
	}
	if s.CAFile != "" {
		ps.absolutePath(path+".caFile", s.CAFile)
	}
	s.Files.validate(path+".files", ps)
}

// validateUser refuses common names that mean a component of the cluster, or
// chandler: any node could then act as it.
func (s Scraper) validateUser(at string, ps *problems) {
	rest, system := strings.CutPrefix(s.CommonName, "system:")
	if !system {
		return
	}
	parts := strings.Split(rest, ":")
	switch {
	case len(parts) != 3 || parts[0] != "serviceaccount" ||
		len(validation.IsDNS1123Label(parts[1])) > 0 || len(validation.IsDNS1123Subdomain(parts[2])) > 0:
		ps.add(at, s.CommonName, "want system:serviceaccount:NAMESPACE:NAME, or a name outside system: "+
			"every node gets this user's rights, and the other system: names are components of the cluster")
	case parts[1] == "chandler":
		ps.add(at, s.CommonName, "want a ServiceAccount that is not chandler's: every node would get the leader's rights")
	}
}

// validateSigner holds signerName to the API's own rules.
func (s Scraper) validateSigner(at string, ps *problems) {
	domain, name, ok := strings.Cut(s.SignerName, "/")
	kubernetes := domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io")
	switch {
	case slices.Contains([]string{SignerKubernetes, SignerChandler}, s.SignerName):
	case !ok || !strings.Contains(domain, ".") || len(validation.IsDNS1123Subdomain(domain)) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0:
		ps.add(at, s.SignerName, "want %s or another name of the form DOMAIN/NAME", alternatives([]string{SignerKubernetes, SignerChandler}))
	case kubernetes:
		ps.add(at, s.SignerName, "want %q: the other signers of kubernetes.io do not sign scraper certificates", SignerKubernetes)
	}
}
