package scrapercert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certsv1 "k8s.io/api/certificates/v1"

	"github.com/chandler-k8s/chandler/hostfiles"
)

func TestRequest(t *testing.T) {
	made, err := newRequest(testCN, testNode)
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(made.pkcs10)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(block.Headers) > 0 || len(rest) > 0 {
		t.Fatalf("got %q, want one block without headers", made.pkcs10)
	}
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := parsed.Subject.String(), "CN="+testCN; got != want {
		t.Errorf("subject: got %q, want %q", got, want)
	}
	if diff := cmp.Diff([]string{testNode}, parsed.DNSNames); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	subjectAltName := asn1.ObjectIdentifier{2, 5, 29, 17}
	if len(parsed.Extensions) != 1 || !parsed.Extensions[0].Id.Equal(subjectAltName) {
		t.Errorf("extensions: got %v, want the names alone", parsed.Extensions)
	}
	if key, ok := parsed.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		t.Errorf("key: got %T, want one on P-256", parsed.PublicKey)
	}
	if err := parsed.CheckSignature(); err != nil {
		t.Error(err)
	}
}

func TestVerify(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		change func(*x509.Certificate)
		want   error
	}{
		"right":               {func(*x509.Certificate) {}, nil},
		"another common name": {func(c *x509.Certificate) { c.Subject.CommonName = "x" }, ErrInvalid},
		"no common name":      {func(c *x509.Certificate) { c.Subject.CommonName = "" }, ErrInvalid},
		"a group":             {func(c *x509.Certificate) { c.Subject.Organization = []string{"system:masters"} }, ErrInvalid},
		"another node":        {func(c *x509.Certificate) { c.DNSNames = []string{"worker-4"} }, ErrInvalid},
		"two nodes":           {func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "worker-4") }, ErrInvalid},
		"no node":             {func(c *x509.Certificate) { c.DNSNames = nil }, ErrInvalid},
		"an address":          {func(c *x509.Certificate) { c.IPAddresses = []net.IP{{127, 0, 0, 1}} }, ErrInvalid},
		"a CA":                {func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, ErrInvalid},
		"for servers":         {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, ErrInvalid},
		"expired":             {func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }, ErrExpired},
		"not valid yet":       {func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }, ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeAPI(t, undecided)
			files := publishedBefore(t, f, tt.change)
			p, err := newPair(files[0].Data, files[1].Data)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.verify(testCN, testNode, now); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	f := newFakeAPI(t, undecided)
	one, other := publishedBefore(t, f, func(*x509.Certificate) {}), publishedBefore(t, f, func(*x509.Certificate) {})
	if _, err := newPair(one[0].Data, other[1].Data); err == nil {
		t.Error("another's key: got no error")
	}
}

func TestDue(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for name, tt := range map[string]struct {
		before, after, renewAfter time.Duration // around now
		resumed                   bool
		least, most               time.Duration // from now
	}{
		"a month":                        {0, 720 * time.Hour, 0, false, 504 * time.Hour, 576 * time.Hour},
		"seconds":                        {0, 10 * time.Second, 0, false, 7 * time.Second, 8 * time.Second},
		"seconds, backdated":             {5 * time.Minute, 10 * time.Second, 0, false, 7 * time.Second, 8 * time.Second},
		"a month, of an earlier run":     {240 * time.Hour, 480 * time.Hour, 0, true, 264 * time.Hour, 336 * time.Hour},
		"a month, daily":                 {0, 720 * time.Hour, 24 * time.Hour, false, 21*time.Hour + 36*time.Minute, 24 * time.Hour},
		"seconds, daily":                 {0, 10 * time.Second, 24 * time.Hour, false, 7 * time.Second, 8 * time.Second},
		"daily, of an earlier run":       {240 * time.Hour, 480 * time.Hour, 24 * time.Hour, true, -240 * time.Hour, -216 * time.Hour},
		"a clock behind the signer's":    {-time.Minute, time.Hour, 0, false, 42 * time.Minute, 49 * time.Minute},
		"expired before it was received": {time.Hour, -time.Minute, 0, false, -time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeAPI(t, undecided)
			for range 20 {
				files := publishedBefore(t, f, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-tt.before), now.Add(tt.after) })
				p, err := newPair(files[0].Data, files[1].Data)
				if err != nil {
					t.Fatal(err)
				}
				if !tt.resumed {
					p.obtained = now
				}
				got := p.due(tt.renewAfter)
				if from := got.Sub(now); from < tt.least || from > tt.most {
					t.Errorf("got %s from now, want %s to %s", from, tt.least, tt.most)
				}
				if again := p.due(tt.renewAfter); !again.Equal(got) {
					t.Errorf("asked again: got %s, want %s", again, got)
				}
			}
		})
	}
}

