package scrapercsr_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/chandler-k8s/chandler/leader/scrapercsr"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// defaults are the rules of a configuration of two header lines.
func defaults() scrapercsr.Rules {
	return scrapercsr.Rules{
		Namespace: fixtures.Namespace, CommonName: fixtures.ScraperCommonName, SignerName: fixtures.ScraperSigner,
		LongestLife: fixtures.ScraperSeconds * time.Second,
	}
}

// TestPolicies holds the policies in the chart to what is generated for the default
// configuration with either signer, and shows others.
func TestPolicies(t *testing.T) {
	chart := filepath.Join("..", "..", "deploy", "chart", "files")
	signed := defaults()
	signed.SignerName = scrapercsr.OwnSigner
	own := defaults()
	own.CommonName, own.SignerName, own.LongestLife = "scraper@example", scrapercsr.OwnSigner, time.Hour
	for name, tt := range map[string]struct {
		rules scrapercsr.Rules
		file  string
	}{
		"default":      {defaults(), filepath.Join(chart, "csrapproval-policies.yaml")},
		"own signer":   {signed, filepath.Join(chart, "csrapproval-policies-own.yaml")},
		"another name": {own, filepath.Join("testdata", "policies-own.yaml")},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := scrapercsr.Policies(tt.rules)
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(tt.file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(tt.file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(got), string(want)); diff != "" {
				t.Errorf("%s is stale, run make golden (-got +want):\n%s", tt.file, diff)
			}
		})
	}
}
