package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// scrape shows the certificates of the nodes: who may read metrics by them, who not,
// and that they are replaced before they end.
func (d *demo) scrape(ctx context.Context) error {
	for _, n := range d.nodes {
		leaf, err := n.certificate(ctx, nil)
		if err != nil {
			return err
		}
		say(d.out, "%s has a scraper certificate: CN=%s, SAN %s, until %s", n.name,
			leaf.Subject.CommonName, strings.Join(leaf.DNSNames, ", "), leaf.NotAfter.Format(time.TimeOnly))
	}
	client, target := d.nodes[0], d.nodes[1]
	if err := d.scrapeOnce(ctx, client, target, true); err != nil {
		return err
	}
	if err := d.scrapeOnce(ctx, client, target, false); err != nil {
		return err
	}
	leaf, err := client.certificate(ctx, nil)
	if err != nil {
		return err
	}
	say(d.out, "waiting for the next certificate of %s, which is due every %s here", client.name, renewAfter)
	next, err := client.certificate(ctx, leaf)
	if err != nil {
		return err
	}
	say(d.out, "serial number %x… has replaced %x…", next.SerialNumber.Bytes()[:4], leaf.SerialNumber.Bytes()[:4])
	return d.scrapeOnce(ctx, client, target, true)
}

// certificate waits for one other than the one named.
func (n *node) certificate(ctx context.Context, besides *x509.Certificate) (*x509.Certificate, error) {
	var leaf *x509.Certificate
	err := n.poll(ctx, func() bool {
		data, err := os.ReadFile(filepath.Join(n.hostDir, "scraper", "tls.crt"))
		if err != nil {
			return false
		}
		block, _ := pem.Decode(data)
		if block == nil {
			return false
		}
		leaf, err = x509.ParseCertificate(block.Bytes)
		return err == nil && (besides == nil || !leaf.Equal(besides))
	})
	return leaf, err
}

// scrapeOnce gets the metrics of one node by the files of another, or without.
func (d *demo) scrapeOnce(ctx context.Context, client, target *node, withCertificate bool) error {
	config := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // agents here make their own serving certificates
	what := "without a certificate"
	if withCertificate {
		what = "with the certificate of " + client.name
		both, err := os.ReadFile(filepath.Join(client.hostDir, "scraper", "tls.pem"))
		if err != nil {
			return err
		}
		pair, err := tls.X509KeyPair(both, both)
		if err != nil {
			return err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+target.metrics+"/metrics", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if accepted := resp.StatusCode == http.StatusOK; accepted != withCertificate {
		return fmt.Errorf("scrape of %s %s: %s: %.200s", target.name, what, resp.Status, body)
	}
	text := string(body)
	if withCertificate {
		text = fmt.Sprintf("%d lines", strings.Count(text, "\n"))
	}
	say(d.out, "scrape of %s %s: %s: %s", target.name, what, resp.Status, strings.TrimSpace(text))
	return nil
}
