package clusterstatus_test

import (
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/chandler-k8s/chandler/test/expect"
)

// proxy forwards connections until it is frozen: then it forwards no byte, new
// connections included, and says nothing.
type proxy struct {
	address string
	frozen  atomic.Bool
}

func startProxy(t *testing.T, to string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	expect.OK(t, err)
	p := &proxy{address: listener.Addr().String()}
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	keep := func(c net.Conn) net.Conn {
		mu.Lock()
		defer mu.Unlock()
		open[c] = true
		return c
	}
	t.Cleanup(func() {
		expect.OK(t, listener.Close())
		mu.Lock()
		defer mu.Unlock()
		for c := range maps.Keys(open) {
			_ = c.Close()
		}
	})
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			go p.pipe(keep(in), keep(out))
			go p.pipe(keep(out), keep(in))
		}
	}()
	return p
}

func (p *proxy) pipe(from, to net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if !p.frozen.Load() {
			_, _ = to.Write(buffer[:n])
			if err != nil {
				_ = to.Close()
			}
		}
		if err != nil {
			return
		}
	}
}
