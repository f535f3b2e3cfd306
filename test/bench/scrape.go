package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/chandler-k8s/chandler/config"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/fixtures"
	"github.com/chandler-k8s/chandler/test/pki"
)

const (
	// scrapes of each kind, one after the other as a single Prometheus does them.
	scrapes = 2000
)

// scraped is what one kind of scrapes cost.
type scraped struct {
	wall, cpu time.Duration // of all of them; cpu of the agent alone
	requests  int           // of the agent to the API server meanwhile
}

func measureScrape(ctx context.Context, binary string) (tables string, err error) {
	err = inWorld(ctx, binary, func(w *world) error {
		tables, err = w.scrapeTable(ctx)
		return err
	})
	return tables, err
}

func (w *world) scrapeTable(ctx context.Context) (_ string, err error) {
	a, err := w.newAgent(ctx, fixtures.EKSNode, leaderOff, nil)
	if err != nil {
		return "", err
	}
	address, show, err := w.serveTo(a)
	if err != nil {
		return "", err
	}
	if err := a.start(); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	if err := appear(ctx, filepath.Join(a.hostDir, "aws", "credentials.ini")); err != nil {
		return "", err
	}
	var bytes int
	kept := client(show, false)
	if bytes, err = scrape(ctx, kept, address); err != nil {
		return "", err
	}
	if err := pause(ctx, 2*time.Second); err != nil { // the requests of the start are over then
		return "", err
	}
	var open, fresh scraped
	if open, err = w.scrapeAll(ctx, a, kept, address); err != nil {
		return "", err
	}
	if fresh, err = w.scrapeAll(ctx, a, client(show, true), address); err != nil {
		return "", err
	}
	each := func(d time.Duration) string { return (d / scrapes).Round(time.Microsecond).String() }
	return table([][]string{
		{fmt.Sprintf("%s scrapes of %d bytes, one after the other", thousands(scrapes), bytes), "over one connection", "a handshake each"},
		{"scrapes a second", fmt.Sprintf("%.0f", scrapes/open.wall.Seconds()), fmt.Sprintf("%.0f", scrapes/fresh.wall.Seconds())},
		{"CPU time of the agent, a scrape", each(open.cpu), each(fresh.cpu)},
		{"requests of the agent to the API server, a scrape", perScrape(open), perScrape(fresh)},
	}), nil
}

func perScrape(s scraped) string { return fmt.Sprintf("%.3g", float64(s.requests)/scrapes) }

// serveTo has an agent serve metrics at a free port to the certificate that it
// returns.
func (w *world) serveTo(a *agent) (address string, show tls.Certificate, err error) {
	ca, err := pki.NewAuthority("clients")
	if err != nil {
		return "", show, err
	}
	pair, err := ca.Client(config.Default().Scraper.CommonName)
	if err != nil {
		return "", show, err
	}
	dir := filepath.Dir(a.hostDir)
	if err := ca.Write(dir, "clients"); err != nil {
		return "", show, err
	}
	if address, err = freeAddress(); err != nil {
		return "", show, err
	}
	return address, pair.TLS(), a.configure(`{address: "127.0.0.1:0",`,
		fmt.Sprintf("{address: %q, clientCAFile: %q,", address, filepath.Join(dir, "clients.crt")))
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// configure replaces a part of the agent's configuration.
func (a *agent) configure(before, after string) error {
	file := filepath.Join(filepath.Dir(a.hostDir), "config.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(strings.Replace(string(text), before, after, 1)), 0o600)
}

func client(show tls.Certificate, handshakes bool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: handshakes, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{
			InsecureSkipVerify: true, //nolint:gosec // the agent's certificate is its own
			Certificates:       []tls.Certificate{show},
		},
	}}
}

func (w *world) scrapeAll(ctx context.Context, a *agent, c *http.Client, address string) (s scraped, err error) {
	mark, err := w.Mark()
	if err != nil {
		return s, err
	}
	before, err := a.cpu()
	if err != nil {
		return s, err
	}
	begin := time.Now()
	for range scrapes {
		if _, err := scrape(ctx, c, address); err != nil {
			return s, err
		}
	}
	s.wall = time.Since(begin)
	after, err := a.cpu()
	if err != nil {
		return s, err
	}
	s.cpu = after - before
	requests, err := w.Requests(mark)
	s.requests = requests.Where(cluster.User(cluster.ServiceAccountUser(fixtures.Namespace, fixtures.ServiceAccount))).Total()
	return s, err
}

func scrape(ctx context.Context, c *http.Client, address string) (bytes int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("scrape: %s: %s", resp.Status, body)
	}
	return len(body), nil
}
