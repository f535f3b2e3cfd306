package pullsecrets

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"

	"github.com/chandler-k8s/chandler/leader"
)

// asker is a Task with a store of key Secrets.
type asker struct {
	*Task
	store    cache.Indexer
	registry Registry
}

func newAsker(t *testing.T, seen bool, ownFor []string) *asker {
	t.Helper()
	registry, err := Parse(irish)
	if err != nil {
		t.Fatal(err)
	}
	store := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	log := slog.New(slog.DiscardHandler)
	task := &Task{
		opts: Options{HostNamespace: "ci-cd", CredentialsSecretPrefix: "keys", OwnIdentityFor: ownFor},
		log:  log, began: time.Now(), registries: map[string]*registryState{},
		keys: corelisters.NewSecretLister(store).Secrets("ci-cd"), keysSeen: func() bool { return seen },
		report: newReport(leader.Term{Events: events.NewFakeRecorder(100), Log: log}),
		tokens: newTokens(nil, nil),
	}
	return &asker{task, store, registry}
}

func (a *asker) setKeys(t *testing.T, id string) {
	t.Helper()
	err := a.store.Add(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ci-cd", Name: "keys-" + irish},
		Data:       map[string][]byte{accessKeyIDKey: []byte(id), secretAccessKey: []byte(keySecret)},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// want asks and compares the access key's ID; empty is the process's own identity.
func (a *asker) want(t *testing.T, key string, target error) {
	t.Helper()
	id, _, err := a.identityOf(a.registry)
	if !errors.Is(err, target) || (err != nil) != (target != nil) || id.keys.id != key {
		t.Errorf("after %s: got identity %q and error %v, want %q and %v", time.Since(a.began), id.keys.id, err, key, target)
	}
	if err == nil {
		a.use(irish, id)
	}
}

func TestIdentityOfAKeySecretThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const one, two = "AKIAIOSFODNN7EXAMPL1", "AKIAIOSFODNN7EXAMPL2"
		a := newAsker(t, true, nil)
		a.want(t, "", nil)
		a.setKeys(t, one)
		a.want(t, one, nil)
		remove := func() {
			if err := a.store.Replace(nil, ""); err != nil {
				t.Fatal(err)
			}
		}
		remove()
		a.want(t, one, nil)
		time.Sleep(keysGrace - time.Second)
		a.want(t, one, nil)
		a.setKeys(t, two) // replaced in time
		a.want(t, two, nil)
		remove()
		a.want(t, two, nil) // a grace of its own
		_, again, _ := a.identityOf(a.registry)
		if again > keysGrace {
			t.Errorf("got another look after %s, want it when the grace ends", again)
		}
		time.Sleep(keysGrace)
		a.want(t, "", nil)
	})
}

func TestIdentityWithoutKeys(t *testing.T) {
	for _, test := range []struct {
		name        string
		seen        bool
		ownFor      []string
		first, then error // at the start of a term, and after a minute
	}{
		{"not restricted", true, nil, nil, nil},
		{"listed by host", true, []string{irish}, nil, nil},
		{"listed by account", true, []string{"123456789012"}, nil, nil},
		{"another is listed", true, []string{"999999999999"}, errNotListed, errNotListed},
		{"none is listed", true, []string{}, errNotListed, errNotListed},
		{"keys cannot be seen", false, nil, errKeysUnseen, errKeysUnseen},
		{"keys cannot be seen, listed", false, []string{irish}, errKeysUnseen, nil},
		{"keys cannot be seen, another is listed", false, []string{"999999999999"}, errKeysUnseen, errKeysUnseen},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAsker(t, test.seen, test.ownFor)
				a.want(t, "", test.first)
				time.Sleep(time.Minute)
				a.want(t, "", test.then)
			})
		})
	}
}
