package pullsecrets

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/chandler-k8s/chandler/leader"
)

const (
	// foreignRetry is how often a Secret that is not ours is tried again, besides
	// at each renewal: its removal cannot be seen.
	foreignRetry = 15 * time.Minute
	// tidyInterval gathers removals from the ledger into one write.
	tidyInterval = 2 * time.Second
)

// secretState is what a term knows of a Secret that it may have written. The
// zero value is one that the ledger names.
type secretState struct {
	content *content // as written; nil if unknown
	uid     types.UID
	resync  string
	foreign time.Time // when the API server last refused it as not ours
}

func (s secretState) wrote(c *content, namespace *metav1.PartialObjectMetadata) bool {
	return s.content == c && s.of(namespace)
}

func (s secretState) of(namespace *metav1.PartialObjectMetadata) bool {
	return s.uid == namespace.UID && s.resync == namespace.Annotations[resyncAnnotation]
}

// syncLedger loads the ledger, whereupon everything is looked at, removes entries
// from it and records when Secrets expire.
func (t *Task) syncLedger(ctx context.Context) (time.Duration, error) {
	if !t.ledger.ready() {
		if err := t.ledger.load(ctx); err != nil {
			return 0, err
		}
		for _, p := range t.ledger.pairs() {
			t.setState(p, secretState{})
			t.enqueue(p.key())
		}
		for _, host := range t.namespaces.ListIndexFuncValues(byHost) {
			t.enqueue(host)
		}
	}
	t.mu.Lock()
	since := time.Since(t.tidied)
	if since >= tidyInterval {
		t.tidied = time.Now()
	}
	t.mu.Unlock()
	if since < tidyInterval {
		return tidyInterval - since, nil
	}
	t.report.remind()
	if err := t.ledger.flush(ctx); err != nil {
		return 0, err
	}
	return remindInterval, t.recordExpiries(ctx)
}

// entered looks again at a namespace that lost its label while its entry was being
// written: when it was looked at then, nothing was known of it.
func (t *Task) entered(p pair) {
	if do, _ := decide(t.namespace(p.namespace), p.host, t.opts.Public); do != supply {
		t.enqueue(p.key())
	}
}

// syncSecret makes one namespace's Secret for one registry right.
func (t *Task) syncSecret(ctx context.Context, p pair) (time.Duration, error) {
	namespace := t.namespace(p.namespace)
	do, problem := decide(namespace, p.host, t.opts.Public)
	t.tellLabel(p, problem)
	switch do {
	case supply:
		return t.supply(ctx, p, namespace)
	case remove:
		return t.remove(ctx, p)
	case forget:
		t.forget(p)
	}
	return 0, nil
}

func (t *Task) tellLabel(p pair, problem string) {
	about := "label " + p.key()
	if problem == "" {
		t.report.clear(about)
		return
	}
	t.report.warn(about, namespaceReference(p.namespace), reasonLabel, problem)
}

func (t *Task) supply(ctx context.Context, p pair, namespace *metav1.PartialObjectMetadata) (time.Duration, error) {
	current := t.content(p.host)
	if !current.usable(time.Now()) {
		return 0, nil // the registry's next token enqueues it
	}
	state, known := t.state(p)
	if age := time.Since(state.foreign); age < foreignRetry && state.wrote(current, namespace) {
		return foreignRetry - age, nil
	}
	if !state.foreign.IsZero() || !state.wrote(current, namespace) {
		again, err := t.write(ctx, p, namespace, current, known || t.opts.Adopt)
		if again > 0 || err != nil {
			return again, err
		}
	}
	return t.syncAccounts(ctx, p)
}

