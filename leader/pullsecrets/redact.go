package pullsecrets

import (
	"fmt"
	"log/slog"
	"strings"
	"unique"
)

const redacted = "[redacted]"

// secretText is a password, token or secret key. No way of printing or encoding it
// shows it, neither by itself nor as a field, where fmt does not ask a type how it
// wants to be printed: hence the handle. Equal texts are equal. The zero value is
// the empty text.
type secretText struct{ handle unique.Handle[string] }

func secret(text string) secretText {
	if text == "" {
		return secretText{}
	}
	return secretText{unique.Make(text)}
}

// reveal returns the text.
func (s secretText) reveal() string {
	if s == (secretText{}) {
		return ""
	}
	return s.handle.Value()
}

// LogValue implements slog.LogValuer.
func (secretText) LogValue() slog.Value { return slog.StringValue(redacted) }

// Format implements fmt.Formatter.
func (secretText) Format(state fmt.State, _ rune) {
	_, _ = state.Write([]byte(redacted)) // a broken writer is fmt's concern
}

// MarshalText implements encoding.TextMarshaler, which package json heeds too.
func (secretText) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// redact removes secrets from a text that somebody else composed.
func redact(text string, secrets ...secretText) string {
	for _, secret := range secrets {
		if plain := secret.reveal(); plain != "" {
			text = strings.ReplaceAll(text, plain, redacted)
		}
	}
	return text
}
