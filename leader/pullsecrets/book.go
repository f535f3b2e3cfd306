package pullsecrets

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// book is one registry's ConfigMap.
type book struct {
	writing chan struct{} // held during a write

	// The ledger's mu guards these.
	exists   bool                // the ConfigMap was there when last seen
	entries  map[string]struct{} // keys in the ConfigMap
	accounts map[string][]string // names of the accounts among them, by namespace
	leaving  map[string]struct{} // entries that are to be removed
	expires  time.Time
}

func accountKey(namespace, account string) string { return namespace + "." + account }

// note takes over a key that is in the ConfigMap.
func (b *book) note(key string) {
	if _, known := b.entries[key]; known {
		return
	}
	b.entries[key] = struct{}{}
	if namespace, account, ok := strings.Cut(key, "."); ok {
		b.accounts[namespace] = append(b.accounts[namespace], account)
	}
}

// strike drops a key that is no longer in the ConfigMap.
func (b *book) strike(key string) {
	delete(b.entries, key)
	delete(b.leaving, key)
	namespace, account, ok := strings.Cut(key, ".")
	if !ok {
		return
	}
	left := slices.DeleteFunc(b.accounts[namespace], func(name string) bool { return name == account })
	if b.accounts[namespace] = left; len(left) == 0 {
		delete(b.accounts, namespace)
	}
}

// holds reports whether an entry is in the ConfigMap and meant to stay.
func (b *book) holds(key string) bool {
	_, entered := b.entries[key]
	_, leaving := b.leaving[key]
	return entered && !leaving
}

func (b *book) leave(keys ...string) {
	for _, key := range keys {
		if _, entered := b.entries[key]; entered {
			b.leaving[key] = struct{}{}
		}
	}
}

// ledgerChange is one write. The zero value is none.
type ledgerChange struct {
	add, remove map[string]struct{}
	expires     time.Time // zero leaves it as it is
}

// adding returns the change that enters keys which are not entered yet, or are
// about to leave.
func (b *book) adding(keys []string) ledgerChange {
	change := ledgerChange{add: map[string]struct{}{}}
	for _, key := range keys {
		if !b.holds(key) {
			change.add[key] = struct{}{}
		}
	}
	return change
}

// settle takes over a change that was written.
func (b *book) settle(change ledgerChange) {
	b.exists = true
	for key := range change.add {
		b.note(key)
		delete(b.leaving, key)
	}
	for key := range change.remove {
		b.strike(key)
	}
	if !change.expires.IsZero() {
		b.expires = change.expires
	}
}

// patch renders the change as a merge patch, in which null removes. It has the API
// server forget who manages which key: that takes it half of the time of a write, and
// the ledger has one writer.
func (c ledgerChange) patch() ([]byte, error) {
	data := map[string]any{}
	for key := range c.add {
		data[key] = ""
	}
	for key := range c.remove {
		data[key] = nil
	}
	metadata := map[string]any{"managedFields": []any{map[string]any{}}}
	if !c.expires.IsZero() {
		metadata["annotations"] = map[string]string{expiresAnnotation: c.expires.UTC().Format(time.RFC3339)}
	}
	return json.Marshal(map[string]any{"metadata": metadata, "data": data})
}
