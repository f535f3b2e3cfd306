package pullsecrets

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/chandler-k8s/chandler/leader"
)

const (
	// ledgerPrefix begins the names of ledgers; the registry's host follows. The
	// admission policy chandler-pull-secrets-ledger demands it.
	ledgerPrefix = "pullsecrets-"
	// expiresAnnotation of a ledger says when the first of the Secrets expires,
	// e.g. "2026-11-21T20:15:04Z". It moves once all of them hold a newer token.
	expiresAnnotation = "chandler.dev/expires"

	ledgerPage = 20 // a ledger can be as large as an object may be
)

// ledger remembers across terms which namespaces may hold a Secret of ours, and
// which of their ServiceAccounts our entry; see the package comment. It is good
// for concurrent use. It calls its caller's functions with mu held: whoever calls
// it holds no lock that these need.
//
// A key of a ConfigMap is a namespace, e.g. "team-a", or one of its accounts,
// e.g. "team-a.default": a namespace's name has no dot.
type ledger struct {
	client corev1client.ConfigMapInterface
	// entered is told of every entry once it is written: its namespace may have
	// lost the label in the meantime.
	entered func(pair)

	mu     sync.Mutex
	loaded bool
	books  map[string]*book // by registry host
}

func newLedger(client corev1client.ConfigMapInterface, entered func(pair)) *ledger {
	return &ledger{client: client, entered: entered, books: map[string]*book{}}
}

// load reads every ledger, once a term. It is not for concurrent use.
func (l *ledger) load(ctx context.Context) error {
	if l.ready() {
		return nil
	}
	options := metav1.ListOptions{LabelSelector: leader.TaskLabel + "=" + Name, Limit: ledgerPage}
	var found []corev1.ConfigMap
	for {
		page, err := l.client.List(ctx, options)
		if err != nil {
			return fmt.Errorf("read ledgers of pull secrets: %w", err)
		}
		found = append(found, page.Items...)
		if options.Continue = page.Continue; options.Continue == "" {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range found {
		l.open(&found[i])
	}
	l.loaded = true
	return nil
}

// open takes over what a ConfigMap holds. The caller holds mu.
func (l *ledger) open(object *corev1.ConfigMap) {
	host, ok := strings.CutPrefix(object.Name, ledgerPrefix)
	if !ok {
		return
	}
	b := l.book(host)
	b.exists = true
	for key := range object.Data {
		b.note(key)
	}
	// Without a readable date the expiry is unknown until the next renewal.
	b.expires, _ = time.Parse(time.RFC3339, object.Annotations[expiresAnnotation])
}

// book returns a registry's book, a new one if need be. The caller holds mu.
func (l *ledger) book(host string) *book {
	b, ok := l.books[host]
	if !ok {
		b = &book{
			writing: make(chan struct{}, 1), entries: map[string]struct{}{},
			accounts: map[string][]string{}, leaving: map[string]struct{}{},
		}
		l.books[host] = b
	}
	return b
}

// ready reports whether load has succeeded.
func (l *ledger) ready() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.loaded
}

// pairs returns every namespace's entry.
func (l *ledger) pairs() []pair {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []pair
	for host, b := range l.books {
		for key := range b.entries {
			if !strings.Contains(key, ".") {
				all = append(all, pair{key, host})
			}
		}
	}
	return all
}

// accounts returns the ServiceAccounts of a namespace that may hold our entry for
// the registry.
func (l *ledger) accounts(p pair) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.books[p.host]
	if !ok {
		return nil
	}
	leaving := func(account string) bool { return !b.holds(accountKey(p.namespace, account)) }
	return slices.DeleteFunc(slices.Clone(b.accounts[p.namespace]), leaving)
}

// expires returns when the first of a registry's Secrets expires, as recorded; zero
// if that is unknown.
func (l *ledger) expires(host string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b, ok := l.books[host]; ok {
		return b.expires
	}
	return time.Time{}
}

// holds reports whether a namespace's entry is in the ConfigMap and meant to stay.
func (l *ledger) holds(p pair) bool { return l.holdsKey(p.host, p.namespace) }

func (l *ledger) holdsKey(host, key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.books[host]
	return ok && b.holds(key)
}

// enter makes sure that an entry is in the ConfigMap before it returns: that of a
// namespace, or of an account (accountKey). It writes those that wait along with
// it, so that hundreds that come at once cost one write.
func (l *ledger) enter(ctx context.Context, host, key string, waiting func() []string) error {
	if l.holdsKey(host, key) {
		return nil
	}
	return l.write(ctx, host, func(b *book) ledgerChange {
		if b.holds(key) { // written by whoever held the turn
			return ledgerChange{}
		}
		return b.adding(append(waiting(), key))
	})
}

