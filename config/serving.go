package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Serving is about the agent's own endpoints.
type Serving struct {
	// Address is where /metrics is served over HTTPS, e.g. ":9464". Empty serves
	// no metrics. Port 0 means a free one.
	Address string `json:"address"`
	// HealthAddress is where /healthz and /readyz are served over plain HTTP, for
	// kubelet, e.g. ":9465". Required.
	HealthAddress string `json:"healthAddress"`
	// TLSCertFile is the path of the serving certificate in PEM, with its chain.
	// Empty, together with TLSPrivateKeyFile, means that the agent makes and
	// rotates one itself.
	TLSCertFile string `json:"tlsCertFile"`
	// TLSPrivateKeyFile is the path of its key in PEM.
	TLSPrivateKeyFile string `json:"tlsPrivateKeyFile"`
	// ClusterClientCA accepts client certificates of the CA in ConfigMap
	// kube-system/extension-apiserver-authentication. True by default.
	ClusterClientCA bool `json:"clusterClientCA"`
	// ClientCAFile is the path of a PEM bundle of further CAs whose client
	// certificates are accepted. Empty means none.
	ClientCAFile string `json:"clientCAFile"`
	// AllowedUsers lists the user names (common names) that may read /metrics.
	// Absent means scraper.commonName alone; an empty list means nobody, unless
	// by AllowedGroups or Delegation.
	AllowedUsers []string `json:"allowedUsers"`
	// AllowedGroups lists the groups (organizations) that may read /metrics.
	// Empty means none.
	AllowedGroups []string `json:"allowedGroups"`
	// Delegation also accepts bearer tokens and asks the API server who they
	// belong to and whether that user may read /metrics. False by default:
	// scrapes should work while the API server is down.
	Delegation bool `json:"delegation"`
}

func defaultServing() Serving {
	return Serving{Address: ":9464", HealthAddress: ":9465", ClusterClientCA: true}
}

func (s Serving) validate(path string, ps *problems) {
	if s.Address != "" {
		validateAddress(path+".address", s.Address, ps)
		s.validateClients(path, ps)
	}
	validateAddress(path+".healthAddress", s.HealthAddress, ps)
	if samePort(s.Address, s.HealthAddress) {
		ps.add(path+".healthAddress", s.HealthAddress, "want another port than that of %s.address", path)
	}
	for _, f := range []struct{ key, file string }{
		{"tlsCertFile", s.TLSCertFile}, {"tlsPrivateKeyFile", s.TLSPrivateKeyFile}, {"clientCAFile", s.ClientCAFile},
	} {
		if f.file != "" {
			ps.absolutePath(path+"."+f.key, f.file)
		}
	}
	if (s.TLSCertFile == "") != (s.TLSPrivateKeyFile == "") {
		ps.addBare(path+".tlsPrivateKeyFile", "want both tlsCertFile and tlsPrivateKeyFile, or neither")
	}
	validateUsers(path+".allowedUsers", s.AllowedUsers, ps)
	validateUsers(path+".allowedGroups", s.AllowedGroups, ps)
}

// validateClients makes sure that somebody can authenticate.
func (s Serving) validateClients(path string, ps *problems) {
	if !s.ClusterClientCA && s.ClientCAFile == "" && !s.Delegation {
		ps.addBare(path+".clusterClientCA", "nobody could authenticate: want clusterClientCA: true, a clientCAFile or "+
			"delegation: true; an empty address serves no metrics")
	}
}

func validateUsers(path string, list []string, ps *problems) {
	seen := map[string]bool{}
	for i, name := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if name == "" || !printableASCII(name) || strings.TrimSpace(name) != name {
			ps.add(at, name, "want a name of printable ASCII characters, without spaces around it")
		}
		ps.unique(at, name, seen)
	}
}

func validateAddress(path, value string, ps *problems) {
	host, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err == nil && host != "" && len(validation.IsDNS1123Subdomain(host)) > 0 {
		_, err = netip.ParseAddr(host)
	}
	if err != nil {
		ps.add(path, value, "want [HOST]:PORT, such as %q or %q", ":9464", "127.0.0.1:9464")
	}
}

// samePort reports whether one of two listeners would keep the other from
// starting. Those on different hosts, or on any free port, would not.
func samePort(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	return hostA == hostB || everyAddress(hostA) || everyAddress(hostB)
}

func everyAddress(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "" || err == nil && addr.IsUnspecified()
}
