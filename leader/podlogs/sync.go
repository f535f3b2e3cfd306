package podlogs

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
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
	// echo is how long a write may take to come back by the watch.
	echo = 2 * time.Second
)

// state is what a term knows of one key besides what the watches show. It belongs
// to the Sync of its key, but for what the collector reads.
type state struct {
	pace pace
	// known has, by resource, the workload that our object was last seen for; a Role
	// also as soon as it is made.
	known map[string]types.UID
	// tried has the ServiceAccount and RoleBinding that were made or found to be there,
	// and that the watches have not shown since.
	tried map[string]bool
	// made is when the Role was last made.
	made time.Time
	// taken is since when the Role's name is known to be taken by one that the watch
	// does not show; foreign is when that was last found to be somebody else's.
	taken, foreign time.Time
	// rivals are the claimants that the API server was last asked about, and winner
	// is the one whose Role it is.
	rivals []workload
	winner workload

	status string // guarded by Task.mu
}

// plan is what to make of a key.
type plan struct {
	owner workload // the zero value means that nothing of ours belongs there
	names []string
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
	s := t.state(key)
	s.observe(f)
	now := time.Now()
	if wait := s.hold(f, now); wait > 0 {
		return wait, nil
	}
	owner, sole := f.sole()
	sole = sole && !t.vanished(f, s, owner)
	if sole && t.isRight(f, s, namespace, owner) {
		s.pace.calm()
		t.settled(key, f, owner)
		return 0, nil
	}
	if wait := s.pace.wait(f.hash(), f.role == nil, now); wait > 0 {
		return wait, nil
	}
	if sole {
		return t.carryOut(ctx, key, f, s, plan{owner, f.members[owner]})
	}
	p, err := t.choose(ctx, key, namespace, f, s)
	if err != nil {
		// Until it answers, the Role must at least list no pod that is gone.
		if recorded, ok := f.recorded(); ok && f.role != nil {
			_, writing := t.writeRole(ctx, key, f, s, plan{recorded, f.members[recorded]})
			err = errors.Join(err, writing)
		}
		return 0, err
	}
	return t.carryOut(ctx, key, f, s, p)
}

func (t *Task) carryOut(ctx context.Context, key string, f found, s *state, p plan) (time.Duration, error) {
	if p.owner == (workload{}) {
		s.pace.calm()
		return 0, t.remove(ctx, key, f)
	}
	again, err := t.supply(ctx, key, f, s, p)
	if again > 0 || err != nil {
		return again, err
	}
	s.pace.calm()
	t.settled(key, f, p.owner)
	if len(p.names) == 0 {
		return emptyCheck - rand.N(emptyCheck/5), nil
	}
	return 0, nil
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

// observe takes in what the watches show.
func (s *state) observe(f found) {
	if f.role != nil {
		s.taken, s.foreign = time.Time{}, time.Time{}
	}
	for resource, object := range f.made() {
		delete(s.tried, resource)
		if owner, ok := ownerOf(object); ok {
			s.known[resource] = owner.uid
		}
	}
}

// hold returns how long to leave a key alone whose Role the watch does not show:
// until it must have shown one that we made, and longer if it is somebody else's.
func (s *state) hold(f found, now time.Time) time.Duration {
	if f.role != nil {
		return 0
	}
	return max(0, s.made.Add(echo).Sub(now), s.foreign.Add(foreignRetry).Sub(now))
}

// vanished reports whether something that was there for this workload is not any
// more. So it is when a workload has been deleted and its pods are still seen.
func (t *Task) vanished(f found, s *state, owner workload) bool {
	there := f.made()
	for _, resource := range t.wanted() {
		if _, ok := there[resource]; !ok && s.known[resource] == owner.uid {
			return true
		}
	}
	return false
}

// wanted lists the resources that a workload with pods gets.
func (t *Task) wanted() []string {
	if t.opts.CreateServiceAccounts {
		return []string{roles, accounts, bindings}
	}
	return []string{roles}
}

// isRight reports whether nothing has to be written for a workload with pods.
func (t *Task) isRight(f found, s *state, namespace string, owner workload) bool {
	there := f.made()
	for _, resource := range t.wanted() {
		if _, ok := there[resource]; !ok && !s.tried[resource] {
			return false
		}
	}
	return f.role != nil && sameRole(f.role, t.role(namespace, plan{owner, f.members[owner]}))
}

// choose asks the API server which of the claimants there are, unless it has said
// so before, and returns the plan that follows.
func (t *Task) choose(ctx context.Context, key, namespace string, f found, s *state) (plan, error) {
	claimants := f.claimants()
	if slices.Equal(claimants, s.rivals) && len(f.members[s.winner]) > 0 {
		return plan{s.winner, f.members[s.winner]}, nil
	}
	answers := make([]answer, 0, len(claimants))
	for _, claimant := range claimants {
		a, err := t.ask(ctx, namespace, claimant)
		if err != nil {
			return plan{}, err
		}
		answers = append(answers, a)
	}
	winner, ok, losers := f.elect(answers)
	t.tellRivals(key, namespace, winner, losers)
	s.rivals, s.winner = claimants, winner
	if !ok {
		return plan{}, nil
	}
	return plan{winner, f.members[winner]}, nil
}

// role returns the Role of a workload with pods of the given names.
func (t *Task) role(namespace string, p plan) *rbacv1.Role {
	names := p.names[:min(len(p.names), maxPods)]
	return &rbacv1.Role{ObjectMeta: objectMeta(namespace, p.owner), Rules: rules(names, t.opts.ListPods)}
}

// settled notes that a Role is as it has to be.
func (t *Task) settled(key string, f found, owner workload) {
	namespace, _, _ := strings.Cut(key, "/")
	pods := len(f.members[owner])
	status := stateCurrent
	switch {
	case pods == 0:
		status = stateEmpty
	case pods > maxPods:
		status = stateFull
		t.report.warn("full "+key, reference(namespace, owner), reasonFull,
			fmt.Sprintf("of %d pods, Role %s lists the first %d by name: an object cannot hold more", pods, prefix+owner.name, maxPods))
	case len(f.members) > 1:
		status = stateContested
	}
	if pods <= maxPods {
		t.report.clear("full " + key)
	}
	t.report.clear("foreign " + key)
	t.setStatus(key, status)
}

func (t *Task) state(key string) *state {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.states[key]
	if s == nil {
		s = &state{known: map[string]types.UID{}, tried: map[string]bool{}}
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
	for _, about := range []string{"full ", "foreign ", "taken "} {
		t.report.clear(about + key)
	}
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