// assert writes the entries of all namespaces given and of their accounts, whether
// they are there or not. Where there is no entry yet, expires is the expiry of the
// token that they are about to get.
func (l *ledger) assert(ctx context.Context, host string, namespaces []string, expires time.Time) error {
	return l.write(ctx, host, func(b *book) ledgerChange {
		change := b.adding(namespaces)
		for _, namespace := range namespaces {
			change.add[namespace] = struct{}{}
			for _, account := range b.accounts[namespace] {
				if key := accountKey(namespace, account); b.holds(key) {
					change.add[key] = struct{}{}
				}
			}
		}
		if len(b.entries) == 0 {
			change.expires = expires
		}
		return change
	})
}

// record writes when the first of the registry's Secrets expires.
func (l *ledger) record(ctx context.Context, host string, expires time.Time) error {
	return l.write(ctx, host, func(b *book) ledgerChange {
		if len(b.entries) == 0 || b.expires.Equal(expires) {
			return ledgerChange{}
		}
		return ledgerChange{expires: expires}
	})
}

// leave marks the entry of a namespace, and those of its accounts, for removal by
// the next flush.
func (l *ledger) leave(p pair) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.books[p.host]
	if !ok {
		return
	}
	keys := []string{p.namespace}
	for _, account := range b.accounts[p.namespace] {
		keys = append(keys, accountKey(p.namespace, account))
	}
	b.leave(keys...)
}

// leaveAccount marks the entry of one account.
func (l *ledger) leaveAccount(p pair, account string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b, ok := l.books[p.host]; ok {
		b.leave(accountKey(p.namespace, account))
	}
}

// flush removes the entries that were marked, one write per registry.
func (l *ledger) flush(ctx context.Context) error {
	for _, host := range l.withLeaving() {
		err := l.write(ctx, host, func(b *book) ledgerChange {
			return ledgerChange{remove: maps.Clone(b.leaving)}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) withLeaving() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var hosts []string
	for host, b := range l.books {
		if len(b.leaving) > 0 {
			hosts = append(hosts, host)
		}
	}
	slices.Sort(hosts)
	return hosts
}

// write makes one change of a book, waiting for its turn. plan is called with mu
// held.
func (l *ledger) write(ctx context.Context, host string, plan func(*book) ledgerChange) error {
	l.mu.Lock()
	b := l.book(host)
	l.mu.Unlock()
	select {
	case b.writing <- struct{}{}:
		defer func() { <-b.writing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	l.mu.Lock()
	change := plan(b)
	exists := b.exists
	l.mu.Unlock()
	if len(change.add) == 0 && len(change.remove) == 0 && change.expires.IsZero() {
		return nil
	}
	written, err := l.send(ctx, host, exists, change)
	if err != nil {
		return fmt.Errorf("record namespaces in ConfigMap %s: %w", ledgerPrefix+host, err)
	}
	l.mu.Lock()
	b.settle(change)
	empty := len(b.entries) == 0
	l.mu.Unlock()
	for key := range change.add {
		if !strings.Contains(key, ".") {
			l.entered(pair{key, host})
		}
	}
	if !empty || written == nil {
		return nil
	}
	return l.discard(ctx, host, b, written.ResourceVersion)
}

// discard deletes a ledger without entries, unless another leader has just
// written one. The caller holds the turn.
func (l *ledger) discard(ctx context.Context, host string, b *book, version string) error {
	err := l.client.Delete(ctx, ledgerPrefix+host, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{ResourceVersion: &version},
	})
	if apierrors.IsConflict(err) {
		return nil
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete ConfigMap %s: %w", ledgerPrefix+host, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b.exists = false
	return nil
}

// send patches the ConfigMap, or creates it where there is none, and returns it; nil
// if there is still none.
func (l *ledger) send(ctx context.Context, host string, exists bool, change ledgerChange) (*corev1.ConfigMap, error) {
	if !exists && len(change.add) > 0 {
		created, err := l.create(ctx, host, change)
		if !apierrors.IsAlreadyExists(err) {
			return created, err
		}
	}
	body, err := change.patch()
	if err != nil {
		return nil, err
	}
	patched, err := l.client.Patch(ctx, ledgerPrefix+host, types.MergePatchType, body, metav1.PatchOptions{FieldManager: leader.FieldManager})
	switch {
	case err == nil:
		return patched, nil
	case !apierrors.IsNotFound(err):
		return nil, err
	case len(change.add) == 0:
		return nil, nil // removed from what is gone already
	default:
		return l.create(ctx, host, change)
	}
}

func (l *ledger) create(ctx context.Context, host string, change ledgerChange) (*corev1.ConfigMap, error) {
	object := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name:   ledgerPrefix + host,
			Labels: map[string]string{leader.TaskLabel: Name},
		},
		Data: map[string]string{},
	}
	if !change.expires.IsZero() {
		object.Annotations = map[string]string{expiresAnnotation: change.expires.UTC().Format(time.RFC3339)}
	}
	for key := range change.add {
		object.Data[key] = ""
	}
	return l.client.Create(ctx, object, metav1.CreateOptions{FieldManager: leader.FieldManager})
}
