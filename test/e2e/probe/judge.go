package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// judges say how the files of one generation of a set have to fit together. A fact that
// no source knows has no file and no line. Values can be secret: no complaint quotes those.
var judges = map[string]func(files map[string][]byte) error{
	"cluster": judgeCluster, "aws": judgeAWS, "scraper": judgeScraper,
}

// set is one set of files as a reader has seen it so far.
type set struct {
	fit  func(files map[string][]byte) error
	seen map[string]bool // what has been there once
}

// judge holds a generation to itself, and to those before it: docs/files.md names
// all that ever goes away, and of that the suite takes credentials.ini alone.
func (s *set) judge(files map[string][]byte) error {
	there := map[string]bool{}
	for name := range files {
		there[name] = true
	}
	if settings(files["config.ini"])["region"] != "" {
		there["the region of config.ini"] = true
	}
	for _, part := range slices.Sorted(maps.Keys(s.seen)) {
		if !there[part] && part != "credentials.ini" {
			return fmt.Errorf("%s is gone", part)
		}
	}
	maps.Copy(s.seen, there)
	return s.fit(files)
}

// variables are the facts' names in node.env.
var variables = map[string]string{
	"clusterID": "CLUSTER_ID", "region": "REGION", "zone": "ZONE", "partition": "PARTITION",
	"instanceID": "INSTANCE_ID", "instanceType": "INSTANCE_TYPE", "nodeName": "NODE_NAME",
}

// judgeCluster: every other file says what identity.json says.
func judgeCluster(files map[string][]byte) error {
	var facts map[string]struct{ Value, Source string }
	if err := json.Unmarshal(files["identity.json"], &facts); err != nil {
		return fmt.Errorf("identity.json: %w", err)
	}
	want, environment := map[string]string{}, map[string]string{}
	for name, fact := range facts {
		if fact.Value == "" || fact.Source == "" {
			return fmt.Errorf("identity.json: %s is %q from %q", name, fact.Value, fact.Source)
		}
		environment[variables[name]] = fmt.Sprintf("%q", fact.Value)
	}
	if id := facts["clusterID"].Value; id != "" {
		want["cluster-id"], want["CLUSTERID"] = id, fmt.Sprintf("CLUSTERID=%q\n", id)
	}
	if region := facts["region"].Value; region != "" {
		want["region"] = region
	}
	for _, name := range []string{"cluster-id", "CLUSTERID", "region"} {
		if got := string(files[name]); got != want[name] {
			return fmt.Errorf("%s is %q, want %q as in identity.json", name, got, want[name])
		}
	}
	if got := settings(files["node.env"]); !maps.Equal(got, environment) {
		return fmt.Errorf("node.env has %q, want %q as in identity.json", got, environment)
	}
	return nil
}

// judgeAWS: the suite makes secrets that end with their key's ID.
func judgeAWS(files map[string][]byte) error {
	if !bytes.HasPrefix(files["config.ini"], []byte("[default]\n")) {
		return errors.New("config.ini has no profile")
	}
	credentials, ok := files["credentials.ini"]
	if !ok {
		return nil
	}
	values := settings(credentials)
	if id := values["aws_access_key_id"]; id == "" || !strings.HasSuffix(values["aws_secret_access_key"], id) {
		return errors.New("credentials.ini has no pair, or one that does not fit")
	}
	return nil
}

func judgeScraper(files map[string][]byte) error {
	if _, err := tls.X509KeyPair(files["tls.crt"], files["tls.key"]); err != nil {
		return err
	}
	if !bytes.Equal(files["tls.pem"], append(bytes.Clone(files["tls.crt"]), files["tls.key"]...)) {
		return errors.New("tls.pem is another pair than tls.crt and tls.key")
	}
	if bundle, ok := files["ca.crt"]; ok {
		return judgeBundle(bundle)
	}
	return nil
}

// judgeBundle: whole certificates, at least one, and nothing else.
func judgeBundle(bundle []byte) error {
	for first := true; first || len(bundle) > 0; first = false {
		block, rest := pem.Decode(bundle)
		if block == nil {
			return errors.New("ca.crt has something that is no PEM, or nothing")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("ca.crt: %w", err)
		}
		bundle = rest
	}
	return nil
}

// settings are the lines of the form "key = value".
func settings(text []byte) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, "="); ok {
			found[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return found
}
