package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/chandler-k8s/chandler/test/fixtures"
)

const (
	// idlers are the connections of a flood, opened by some clients at a time.
	idlers, openers = 10_000, 64
	// heldFor is how long they are left open after the last.
	heldFor = 10 * time.Second
)

// flooded is what idle connections to one server of an agent cost.
type flooded struct {
	steady, largest   float64 // mebibytes
	open              int     // connections, after the last was opened
	answered, scrapes int     // meanwhile, over a new connection each
}

func measureConnections(ctx context.Context, binary string) (tables string, err error) {
	err = inWorld(ctx, binary, func(w *world) error {
		metrics, err := w.flood(ctx, true)
		if err != nil {
			return err
		}
		health, err := w.flood(ctx, false)
		if err != nil {
			return err
		}
		tables = connectionsTable(metrics, health)
		return nil
	})
	return tables, err
}

func connectionsTable(metrics, health flooded) string {
	rows := [][]string{
		{thousands(idlers) + " connections of clients that show no certificate and send no request", "to `serving.address`", "to `serving.healthAddress`", "budget"},
		{"resident memory before them (VmRSS)"}, {"largest meanwhile"}, {"more by"}, {"open after the last"}, {"scrapes meanwhile that were answered"},
	}
	for _, f := range []flooded{metrics, health} {
		for i, cell := range []string{
			mebibytes(f.steady), mebibytes(f.largest), mebibytes(f.largest - f.steady), fmt.Sprint(f.open), fmt.Sprintf("%d of %d", f.answered, f.scrapes),
		} {
			rows[i+1] = append(rows[i+1], cell)
		}
	}
	for i, budget := range []string{"", "", "16 MiB", "", "all"} {
		rows[i+1] = append(rows[i+1], budget)
	}
	return table(rows)
}

// flood opens idle connections to one of the two servers of a new agent.
func (w *world) flood(ctx context.Context, toMetrics bool) (f flooded, err error) {
	a, err := w.newAgent(ctx, fixtures.EKSNode, leaderOff, nil)
	if err != nil {
		return f, err
	}
	address, show, err := w.serveTo(a)
	if err != nil {
		return f, err
	}
	target := address
	if !toMetrics {
		if target, err = serveHealth(a); err != nil {
			return f, err
		}
	}
	if err := a.start(); err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	if err := appear(ctx, filepath.Join(a.hostDir, "aws", "credentials.ini")); err != nil {
		return f, err
	}
	for range 10 { // what a scrape itself takes is not the flood's
		if _, err := scrape(ctx, client(show, true), address); err != nil {
			return f, err
		}
	}
	if f.steady, err = a.memory(); err != nil {
		return f, err
	}
	before, err := a.descriptors()
	if err != nil {
		return f, err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	watched := make(chan error, 1)
	go func() {
		watched <- f.watch(watching, a, func() error { _, err := scrape(watching, client(show, true), address); return err })
	}()
	idle := openIdle(ctx, target, toMetrics)
	after, err := a.descriptors()
	f.open = after - before
	err = errors.Join(err, pause(ctx, heldFor))
	stop()
	err = errors.Join(err, <-watched)
	for _, c := range idle {
		_ = c.Close() // most are closed by the agent
	}
	return f, err
}

// watch reads the agent's memory and scrapes it until ctx ends.
func (f *flooded) watch(ctx context.Context, a *agent, scrape func() error) error {
	for n := 0; pause(ctx, 50*time.Millisecond) == nil; n++ {
		now, err := a.memory()
		if err != nil {
			return err
		}
		f.largest = max(f.largest, now)
		if n%10 == 0 {
			f.count(ctx, scrape)
		}
	}
	return nil
}

// count scrapes once and counts that, and whether it was answered, unless ctx ended
// meanwhile.
func (f *flooded) count(ctx context.Context, scrape func() error) {
	err := scrape()
	if ctx.Err() != nil {
		return
	}
	f.scrapes++
	if err == nil {
		f.answered++
	} else {
		progress("scrape: %v", err)
	}
}

// serveHealth has an agent serve health at a free port.
func serveHealth(a *agent) (address string, err error) {
	if address, err = freeAddress(); err != nil {
		return "", err
	}
	return address, a.configure(`healthAddress: "127.0.0.1:0"`, fmt.Sprintf("healthAddress: %q", address))
}

// openIdle opens connections from an address that no scraper has, and leaves them.
// Those that the agent closes at once count, too.
func openIdle(ctx context.Context, address string, secure bool) (all []net.Conn) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: time.Minute}
	var mu sync.Mutex
	var opening errgroup.Group
	opening.SetLimit(openers)
	for range idlers {
		opening.Go(func() error {
			conn, err := dialer.DialContext(ctx, "tcp", address)
			if err == nil && secure {
				conn, err = greet(ctx, conn)
			}
			if err == nil {
				mu.Lock()
				all = append(all, conn)
				mu.Unlock()
			}
			return nil
		})
	}
	_ = opening.Wait() // none fails
	return all
}

// greet does what a client of HTTP/2 does before its first request, or only the
// handshake where the server speaks HTTP/1.1.
func greet(ctx context.Context, conn net.Conn) (net.Conn, error) {
	secure := tls.Client(conn, &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // the agent's certificate is its own
		NextProtos:         []string{"h2", "http/1.1"},
	})
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if secure.ConnectionState().NegotiatedProtocol == "h2" {
		const emptySettings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
		_, err := io.WriteString(secure, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+emptySettings)
		return secure, err
	}
	return secure, nil
}

// descriptors counts the files and sockets that the process has open.
func (a *agent) descriptors() (int, error) {
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.process.Process.Pid))
	return len(open), err
}
