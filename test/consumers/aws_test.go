package consumers_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fakeaws"
	"github.com/chandler-k8s/chandler/test/pki"
)

const (
	region   = "eu-west-1"
	account  = "123456789012"
	roleARN  = "arn:aws:iam::" + account + ":role/exporter"
	nodeRole = "arn:aws:iam::" + account + ":role/node"

	regionalSTS, globalSTS = "sts.eu-west-1.amazonaws.com", "sts.amazonaws.com"
)

// cloud is AWS under its own host names: a proxy that leads them to fakeaws.
type cloud struct {
	*fakeaws.Server
	node  *fakeaws.IMDS
	proxy string // URL
	ca    string // file that the proxy's certificate is verified with

	mu    sync.Mutex
	hosts map[string][]string // by action, those that were asked
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	aws, err := fakeaws.Listen(fakeaws.Options{Account: account})
	expect.OK(t, err)
	t.Cleanup(func() { expect.OK(t, aws.Close()) })
	aws.SetRole(fakeaws.Role{ARN: roleARN, WebIdentity: func(string) (string, error) { return "system:serviceaccount:monitoring:exporter", nil }})
	aws.SetRole(fakeaws.Role{ARN: nodeRole})
	node, err := aws.AddInstance(fakeaws.Instance{Region: region, Role: nodeRole})
	expect.OK(t, err)
	c := &cloud{Server: aws, node: node, hosts: map[string][]string{}}
	authority, err := pki.NewAuthority("cloud")
	expect.OK(t, err)
	dir := t.TempDir()
	expect.OK(t, authority.Write(dir, "ca"))
	c.ca = filepath.Join(dir, "ca.crt")
	pair, err := authority.Server([]string{regionalSTS, globalSTS})
	expect.OK(t, err)
	target, err := url.Parse(aws.URL())
	expect.OK(t, err)
	inner := httptest.NewUnstartedServer(c.recorded(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // it is signed
	}}))
	inner.TLS = &tls.Config{Certificates: []tls.Certificate{pair.TLS()}}
	inner.StartTLS()
	t.Cleanup(inner.Close)
	outer := httptest.NewServer(tunnelTo(inner.Listener.Addr().String()))
	t.Cleanup(outer.Close)
	c.proxy = outer.URL
	return c
}

// recorded keeps which host each action was asked of.
func (c *cloud) recorded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		form, invalid := url.ParseQuery(string(body))
		if err != nil || invalid != nil {
			http.Error(w, "not a form", http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		action := form.Get("Action")
		c.hosts[action] = append(c.hosts[action], r.Host)
		c.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// asked returns the hosts that the role was asked of, and forgets them.
func (c *cloud) asked() []string {
	const action = "AssumeRoleWithWebIdentity"
	c.mu.Lock()
	defer c.mu.Unlock()
	hosts := c.hosts[action]
	delete(c.hosts, action)
	return slices.Compact(hosts) // a slow answer is asked for again
}

// tunnelTo answers CONNECT, to whatever host, with a connection to one address.
func tunnelTo(address string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		server, err := new(net.Dialer).DialContext(r.Context(), "tcp", address)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer server.Close()
		client, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer client.Close()
		io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() {
			io.Copy(server, client)
			server.Close()
		}()
		io.Copy(client, server)
	})
}
