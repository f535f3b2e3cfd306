//go:build e2e

package e2e

import (
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// secretsUnlogged looks for every secret value in what every container of ours has said
// at debug level.
func (p *product) secretsUnlogged(t *testing.T) {
	p.rollout(t, home, agents)
	secrets := slices.Clone(p.secrets)
	for _, node := range p.nodes {
		secrets = append(secrets, keyOf(t, p.read(t, node, "scraper/tls.pem"))...)
	}
	slices.Sort(secrets)
	secrets = slices.Compact(secrets) // tokens begin alike
	logs := p.saidByAgents(t)
	maps.Copy(logs, p.keptLogs(t))
	for where, log := range logs {
		for _, secret := range secrets {
			if holds(log, secret) {
				t.Errorf("%s: there is a secret that begins with %q", where, secret[:8])
			}
		}
	}
}

// keyOf returns the key of a pair as the first line of its PEM, and as it is.
func keyOf(t *testing.T, pem string) []string {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(pem), []byte(pem))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(pem, "PRIVATE KEY-----\n")
	line, _, _ := strings.Cut(text, "\n")
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("got a key of type %T", pair.PrivateKey)
	}
	number, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return []string{line, string(number)}
}

// saidByAgents returns the logs of the agents' containers, and of those before them.
func (p *product) saidByAgents(t *testing.T) map[string]string {
	t.Helper()
	pods, err := p.client.CoreV1().Pods(home).List(t.Context(), metav1.ListOptions{LabelSelector: agentLabels})
	if err != nil {
		t.Fatal(err)
	}
	logs := map[string]string{}
	for _, pod := range pods.Items {
		logs[pod.Name] = p.kubectl(t, "--namespace", home, "logs", pod.Name)
		if !strings.Contains(logs[pod.Name], `"level":"DEBUG"`) {
			t.Errorf("%s: its log has no line of level DEBUG", pod.Name)
		}
		for _, container := range pod.Status.ContainerStatuses {
			if container.LastTerminationState.Terminated != nil {
				logs[pod.Name+" before"] = p.kubectl(t, "--namespace", home, "logs", "--previous", pod.Name)
			}
		}
	}
	return logs
}

// keptLogs returns what kubelets keep of the logs of our pods, rotated ones as well, on
// nodes that can be looked into.
func (p *product) keptLogs(t *testing.T) map[string]string {
	t.Helper()
	logs := map[string]string{}
	for node, root := range p.roots {
		paths, err := filepath.Glob(filepath.Join(root, "var/log/pods", home+"_*", "*", "*"))
		if err != nil || len(paths) == 0 {
			t.Fatalf("logs on %s: got %q, %v", node, paths, err)
		}
		for _, path := range paths {
			if logs[path], err = readLog(path); err != nil && !os.IsNotExist(err) { // it goes with its pod
				t.Error(err)
			}
		}
	}
	return logs
}

func readLog(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	var log io.Reader = file
	if filepath.Ext(path) == ".gz" {
		if log, err = gzip.NewReader(file); err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
	}
	data, err := io.ReadAll(log)
	return string(data), err
}

// holds tells whether a log has a secret, written in any way that programs log bytes.
func holds(log, secret string) bool {
	for _, form := range forms(secret) {
		if strings.Contains(log, form) {
			return true
		}
	}
	return false
}

// forms are a secret as it is, in hex, in decimal bytes, in a URL, and in the middle of
// base64, where it begins at one of three places.
func forms(secret string) []string {
	all := []string{
		secret, hex.EncodeToString([]byte(secret)), strings.ToUpper(hex.EncodeToString([]byte(secret))),
		strings.Trim(fmt.Sprintf("%d", []byte(secret)), "[]"), url.QueryEscape(secret),
	}
	for before := range 3 {
		text := append(make([]byte, before), secret...)
		// Characters that also depend on what stands before and after.
		first, last := (8*before+5)/6, 8*len(text)/6
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			all = append(all, encoding.EncodeToString(text)[first:last])
		}
	}
	return all
}

// TestHolds logs a secret in the ways that programs do it by mistake.
func TestHolds(t *testing.T) {
	const secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	for prefix := range 4 {
		for suffix := range 4 {
			value := []byte("user"[:prefix] + secret + "more"[:suffix])
			for name, arg := range map[string]any{
				"string": string(value), "bytes": value, "Secret": map[string][]byte{"data": value}, "hex": fmt.Sprintf("%x", value), "HEX": fmt.Sprintf("%X", value),
				"printed": fmt.Sprintf("%v", value), "base64": base64.StdEncoding.EncodeToString(value), "base64 of a URL": base64.URLEncoding.EncodeToString(value),
				"URL": "https://x/?" + url.Values{"key": {string(value)}}.Encode(),
			} {
				var plain, structured strings.Builder
				slog.New(slog.NewTextHandler(&plain, nil)).Info("said", "value", arg)
				slog.New(slog.NewJSONHandler(&structured, nil)).Info("said", "value", arg)
				for _, log := range []string{plain.String(), structured.String()} {
					if !holds(log, secret) {
						t.Errorf("%s with %d bytes before and %d after: not found in %s", name, prefix, suffix, log)
					}
					if holds(log, "x"+secret[1:]) || holds(log, secret+"x") {
						t.Errorf("%s: found another secret in %s", name, log)
					}
				}
			}
		}
	}
}

// TestReadLog reads a log that kubelet has compressed.
func TestReadLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log.20261121-180000.gz")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, fs.FileMode(0o600))
	if err != nil {
		t.Fatal(err)
	}
	w := gzip.NewWriter(file)
	_, _ = io.WriteString(w, "said")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := readLog(path); err != nil || got != "said" {
		t.Errorf("got %q, %v", got, err)
	}
}
