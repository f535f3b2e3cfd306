package pullsecrets

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretTextIsNeverShown(t *testing.T) {
	const value = "hunter2hunter2hunter2"
	held := struct {
		Exported secretText
		Keys     accessKeys
		inner    secretText
	}{secret(value), accessKeys{id: keyID, secret: secret(value), session: secret(value)}, secret(value)}
	var out bytes.Buffer
	for _, handler := range []slog.Handler{
		slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}),
		slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}),
	} {
		log := slog.New(handler)
		log.Debug("shown", "secret", secret(value), "held", held, "pointer", &held, "keys", held.Keys,
			"list", []secretText{secret(value)}, "map", map[string]secretText{"a": secret(value)}, "err", fmt.Errorf("%w: %v", errNoToken, held))
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb+"\n", secret(value))
		fmt.Fprintf(&out, verb+"\n", held)
		fmt.Fprintf(&out, verb+"\n", credential{auth: secret(value)})
		fmt.Fprintf(&out, verb+"\n", content{data: secret(value)})
	}
	encoded, err := json.Marshal(held)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(encoded)
	for _, form := range []string{value, fmt.Sprintf("%x", value), fmt.Sprintf("%X", value)} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q is shown in:\n%s", form, out.String())
		}
	}
}

func TestRedact(t *testing.T) {
	got := redact("key abc and token def", secret("abc"), secretText{}, secret("def"))
	if want := "key [redacted] and token [redacted]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