// write writes the Secret and remembers how that ended. exists is a guess that
// saves a request if it is right.
func (t *Task) write(ctx context.Context, p pair, namespace *metav1.PartialObjectMetadata, current *content, exists bool) (time.Duration, error) {
	waiting := func() []string { return t.asking(p.host) }
	if err := t.ledger.enter(ctx, p.host, p.namespace, waiting); err != nil {
		return 0, err
	}
	state := secretState{content: current, uid: namespace.UID, resync: namespace.Annotations[resyncAnnotation]}
	err := t.put(ctx, p, current, exists)
	about := "secret " + p.key()
	switch {
	case err == nil:
		t.setState(p, state)
		t.report.clear(about)
		t.opts.Metrics.created.Inc()
		t.enqueue(ledgerKey) // it may be the last to get the new token
		return 0, nil
	case refused(err):
		state.foreign = time.Now()
		t.setState(p, state)
		t.report.warn(about, namespaceReference(p.namespace), reasonForeign,
			fmt.Sprintf("pull secret %s left alone: %s", p.host, reasonFor(err)))
		return foreignRetry, nil
	case leader.NamespaceEnding(err):
		return 0, nil // its end is an event
	default:
		return 0, fmt.Errorf("write pull secret %s: %w", p.key(), err)
	}
}

// put creates or updates the Secret in one request, or in two if the guess
// whether it exists is wrong. Only an update could hurt what is not ours.
func (t *Task) put(ctx context.Context, p pair, current *content, exists bool) error {
	client := t.client.CoreV1().Secrets(p.namespace)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: p.host, Labels: map[string]string{leader.TaskLabel: Name}},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data:       map[string][]byte{corev1.DockerConfigJsonKey: []byte(current.data.reveal())},
	}
	create := func() error {
		_, err := client.Create(ctx, secret, metav1.CreateOptions{FieldManager: leader.FieldManager})
		return t.opts.Metrics.wrote(opCreate, err)
	}
	update := func() error {
		if err := t.guard.Check(ctx); err != nil {
			return err
		}
		_, err := client.Update(ctx, secret, metav1.UpdateOptions{FieldManager: leader.FieldManager})
		return t.opts.Metrics.wrote(opUpdate, err)
	}
	if exists {
		if err := update(); !apierrors.IsNotFound(err) {
			return err
		}
		return create()
	}
	if err := create(); !apierrors.IsAlreadyExists(err) {
		return err
	}
	return update()
}

// remove deletes the Secret if it may be there, what refers to it first.
func (t *Task) remove(ctx context.Context, p pair) (time.Duration, error) {
	t.report.clear("secret " + p.key())
	if _, known := t.state(p); !known && !t.ledger.holds(p) {
		return 0, nil
	}
	again, err := t.leaveAccounts(ctx, p, t.ledger.accounts(p))
	if again == accountRetry || err != nil {
		return again, err
	}
	if err := t.guard.Check(ctx); err != nil {
		return 0, err
	}
	err = t.client.CoreV1().Secrets(p.namespace).Delete(ctx, p.host, metav1.DeleteOptions{})
	_ = t.opts.Metrics.wrote(opDelete, err) // told by the branches below
	switch {
	case err == nil:
		t.log.Info("pull secret removed", "namespace", p.namespace, "name", p.host)
	case refused(err):
		t.log.Info("pull secret of somebody else left alone", "namespace", p.namespace, "name", p.host)
	case !apierrors.IsNotFound(err):
		return 0, fmt.Errorf("remove pull secret %s: %w", p.key(), err)
	}
	if again == 0 { // else the ledger keeps what is left to do
		t.forget(p)
	}
	return again, nil
}

// forget drops a Secret that is gone.
func (t *Task) forget(p pair) {
	t.report.clear("secret " + p.key())
	t.mu.Lock()
	delete(t.secrets, p)
	t.mu.Unlock()
	if t.ledger.holds(p) {
		t.ledger.leave(p)
		t.enqueue(ledgerKey)
	}
}

// namespace returns nil if there is no such namespace.
func (t *Task) namespace(name string) *metav1.PartialObjectMetadata {
	obj, exists, err := t.namespaces.GetByKey(name)
	if err != nil || !exists {
		return nil // the store never returns an error
	}
	namespace, _ := obj.(*metav1.PartialObjectMetadata)
	return namespace
}

func (t *Task) state(p pair) (state secretState, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	state, known = t.secrets[p]
	return state, known
}

func (t *Task) setState(p pair, state secretState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.secrets[p] = state
}
