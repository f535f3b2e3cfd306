package scrapercsr

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

const usualName = "system:serviceaccount:openshift-monitoring:prometheus-k8s"

// TestPinIsThatOfTheReference holds the pattern to a second implementation.
func TestPinIsThatOfTheReference(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3")
	}
	for _, name := range []string{
		usualName, "system:serviceaccount:a:b-c-d-e-f-g-h-i-j-k-l-m", "prometheus@monitoring_of_the_whole_of.example.com",
		strings.Repeat("x", 40), strings.Repeat("y", 41), strings.Repeat("z", 42), strings.Repeat("_", 116),
	} {
		want, err := exec.Command(python, "testdata/pin.py", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		got, err := beginning(name)
		if err != nil {
			t.Fatal(err)
		}
		if got != strings.TrimSpace(string(want)) {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

// TestPinAdmitsHonestRequests tries names of many lengths, since each moves every
// byte after it to another place in its group.
func TestPinAdmitsHonestRequests(t *testing.T) {
	for _, name := range []string{"p", "pr", "pro", "a_b@c", strings.Repeat("x", 39), strings.Repeat("x", 40), usualName, strings.Repeat("_", 116)} {
		start, end := compile(t, name)
		for _, node := range []string{"a", "ip", "node-1", "worker-3.example", strings.Repeat("n", 63), strings.Repeat("n", 64), strings.Repeat("n.", 126) + "n"} {
			for range 5 { // signatures vary in length
				text := encoded(t, pkix.Name{CommonName: name}, node)
				if !start.MatchString(text) || !end.MatchString(text) || dashes(text) != 4 {
					t.Errorf("%d bytes of common name, %d of node name: not admitted: %s", len(name), len(node), text)
				}
				if len(text) > longestText {
					t.Errorf("%d bytes of common name, %d of node name: %d characters, want at most %d", len(name), len(node), len(text), longestText)
				}
			}
		}
	}
}

func TestPinRefusesOtherNames(t *testing.T) {
	for _, name := range []string{"prometheus", usualName} {
		start, _ := compile(t, name)
		for what, subject := range map[string]pkix.Name{
			"longer":        {CommonName: name + "x"},
			"shorter":       {CommonName: name[:len(name)-1]},
			"before it":     {CommonName: "x" + name},
			"last letter":   {CommonName: name[:len(name)-1] + "t"},
			"first letter":  {CommonName: "t" + name[1:]},
			"organization":  {CommonName: name, Organization: []string{"system:masters"}},
			"serial number": {CommonName: name, SerialNumber: "1"},
			"empty":         {},
		} {
			for _, node := range []string{"n", "node-1", strings.Repeat("n", 200)} {
				if start.MatchString(encoded(t, subject, node)) {
					t.Errorf("%s, %s: admitted", name, what)
				}
			}
		}
	}
}

func TestPinNeedsAShortName(t *testing.T) {
	if _, err := beginning(strings.Repeat("x", 117)); err == nil {
		t.Error("got nil for 117 bytes, want an error")
	}
}

func compile(t *testing.T, name string) (start, end *regexp.Regexp) {
	t.Helper()
	text, err := beginning(name)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(text), regexp.MustCompile(ending())
}

// encoded is a request as an admission policy sees it.
func encoded(t *testing.T, subject pkix.Name, node string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject, DNSNames: []string{node}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}))
}

// dashes counts groups of three dashes, as the policy does.
func dashes(text string) int {
	count := 0
	for ; len(text) >= 4; text = text[4:] {
		if text[:4] == "LS0t" {
			count++
		}
	}
	return count
}
