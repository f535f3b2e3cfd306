package pullsecrets

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chandler-k8s/chandler/leader"
)

// lookInterval bounds the time between two looks at the wall clock: timers stand
// still while a machine is suspended, and tokens expire all the same.
const lookInterval = 10 * time.Minute

// content is what a registry's Secrets hold. It never changes; a renewal makes
// another, and Secrets that hold an older one are written again.
type content struct {
	data    secretText
	expires time.Time
	from    *credential
}

func (c *content) usable(now time.Time) bool { return c != nil && !c.from.expired(now) }

// registryState is what a term knows of a registry that namespaces ask for. The
// Task's mu guards it.
type registryState struct {
	identity identity
	keysGone time.Time // when the Secret with identity's keys was first missed; zero while it is there
	current  *content  // nil before the first token
	failing  bool      // no token could be had last time
}

// syncRegistry sees to a registry's token and, once it is a new one, to all of
// its Secrets.
func (t *Task) syncRegistry(ctx context.Context, host string) (time.Duration, error) {
	if !t.ledger.ready() {
		return 0, nil // it enqueues all hosts once it is
	}
	if len(t.asking(host)) == 0 {
		t.release(host)
		return 0, nil
	}
	registry, err := Parse(host)
	if err != nil {
		return 0, err // no namespace asks for such a host
	}
	id, until, err := t.identityOf(registry)
	switch {
	case errors.Is(err, errKeysUnseen):
		return t.unseen(registry), nil
	case err != nil:
		t.failed(registry, err)
		return 0, tokenError(registry, fmt.Errorf("%w: %w", err, leader.ErrPermanent))
	}
	t.use(host, id)
	token, again, failure := t.tokens.get(ctx, id)
	if token != nil {
		if err := t.publish(ctx, registry, token); err != nil {
			return 0, err
		}
	}
	if failure != nil {
		if id.keys == (accessKeys{}) {
			failure = fmt.Errorf("there is no Secret %s/%s, and as the process's own AWS identity: %w",
				t.opts.HostNamespace, t.keysName(host), failure)
		}
		t.failed(registry, failure)
		return 0, tokenError(registry, failure)
	}
	if token != nil && time.Now().Before(token.renew) {
		t.recovered(registry)
	}
	return min(again, until, lookInterval), nil
}

func tokenError(registry Registry, err error) error {
	return fmt.Errorf("get token for registry %s: %w", registry.Host, err)
}

func (t *Task) keysName(host string) string { return t.opts.CredentialsSecretPrefix + "-" + host }

// use notes whose token a registry gets, and forgets tokens that none gets.
func (t *Task) use(host string, id identity) {
	t.mu.Lock()
	defer t.mu.Unlock()
	state, ok := t.registries[host]
	if !ok {
		state = &registryState{}
		t.registries[host] = state
	}
	if state.identity == id && ok {
		return
	}
	state.identity = id
	t.tokens.keep(t.identities())
}

// release forgets a registry that no namespace asks for any more.
func (t *Task) release(host string) {
	t.report.clear("token " + host)
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.registries[host]; ok {
		delete(t.registries, host)
		t.tokens.keep(t.identities())
	}
}

// identities returns those in use. The caller holds mu.
func (t *Task) identities() map[identity]bool {
	used := map[identity]bool{}
	for _, state := range t.registries {
		used[state.identity] = true
	}
	return used
}

// publish makes a token the content of all Secrets of the registry, unless it is
// already. The ledger is written first.
func (t *Task) publish(ctx context.Context, registry Registry, token *credential) error {
	former := t.content(registry.Host)
	if former != nil && former.from == token {
		return nil
	}
	data, err := render(registry, token.auth)
	if err != nil {
		return err
	}
	if err := t.guard.Check(ctx); err != nil {
		return err
	}
	if err := t.ledger.assert(ctx, registry.Host, t.asking(registry.Host), token.expires); err != nil {
		return err
	}
	t.setContent(registry.Host, &content{data, token.expires, token})
	// After setContent: a namespace labelled just now either finds the content or
	// is found here.
	namespaces := t.asking(registry.Host)
	for _, namespace := range namespaces {
		t.enqueue(pair{namespace, registry.Host}.key())
	}
	if former != nil {
		t.opts.Metrics.renewals.Inc()
	}
	t.log.Info("new registry token", "registry", registry.Host, "expires", token.expires, "namespaces", len(namespaces))
	return nil
}

func (t *Task) content(host string) *content {
	t.mu.Lock()
	defer t.mu.Unlock()
	if state, ok := t.registries[host]; ok {
		return state.current
	}
	return nil
}

func (t *Task) setContent(host string, fresh *content) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if state, ok := t.registries[host]; ok {
		state.current = fresh
	}
}

// asking returns the namespaces that a registry's Secret belongs in.
func (t *Task) asking(host string) []string {
	// The index exists: Watch has added it.
	names, _ := t.namespaces.IndexKeys(byHost, host)
	return names
}

// failed tells once what keeps a registry from getting a token. The runner logs
// each failure.
func (t *Task) failed(registry Registry, err error) {
	t.setFailing(registry.Host, true)
	t.report.event("token "+registry.Host, t.keysOrNamespace(registry.Host), reasonToken, tokenError(registry, err).Error())
}

func (t *Task) recovered(registry Registry) {
	t.setFailing(registry.Host, false)
	t.report.clear("token " + registry.Host)
}

func (t *Task) setFailing(host string, failing bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	state, ok := t.registries[host]
	if !ok {
		state = &registryState{}
		t.registries[host] = state
	}
	state.failing = failing
}
