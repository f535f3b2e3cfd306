// Package config owns the one configuration file: its types, defaults, rules
// and JSON schema. Each section lives in a file of its own, types above rules.
//
// It refuses unknown and repeated keys, wrong types and values out of range; it
// never clamps, skips or guesses, and it reports every problem of a file at
// once. It reads no environment, watches nothing and knows no other package of
// ours: packages cli and agent call it and pass the sections down.
package config

import (
	"fmt"
	"io"
	"os"
	"slices"
)

// The first two lines of every file. A file of these two alone is valid.
const (
	APIVersion = "chandler.dev/v1alpha1"
	Kind       = "Config"
)

// maxBytes bounds a file. A ConfigMap, where the file usually comes from, holds
// at most 1 MiB.
const maxBytes = 1 << 20

// Config is the whole file. A key that is absent, or has no value, means the
// default; an explicit false, 0, "" or [] is kept as it is.
type Config struct {
	// APIVersion is always "chandler.dev/v1alpha1".
	APIVersion string `json:"apiVersion"`
	// Kind is always "Config".
	Kind string `json:"kind"`
	// HostDir is the directory on the node under which every file set is
	// published, e.g. "/var/lib/chandler". Absolute and clean.
	HostDir string `json:"hostDir"`
	// Identity states facts about the cluster that are otherwise discovered.
	Identity Identity `json:"identity"`
	// AWSCredentials has one entry for each mounted Secret. Absent means one
	// entry called "default"; an empty list publishes no AWS files.
	AWSCredentials []AWSCredential `json:"awsCredentials"`
	// Scraper is about the client certificate of the node's Prometheus.
	Scraper Scraper `json:"scraper"`
	// Leader is about the cluster-wide tasks, which one elected replica does.
	Leader Leader `json:"leader"`
	// Serving is about the agent's own HTTP endpoints.
	Serving Serving `json:"serving"`
}

// Default returns what a file of the two header lines means. It is valid.
func Default() *Config {
	return &Config{
		APIVersion:     APIVersion,
		Kind:           Kind,
		HostDir:        "/var/lib/chandler",
		AWSCredentials: defaultAWSCredentials(),
		Scraper:        defaultScraper(),
		Leader:         defaultLeader(),
		Serving:        defaultServing(),
	}
}

// Load reads, decodes and validates the file at path. The error wraps what the
// operating system said, testable with errors.Is (fs.ErrNotExist), or the
// Problems of the content. It is safe to repeat: that is how a file is reloaded.
func Load(path string) (*Config, error) {
	data, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	cfg, err := Decode(data)
	if err != nil {
		return nil, fmt.Errorf("config %s:\n%w", path, err)
	}
	return cfg, nil
}

// read returns at most one byte more than Decode accepts.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // nothing was written that closing could lose
	return io.ReadAll(io.LimitReader(f, maxBytes+1))
}

// Decode reads one YAML (or JSON) document onto the defaults and validates the
// result. The error joins a Problem for each thing that is wrong, in the order of
// the file; Problems takes it apart.
func Decode(data []byte) (*Config, error) {
	cfg := Default()
	cfg.APIVersion, cfg.Kind = "", "" // every file says them itself

	root, found := parse(data)
	d := newDecoder()
	if root != nil {
		d.decode(root, cfg)
		found = append(found, d.found...)
	}
	if root != nil && !d.overflow() {
		found = append(found, slices.DeleteFunc(cfg.validate(), func(p Problem) bool { return d.reported(p.Path) })...)
	}
	if len(found) == 0 {
		return cfg, nil
	}
	return nil, d.join(found)
}

// Warnings lists, in words fit for a log line, what the file says and chandler
// ignores, or what is valid and likely to be a slip. None means nil.
func (c *Config) Warnings() []string {
	out := c.regionWarnings()
	if c.Leader.ClusterStatus.Logging {
		out = append(out, "leader.clusterStatus.logging is ignored: use the flags --log-level and --log-format")
	}
	if c.Scraper.Enabled && c.Scraper.SignerName == SignerChandler && c.Serving.Address != "" && c.Serving.ClientCAFile == "" {
		out = append(out, "serving.clientCAFile is not set: nobody gets /metrics of chandler itself by certificates of "+SignerChandler+
			"; mount its ConfigMap chandler-scraper-ca and name ca.crt there")
	}
	return out
}

// Notes lists, for the reader of chandler check, what the configuration leaves to the
// nodes to find out and where they cannot. Nothing is wrong with it. None means nil.
func (c *Config) Notes() []string {
	var out []string
	if c.Identity.ClusterID == "" {
		out = append(out, "identity.clusterID is not set: each node finds the cluster ID by itself. "+
			"Set it if labels or instance tags differ between Nodes, as with eksctl and Karpenter")
	}
	if c.Identity.Region == "" && len(c.AWSCredentials) > 0 {
		out = append(out, "identity.region is not set: each node finds the AWS region by itself. Set it outside of AWS if a Secret with AWS keys is mounted")
	}
	return out
}

// MetricsUsers returns the user names that may read /metrics:
// serving.allowedUsers, or the scraper's common name when that key is absent.
func (c *Config) MetricsUsers() []string {
	if c.Serving.AllowedUsers == nil {
		return []string{c.Scraper.CommonName}
	}
	return c.Serving.AllowedUsers
}

func (c *Config) validate() problems {
	var ps problems
	ps.oneOf("apiVersion", c.APIVersion, APIVersion)
	ps.oneOf("kind", c.Kind, Kind)
	ps.absolutePath("hostDir", c.HostDir)
	if c.HostDir == "/" {
		ps.add("hostDir", c.HostDir, "want a directory that chandler has to itself, such as %q", Default().HostDir)
	}
	c.Identity.validate("identity", &ps)
	validateAWSCredentials("awsCredentials", c.AWSCredentials, c.HostDir, &ps)
	c.Scraper.validate("scraper", &ps)
	c.Leader.validate("leader", &ps)
	c.Serving.validate("serving", &ps)
	return ps
}
