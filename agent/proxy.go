package agent

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"k8s.io/client-go/rest"
)

// proxyFor is the Proxy function of every transport that the process makes: what
// HTTP_PROXY, HTTPS_PROXY and NO_PROXY say, and never a proxy for what is on the node
// or its link. A proxy would answer for another machine's metadata, and would see the
// token with which a pod asks for its credentials.
func proxyFor(r *http.Request) (*url.URL, error) {
	if nodeLocal(r.URL.Hostname()) {
		return nil, nil
	}
	return http.ProxyFromEnvironment(r)
}

// awsReserved has the metadata service and Pod Identity on nodes with IPv6:
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
var awsReserved = netip.MustParsePrefix("fd00:ec2::/32")

// nodeLocal reports whether a host is this node or on its link, as far as its name
// says. Linux connects the unspecified addresses, 0.0.0.0 and ::, to this node.
func nodeLocal(host string) bool {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		name := strings.ToLower(strings.TrimSuffix(host, "."))
		return name == "localhost" || strings.HasSuffix(name, ".localhost")
	}
	addr = addr.Unmap().WithZone("")
	return addr.IsLoopback() || addr.IsUnspecified() || addr.IsLinkLocalUnicast() || awsReserved.Contains(addr)
}

// bypassProxy does the same for clients of an API server, where the environment would
// have a proxy. It does so only then: clients whose Config has a Proxy function share
// no connections.
func bypassProxy(cfg *rest.Config) error {
	server, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return err
	}
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: server})
	if cfg.Proxy == nil && (proxy != nil || err != nil) && nodeLocal(server.Hostname()) {
		cfg.Proxy = proxyFor
	}
	return nil
}
