package serving

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// maxUnproven is how many clients may have a connection without having shown
	// who they are. A scraper needs that for as long as a handshake takes.
	maxUnproven = 32
	// maxProven is more than any cluster has scrapers.
	maxProven = 64
	// maxOpen also counts connections that are closed while the server still works
	// on them: net/http may take half a second to give one up.
	maxOpen = 256
)

// bounded is a listener on which no number of clients exhausts the memory of the
// process. A new connection displaces another when there are too many, so that
// connections that do nothing keep nobody out. Which one depends on the gate: a
// connection is unproven until the gate admits a request that came by it.
type bounded struct {
	net.Listener
	displaced prometheus.Counter
	places    chan struct{} // holds one for every connection that the server has not closed

	mu       sync.Mutex    // guards the rest
	unproven []*connection // oldest first
	proven   []*connection // the one whose last request is oldest first
}

func newBounded(l net.Listener, displaced prometheus.Counter) *bounded {
	return &bounded{Listener: l, displaced: displaced, places: make(chan struct{}, maxOpen)}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	b.places <- struct{}{}
	accepted, err := b.Listener.Accept()
	if err != nil {
		<-b.places
		return nil, err
	}
	c := &connection{Conn: accepted, listener: b, source: source(accepted.RemoteAddr().String())}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unproven = append(b.unproven, c)
	if len(b.unproven) > maxUnproven {
		b.displace(crowding(b.unproven))
	}
	return c, nil
}

// crowding returns the oldest connection of the source that has most of them: a
// flood from one source displaces itself.
func crowding(unproven []*connection) *connection {
	held := map[string]int{}
	for _, c := range unproven {
		held[c.source]++
	}
	return slices.MaxFunc(unproven, func(a, b *connection) int { return cmp.Compare(held[a.source], held[b.source]) })
}

// displace closes a connection under the server, which then gives it up. The
// caller holds mu.
func (b *bounded) displace(c *connection) {
	b.forget(c)
	b.displaced.Inc()
	_ = c.Conn.Close() // nothing can be done about it
}

// forget takes a connection off its list and tells whether it was on one. The
// caller holds mu.
func (b *bounded) forget(c *connection) (known bool) {
	for _, list := range []*[]*connection{&b.unproven, &b.proven} {
		if i := slices.Index(*list, c); i >= 0 {
			*list = slices.Delete(*list, i, i+1)
			return true
		}
	}
	return false
}

// connection is one of a bounded listener.
type connection struct {
	net.Conn
	listener *bounded
	source   string // of source
	closed   sync.Once
}

// Close implements net.Conn for the server, which has then done with it.
func (c *connection) Close() error {
	c.closed.Do(func() {
		c.listener.mu.Lock()
		c.listener.forget(c)
		c.listener.mu.Unlock()
		<-c.listener.places
	})
	return c.Conn.Close()
}

// prove keeps the connection from being displaced by those that are unproven.
func (c *connection) prove() {
	b := c.listener
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.forget(c) {
		return // it has just been displaced
	}
	b.proven = append(b.proven, c)
	if len(b.proven) > maxProven {
		b.displace(b.proven[0])
	}
}

type connectionKey struct{}

// withConnection is a server's ConnContext.
func withConnection(ctx context.Context, c net.Conn) context.Context {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	return context.WithValue(ctx, connectionKey{}, c)
}

// proves marks the connection that a request came by.
func proves(r *http.Request) {
	if c, ok := r.Context().Value(connectionKey{}).(*connection); ok {
		c.prove()
	}
}

// source is whom clients are told apart by: the host of an address, e.g. "10.0.3.7" of
// "10.0.3.7:41234", and of IPv6 its network, e.g. "2001:db8::/64", since a machine may
// have all of the addresses in it.
func source(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if ip = ip.Unmap(); ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip.WithZone(""), 64).Masked().String()
}