func TestTrust(t *testing.T) {
	one, two := string(newCA(t).pem), string(newCA(t).pem)
	key := "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, tt := range map[string]struct {
		trust Trust
		want  string
		err   string
	}{
		"the cluster's":           {Trust{ClusterCA: []byte(one)}, one, ""},
		"the cluster's, a file":   {Trust{ClusterCAFile: file("one", one)}, one, ""},
		"data before a file":      {Trust{ClusterCA: []byte(one), ClusterCAFile: "/absent"}, one, ""},
		"both":                    {Trust{ClusterCA: []byte(one), CAFile: file("two", two)}, one + two, ""},
		"the same twice":          {Trust{ClusterCA: []byte(one), CAFile: file("same", one)}, one, ""},
		"a further one alone":     {Trust{CAFile: file("alone", two)}, two, ""},
		"text around it":          {Trust{ClusterCA: []byte(one), CAFile: file("text", "# two\n"+two+"end\n")}, one + two, ""},
		"none":                    {Trust{}, "", "set scraper.caFile"},
		"an absent file":          {Trust{ClusterCA: []byte(one), CAFile: filepath.Join(dir, "absent")}, "", "scraper.caFile: open"},
		"an empty file":           {Trust{ClusterCA: []byte(one), CAFile: file("empty", "")}, "", "no certificate"},
		"a key beside it":         {Trust{ClusterCA: []byte(one), CAFile: file("key", two+key)}, "", "PRIVATE KEY"},
		"half a certificate":      {Trust{ClusterCA: []byte(one), CAFile: file("half", two[:len(two)/2])}, "", "no certificate"},
		"a directory":             {Trust{ClusterCA: []byte(one), CAFile: dir}, "", "is a directory"},
		"more than a bundle":      {Trust{ClusterCA: []byte(one), CAFile: file("long", strings.Repeat(two, 3000))}, "", "longer than"},
		"the cluster's, but none": {Trust{ClusterCAFile: "/absent", CAFile: file("good", two)}, "", "the cluster's CA"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tt.trust.bundle()
			if string(got) != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got error %v, want one with %q", err, tt.err)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	f := newFakeAPI(t, undecided)
	good := func(change func(*x509.Certificate)) map[string][]byte {
		files := map[string][]byte{}
		for _, file := range publishedBefore(t, f, change) {
			files[file.Name] = file.Data
		}
		return files
	}
	same := func(*x509.Certificate) {}
	other := good(same)
	for name, tt := range map[string]struct {
		files map[string][]byte
		err   string
	}{
		"good":              {good(same), ""},
		"nothing":           {nil, "tls.crt and tls.key"},
		"another's key":     {with(good(same), FileKey, other[FileKey]), "tls.crt and tls.key"},
		"another's tls.pem": {with(good(same), FilePair, other[FilePair]), "tls.pem is not"},
		"no tls.pem":        {with(good(same), FilePair, nil), "tls.pem is not"},
		"no CA":             {with(good(same), FileCA, nil), "ca.crt"},
		"expired":           {good(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "has expired"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Check(tt.files)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %v, want an error with %q", err, tt.err)
			}
		})
	}
}

func with(files map[string][]byte, name string, data []byte) map[string][]byte {
	files[name] = data
	return files
}

func FuzzNewPair(f *testing.F) {
	made, err := newRequest(testCN, testNode)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), made.keyPEM)
	f.Add(made.pkcs10, made.keyPEM)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, certificate, key []byte) {
		p, err := newPair(certificate, key)
		if err == nil && (p.leaf == nil || len(p.certPEM) == 0) {
			t.Errorf("got no error and no certificate for %q", certificate)
		}
	})
}

// TestFilesDoNotShow: neither what is published nor the request prints its key.
func TestFilesDoNotShow(t *testing.T) {
	f := newFakeAPI(t, undecided)
	files := publishedBefore(t, f, func(*x509.Certificate) {})
	r, logs := newTestRenewer(f)
	if err := r.Resume(files); err != nil {
		t.Fatal(err)
	}
	published, err := r.Files()
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Split(string(files[1].Data), "\n")[1]
	r.Log.Info("test", "files", published, "file", published[1])
	if strings.Contains(logs.String(), line) {
		t.Error("the key is in the log")
	}
	bad := []hostfiles.File{{Name: FileCert, Data: files[1].Data}, {Name: FileKey, Data: files[1].Data}}
	if err := r.Resume(bad); err == nil || strings.Contains(err.Error(), line) {
		t.Errorf("a key in the place of a certificate: got %v, want an error without it", err)
	}
	mistake := verdict(certsv1.CertificateApproved)(f, orphanOf(t, "x", testCN, "s", testUser, testNode))
	mistake.Status.Certificate = files[1].Data
	if _, err := r.accept(&request{keyPEM: files[1].Data}, mistake); err == nil || strings.Contains(err.Error(), line) {
		t.Errorf("a key in the place of an issued certificate: got %v, want an error without it", err)
	}
}
