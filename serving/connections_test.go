package serving

import (
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestCrowding(t *testing.T) {
	for name, test := range map[string]struct {
		sources string // of the unproven connections, oldest first
		want    int
	}{
		"one source":                        {"a a a", 0},
		"the newcomer alone":                {"a a b", 0},
		"a flood after a scraper":           {"s a a a", 1},
		"a flood around a scraper":          {"a s a a", 0},
		"a newcomer of the largest":         {"b b s a a a", 3},
		"two of the same size":              {"s b a a b", 1},
		"each source has one":               {"a b c", 0},
		"the largest is not the first seen": {"s s a a a", 2},
	} {
		t.Run(name, func(t *testing.T) {
			var unproven []*connection
			for s := range strings.FieldsSeq(test.sources) {
				unproven = append(unproven, &connection{source: s})
			}
			if got := crowding(unproven); got != unproven[test.want] {
				t.Errorf("got the one at %d, want %d", indexOf(unproven, got), test.want)
			}
		})
	}
}

func TestSource(t *testing.T) {
	for address, want := range map[string]string{
		"10.0.3.7:41234":                 "10.0.3.7",
		"[::ffff:10.0.3.7]:41234":        "10.0.3.7",
		"[2001:db8:1:2:3:4:5:6]:41234":   "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::]:41234":    "2001:db8:1:2::/64",
		"[2001:db8:1:3:3:4:5:6]:41234":   "2001:db8:1:3::/64",
		"[fe80::1%eth0]:41234":           "fe80::/64",
		"pipe":                           "pipe",
		"not-an-address.example.com:443": "not-an-address.example.com",
	} {
		if got := source(address); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
}

func indexOf(all []*connection, one *connection) int {
	for i, c := range all {
		if c == one {
			return i
		}
	}
	return -1
}

// pipes is a listener whose clients are in this process.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) { return <-p, nil }
func (p pipes) Close() error              { return nil }
func (p pipes) Addr() net.Addr            { return nil }

// TestConnectionsAreBounded counts what a bounded listener keeps open.
func TestConnectionsAreBounded(t *testing.T) {
	arriving := make(pipes, 1)
	b := newBounded(arriving, prometheus.NewCounter(prometheus.CounterOpts{Name: "displaced"}))
	accept := func() (*connection, net.Conn) {
		server, client := net.Pipe()
		arriving <- server
		accepted, err := b.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return accepted.(*connection), client
	}
	want := func(when string, unproven, proven, open int, displaced float64) {
		t.Helper()
		got := []int{len(b.unproven), len(b.proven), len(b.places), int(testutil.ToFloat64(b.displaced))}
		if diff := cmp.Diff([]int{unproven, proven, open, int(displaced)}, got); diff != "" {
			t.Errorf("%s: unproven, proven, open, displaced -want +got:\n%s", when, diff)
		}
	}
	var all []*connection
	for range maxProven + 1 {
		c, _ := accept()
		c.prove()
		c.prove() // a second request changes nothing
		all = append(all, c)
	}
	want("one scraper too many", 0, maxProven, maxProven+1, 1)
	var clients []net.Conn
	for range maxUnproven + 1 {
		c, client := accept()
		all, clients = append(all, c), append(clients, client)
	}
	want("one without a request too many", maxUnproven, maxProven, maxProven+maxUnproven+2, 2)
	if _, err := clients[0].Read(make([]byte, 1)); err == nil {
		t.Error("the oldest of them is still open")
	}
	all[maxProven+1].prove() // its request came too late
	want("a displaced connection proves itself", maxUnproven, maxProven, maxProven+maxUnproven+2, 2)
	for _, c := range all {
		_, _ = c.Close(), c.Close()
	}
	want("all are closed", 0, 0, 0, 2)
}
