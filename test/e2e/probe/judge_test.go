package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"testing"
)

// generation is a whole one of each set; another serial makes others.
func generation(t *testing.T, serial int) map[string]map[string][]byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(int64(serial))}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	return map[string]map[string][]byte{
		"cluster": {
			"CLUSTERID": fmt.Appendf(nil, "CLUSTERID=\"c-%d\"\n", serial), "cluster-id": fmt.Appendf(nil, "c-%d", serial), "region": fmt.Appendf(nil, "eu-west-%d", serial),
			"node.env":      fmt.Appendf(nil, "CLUSTER_ID=\"c-%[1]d\"\nREGION=\"eu-west-%[1]d\"\n", serial),
			"identity.json": fmt.Appendf(nil, `{"clusterID":{"value":"c-%[1]d","source":"config"},"region":{"value":"eu-west-%[1]d","source":"imds"}}`, serial),
		},
		"aws": {
			"config.ini":      []byte("[default]\nregion = eu-west-1\n"),
			"credentials.ini": fmt.Appendf(nil, "[default]\naws_access_key_id = AKIA%[1]d\naws_secret_access_key = xyzAKIA%[1]d\n", serial),
		},
		"scraper": {"tls.crt": certificate, "tls.key": keyPEM, "tls.pem": append(bytes.Clone(certificate), keyPEM...), "ca.crt": append(bytes.Clone(certificate), certificate...)},
	}
}

// TestJudge drops, cuts, changes and mixes files of generations that are whole.
func TestJudge(t *testing.T) {
	one, two := generation(t, 1), generation(t, 2)
	alone := map[string]bool{"config.ini": true, "credentials.ini": true, "ca.crt": true} // they fit any other
	for name, fit := range judges {
		try := func(t *testing.T, bad bool, change func(files map[string][]byte)) {
			t.Helper()
			s := set{fit: fit, seen: map[string]bool{}}
			if err := errors.Join(s.judge(one[name]), s.judge(two[name])); err != nil {
				t.Fatalf("whole generations: %v", err)
			}
			files := maps.Clone(one[name])
			change(files)
			if err := s.judge(files); (err != nil) != bad {
				t.Errorf("got %v, want it refused: %t", err, bad)
			}
		}
		for file := range one[name] {
			t.Run("without "+name+"/"+file, func(t *testing.T) {
				try(t, file != "credentials.ini", func(files map[string][]byte) { delete(files, file) })
			})
			t.Run("empty "+name+"/"+file, func(t *testing.T) {
				try(t, true, func(files map[string][]byte) { files[file] = nil })
			})
			t.Run("the beginning of "+name+"/"+file, func(t *testing.T) {
				try(t, true, func(files map[string][]byte) { files[file] = files[file][:len(files[file])/3] })
			})
			t.Run("another "+name+"/"+file, func(t *testing.T) {
				try(t, !alone[file], func(files map[string][]byte) { files[file] = two[name][file] })
			})
		}
	}
}

// TestJudgeLines are faults within one file.
func TestJudgeLines(t *testing.T) {
	for _, tt := range []struct{ name, set, file, from, to string }{
		{"keys of two pairs", "aws", "credentials.ini", "xyzAKIA1", "xyzAKIA2"},
		{"no region", "aws", "config.ini", "region = eu-west-1\n", ""},
		{"no profile", "aws", "config.ini", "[default]\n", ""},
		{"a fact less in node.env", "cluster", "node.env", "REGION=\"eu-west-1\"\n", ""},
		{"a fact more in node.env", "cluster", "node.env", "REGION", "ZONE=\"a\"\nREGION"},
		{"a fact without a source", "cluster", "identity.json", "imds", ""},
		{"something before ca.crt", "scraper", "ca.crt", "-----BEGIN", "x-----BEGIN"},
		{"something after ca.crt", "scraper", "ca.crt", "-----END CERTIFICATE-----\n", "-----END CERTIFICATE-----\nx"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := generation(t, 1)[tt.set]
			s := set{fit: judges[tt.set], seen: map[string]bool{}}
			if err := s.judge(files); err != nil {
				t.Fatal(err)
			}
			files[tt.file] = bytes.ReplaceAll(files[tt.file], []byte(tt.from), []byte(tt.to))
			if err := s.judge(files); err == nil {
				t.Error("got no complaint")
			}
		})
	}
}

// TestFacts: what nobody knows yet has no file, and may come later.
func TestFacts(t *testing.T) {
	files := map[string][]byte{
		"CLUSTERID": []byte("CLUSTERID=\"c\"\n"), "cluster-id": []byte("c"), "node.env": []byte("CLUSTER_ID=\"c\"\n"),
		"identity.json": []byte(`{"clusterID":{"value":"c","source":"config"}}`),
	}
	cluster := set{fit: judgeCluster, seen: map[string]bool{}}
	if err := cluster.judge(files); err != nil {
		t.Error(err)
	}
	aws := set{fit: judgeAWS, seen: map[string]bool{}}
	for _, config := range []string{"[default]\n", "[default]\nregion = eu-west-1\n"} {
		if err := aws.judge(map[string][]byte{"config.ini": []byte(config)}); err != nil {
			t.Error(err)
		}
	}
}

// TestReadSet reads through ..data what a set's directory leads to.
func TestReadSet(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "..1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..1", filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "..data", "region"), []byte("eu"), 0o600); err != nil {
		t.Fatal(err)
	}
	if files, err := readSet(dir); err != nil || len(files) != 1 || string(files["region"]) != "eu" {
		t.Errorf("got %q, %v", files, err)
	}
	if _, err := readSet(filepath.Join(dir, "..1")); err == nil {
		t.Error("no ..data: got no error")
	}
}
