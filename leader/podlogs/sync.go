package podlogs

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// emptyCheck is how often the workload of a Role without pods is read: that its
	// label went then is no event.
	emptyCheck = time.Hour
	// foreignRetry is how often a Role is tried again whose name somebody else has:
	// that it is gone cannot be seen.
	foreignRetry = 15 * time.Minute
	// lateRetry is how often one is whose name an object of ours has that the watch
	// does not show.
	lateRetry = 15 * time.Second
	// echo is how long a write may take to come back by the watch.
	echo = 2 * time.Second
)

// plan is what to make of a key.
type plan struct {
	owner  workload // the zero value means that nothing of ours belongs there
	names  []string
	losers []workload // others that claim the name
}

// plan returns what follows from what the API server said of the claimants.
func (f found) plan(answers map[workload]answer) plan {
	winner, losers := f.elect(answers)
	return plan{winner, f.members[winner], losers}
}

// syncRole makes what belongs to one name of workloads right.
func (t *Task) syncRole(ctx context.Context, key, namespace, name string) (time.Duration, error) {
	f, err := t.look(key, namespace, name)
	if err != nil {
		return 0, err
	}
	if len(f.members) == 0 && len(f.made()) == 0 {
		t.forget(key)
		return 0, nil
	}
	s, now := t.state(key), time.Now()
	s.observe(f, now)
	f.heirs = s.heirs
	unclear := s.unclear(f)
	p := f.plan(s.claims)
	due, again := t.due(f, s, p, now)
	if len(unclear) == 0 && len(due) == 0 {
		s.pace.calm()
		return t.settled(key, f, p, again), nil
	}
	if wait := s.pace.wait(f.hash(), f.role == nil, now); wait > 0 {
		return wait, nil
	}
	if err := t.inquire(ctx, key, unclear, f, s); err != nil {
		s.pace.failed(time.Now())
		return 0, errors.Join(err, t.shrink(ctx, f))
	}
	f.heirs = s.heirs
	p = f.plan(s.claims)
	due, again = t.due(f, s, p, now)
	if len(due) == 0 {
		again = t.settled(key, f, p, again)
	} else if again, err = t.carryOut(ctx, key, f, s, p, due); err != nil {
		s.pace.failed(time.Now())
		return 0, err
	}
	s.pace.wrote(time.Now())
	return again, nil
}

// due returns the resources that a plan wants written now, in their order, and when
// to look again if some are to be left alone for a while.
func (t *Task) due(f found, s *state, p plan, now time.Time) (due []string, again time.Duration) {
	made := f.made()
	if p.owner == (workload{}) {
		// First what binds. A Role that a finalizer keeps must be empty besides.
		for _, resource := range []string{bindings, roles, accounts} {
			object, there := made[resource]
			if there && (object.GetDeletionTimestamp() == nil || resource == roles && len(f.role.Rules) > 0) {
				due = append(due, resource)
			}
		}
		return due, 0
	}
	for _, resource := range t.wanted() {
		_, there := made[resource]
		before := s.traces[resource]
		switch left := before.until.Sub(now); {
		case there && resource == roles:
			if !sameRole(f.role, t.role(f.role.Namespace, p)) {
				due = append(due, resource)
			}
		case there, len(p.names) == 0, before.theirs && resource != roles:
		case left > 0 && resource == roles:
			return nil, left // without it there is nothing to bind
		case left > 0:
			again = left
		default:
			due = append(due, resource)
		}
	}
	return due, again
}

// look gathers what the watches show.
func (t *Task) look(key, namespace, name string) (found, error) {
	f := found{
		members: t.members(key),
		binding: get(t.bindings, namespace+"/"+prefix+name),
		account: get(t.accounts, namespace+"/"+prefix+name),
	}
	role, err := t.roles.Roles(namespace).Get(prefix + name)
	if err != nil && !apierrors.IsNotFound(err) {
		return found{}, fmt.Errorf("look up role %s: %w", key, err)
	}
	if err == nil {
		f.role = role
	}
	return f, nil
}

// wanted lists the resources that a workload with pods gets.
func (t *Task) wanted() []string {
	if t.opts.CreateServiceAccounts {
		return []string{roles, accounts, bindings}
	}
	return []string{roles}
}

// role returns the Role of a workload with pods of the given names.
func (t *Task) role(namespace string, p plan) *rbacv1.Role {
	names := p.names[:min(len(p.names), maxPods)]
	return &rbacv1.Role{ObjectMeta: objectMeta(namespace, p.owner), Rules: rules(names, t.opts.ListPods)}
}

// settled notes that nothing is to be written, and returns when to look again: after
// the time given, or, if there are no pods, for what is no event.
func (t *Task) settled(key string, f found, p plan, again time.Duration) time.Duration {
	t.tellRivals(key, p)
	switch {
	case p.owner == (workload{}):
		t.setStatus(key, "")
	case f.role == nil && len(p.names) > 0: // it is on its way to the watch, or somebody else's
	default:
		t.report.clear("foreign " + key)
		t.setStatus(key, t.status(key, p))
	}
	if p.owner != (workload{}) && len(p.names) == 0 {
		return emptyCheck - rand.N(emptyCheck/5)
	}
	return again
}

// status returns the state of a Role that is as it has to be.
func (t *Task) status(key string, p plan) string {
	if len(p.names) > maxPods {
		namespace, _, _ := strings.Cut(key, "/")
		t.report.warn("full "+key, reference(namespace, p.owner), reasonFull,
			fmt.Sprintf("of %d pods, Role %s lists the first %d by name: an object cannot hold more", len(p.names), prefix+p.owner.name, maxPods))
		return stateFull
	}
	t.report.clear("full " + key)
	switch {
	case len(p.names) == 0:
		return stateEmpty
	case len(p.losers) > 0:
		return stateContested
	default:
		return stateCurrent
	}
}

func (t *Task) state(key string) *state {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.states[key]
	if s == nil {
		s = &state{traces: map[string]trace{}, claims: map[workload]answer{}, sought: map[types.UID]bool{}}
		t.states[key] = s
	}
	return s
}

func (t *Task) setStatus(key, status string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.states[key]; s != nil {
		s.status = status
	}
}

// forget drops a key of which nothing is left.
func (t *Task) forget(key string) {
	t.report.clear("full " + key)
	t.report.clear("foreign " + key)
	t.tellRivals(key, plan{})
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.states, key)
}

// hash is of everything that a Role follows from.
func (f found) hash() uint64 {
	h := fnv.New64a()
	for _, owner := range f.claimants() {
		_, _ = fmt.Fprintln(h, owner.uid, f.members[owner]) // a hash takes everything
	}
	return h.Sum64()
}
