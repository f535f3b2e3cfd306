package pullsecrets

import (
	"context"
	"time"
)

// expiry is what is known of when a registry's Secrets expire.
type expiry struct {
	recorded time.Time // by this term or a former one; zero if unknown
	first    time.Time // of what is in the Secrets; zero if none is known
	complete bool      // this term has written every one
}

// expiryOf looks at every Secret of a registry that is ours. What a former leader
// wrote expires no sooner than it has recorded.
func (t *Task) expiryOf(host string) expiry {
	found := expiry{recorded: t.ledger.expires(host), complete: true}
	namespaces := t.asking(host)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, namespace := range namespaces {
		secret, known := t.secrets[pair{namespace, host}]
		if !known || !secret.foreign.IsZero() {
			continue
		}
		expires := secret.expires(found.recorded)
		found.complete = found.complete && secret.content != nil
		if !expires.IsZero() && (found.first.IsZero() || expires.Before(found.first)) {
			found.first = expires
		}
	}
	return found
}

// expires returns when what the Secret holds expires; recorded is that of a Secret
// which this term has not written.
func (s secretState) expires(recorded time.Time) time.Time {
	if s.content == nil {
		return recorded
	}
	return s.content.expires
}

// recordExpiries brings the ledgers up to date, for the next leader: a date moves
// forward only when all of a registry's Secrets are written.
func (t *Task) recordExpiries(ctx context.Context) error {
	for _, host := range t.namespaces.ListIndexFuncValues(byHost) {
		found := t.expiryOf(host)
		if found.first.IsZero() || (!found.complete && !found.first.Before(found.recorded)) {
			continue
		}
		if err := t.ledger.record(ctx, host, found.first); err != nil {
			return err
		}
	}
	return nil
}
