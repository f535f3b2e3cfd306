package pullsecrets

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// shelf is a ledger on the fake clientset, with what it wrote.
type shelf struct {
	*ledger
	client *fake.Clientset
}

func newShelf(t *testing.T, existing ...runtime.Object) *shelf {
	t.Helper()
	client := fake.NewClientset(existing...)
	s := &shelf{newLedger(client.CoreV1().ConfigMaps("chandler"), func(pair) {}), client}
	if err := s.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	client.ClearActions()
	return s
}

func ledgerMap(host string, namespaces ...string) *corev1.ConfigMap {
	object := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "chandler", Name: ledgerPrefix + host, Labels: map[string]string{"chandler.dev/task": "pullsecrets"},
			Annotations: map[string]string{expiresAnnotation: "2026-11-21T20:15:04Z"},
		},
		Data: map[string]string{},
	}
	for _, namespace := range namespaces {
		object.Data[namespace] = ""
	}
	return object
}

// stored returns the namespaces in the ConfigMap, and false if there is none.
func (s *shelf) stored(t *testing.T) ([]string, bool) {
	t.Helper()
	object, err := s.client.CoreV1().ConfigMaps("chandler").Get(t.Context(), ledgerPrefix+irish, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, false
	}
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(object.Data)), true
}

func (s *shelf) wantStored(t *testing.T, want ...string) {
	t.Helper()
	got, _ := s.stored(t)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ledger -want +got:\n%s", diff)
	}
}

// verbs returns the verbs of the requests so far, without Gets of the test.
func (s *shelf) verbs() []string {
	var verbs []string
	for _, action := range s.client.Actions() {
		if action.GetVerb() != "get" {
			verbs = append(verbs, action.GetVerb())
		}
	}
	return verbs
}

func TestLedgerGathersEntries(t *testing.T) {
	s := newShelf(t)
	var waiting []string
	for i := range 500 {
		waiting = append(waiting, fmt.Sprintf("team-%03d", i))
	}
	var wg sync.WaitGroup
	for _, namespace := range waiting {
		wg.Go(func() {
			if err := s.enter(t.Context(), irish, namespace, func() []string { return waiting }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if diff := cmp.Diff([]string{"create"}, s.verbs()); diff != "" {
		t.Errorf("requests -want +got:\n%s", diff)
	}
	if got, _ := s.stored(t); len(got) != 500 {
		t.Errorf("got %d entries, want 500", len(got))
	}
}

func TestLedgerEntersBeforeItReturns(t *testing.T) {
	s := newShelf(t, ledgerMap(irish, "team-a"))
	refuse := errors.New("refused")
	s.client.PrependReactor("patch", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, refuse })
	err := s.enter(t.Context(), irish, "team-b", func() []string { return nil })
	if !errors.Is(err, refuse) || s.holds(pair{"team-b", irish}) {
		t.Errorf("got %v, holds %t, want the error and no entry", err, s.holds(pair{"team-b", irish}))
	}
	if err := s.enter(t.Context(), irish, "team-a", nil); err != nil {
		t.Errorf("an entry that is there: %v", err)
	}
}

// A namespace can lose its label while its entry is being written. When its Secret
// was looked at then, there was no entry, so it has to be looked at again.
func TestLedgerTellsOfEntries(t *testing.T) {
	s := newShelf(t, ledgerMap(irish, "team-a"))
	var told []string
	s.entered = func(p pair) {
		if !s.holds(p) {
			t.Errorf("told of %s before it is an entry", p.key())
		}
		told = append(told, p.namespace)
	}
	if err := s.enter(t.Context(), irish, "team-b", func() []string { return []string{"team-c"} }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(told)
	if diff := cmp.Diff([]string{"team-b", "team-c"}, told); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestLedgerLoads(t *testing.T) {
	stray := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: "chandler", Name: "stray", Labels: map[string]string{"chandler.dev/task": "pullsecrets"},
	}}
	undated := ledgerMap(PublicHost, "team-c")
	undated.Annotations[expiresAnnotation] = "tomorrow"
	s := newShelf(t, ledgerMap(irish, "team-a", "team-b"), undated, stray)
	got := s.pairs()
	slices.SortFunc(got, func(a, b pair) int { return slices.Compare([]string{a.key()}, []string{b.key()}) })
	want := []pair{{"team-a", irish}, {"team-b", irish}, {"team-c", PublicHost}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(pair{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got, want := s.expires(irish), time.Date(2026, 11, 21, 20, 15, 4, 0, time.UTC); !got.Equal(want) {
		t.Errorf("got expiry %s, want %s", got, want)
	}
	if got := s.expires(PublicHost); !got.IsZero() {
		t.Errorf("got expiry %s, want none", got)
	}
}

func TestLedgerLoadsPages(t *testing.T) {
	client := fake.NewClientset()
	pages := map[string]*corev1.ConfigMapList{
		"":  {ListMeta: metav1.ListMeta{Continue: "2"}, Items: []corev1.ConfigMap{*ledgerMap(irish, "team-a")}},
		"2": {Items: []corev1.ConfigMap{*ledgerMap(PublicHost, "team-b")}},
	}
	client.PrependReactor("list", "configmaps", func(action clienttesting.Action) (bool, runtime.Object, error) {
		list, ok := action.(clienttesting.ListActionImpl)
		if !ok {
			return false, nil, nil
		}
		return true, pages[list.ListOptions.Continue], nil
	})
	l := newLedger(client.CoreV1().ConfigMaps("chandler"), func(pair) {})
	if err := l.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := len(l.pairs()); got != 2 {
		t.Errorf("got %d entries, want 2 from two pages", got)
	}
}

func TestLedgerRemoves(t *testing.T) {
	s := newShelf(t, ledgerMap(irish, "team-a", "team-b", "team-c"))
	s.leave(pair{"team-a", irish})
	s.leave(pair{"team-b", irish})
	s.leave(pair{"unknown", irish})
	if s.holds(pair{"team-a", irish}) {
		t.Error("holds an entry that is leaving")
	}
	// Labelled again before the flush.
	if err := s.enter(t.Context(), irish, "team-b", func() []string { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantStored(t, "team-b", "team-c")
	s.leave(pair{"team-b", irish})
	s.leave(pair{"team-c", irish})
	if err := s.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, there := s.stored(t); there {
		t.Error("the empty ledger is still there")
	}
	// And from the start.
	if err := s.enter(t.Context(), irish, "team-d", func() []string { return nil }); err != nil {
		t.Fatal(err)
	}
	s.wantStored(t, "team-d")
}

func TestLedgerMendsItself(t *testing.T) {
	s := newShelf(t, ledgerMap(irish, "team-a", "team-b"))
	err := s.client.CoreV1().ConfigMaps("chandler").Delete(t.Context(), ledgerPrefix+irish, metav1.DeleteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.leave(pair{"team-b", irish})
	if err := s.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := s.expires(irish)
	if err := s.assert(t.Context(), irish, []string{"team-a"}, time.Unix(1.8e9, 0)); err != nil {
		t.Fatal(err)
	}
	s.wantStored(t, "team-a")
	if got := s.expires(irish); !got.Equal(before) {
		t.Errorf("got expiry %s, want it as it was until the Secrets are written", got)
	}
	if err := s.record(t.Context(), irish, time.Unix(1.8e9, 0)); err != nil {
		t.Fatal(err)
	}
	if got := s.expires(irish); !got.Equal(time.Unix(1.8e9, 0)) {
		t.Errorf("got expiry %s, want the one recorded", got)
	}
}

func TestLedgerOfAccounts(t *testing.T) {
	a := pair{"team-a", irish}
	s := newShelf(t, ledgerMap(irish, "team-a", "team-a.default", "team-b", "team-b.a.dotted.name"))
	if diff := cmp.Diff([]string{"a.dotted.name"}, s.accounts(pair{"team-b", irish})); diff != "" {
		t.Errorf("accounts -want +got:\n%s", diff)
	}
	if got := len(s.pairs()); got != 2 {
		t.Errorf("got %d namespaces, want 2", got)
	}
	s.entered = func(p pair) { t.Errorf("told of %s, want namespaces alone", p.key()) }
	if err := s.enter(t.Context(), irish, accountKey("team-a", "builder"), func() []string { return nil }); err != nil {
		t.Fatal(err)
	}
	s.leaveAccount(a, "default")
	if diff := cmp.Diff([]string{"builder"}, s.accounts(a)); diff != "" {
		t.Errorf("accounts -want +got:\n%s", diff)
	}
	if err := s.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantStored(t, "team-a", "team-a.builder", "team-b", "team-b.a.dotted.name")
	s.leave(a)
	if err := s.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantStored(t, "team-b", "team-b.a.dotted.name")
	if got := s.accounts(a); len(got) != 0 {
		t.Errorf("got accounts %v of a namespace that left, want none", got)
	}
}

func TestLedgerOfAnotherLeader(t *testing.T) {
	s := newShelf(t)
	_, err := s.client.CoreV1().ConfigMaps("chandler").Create(t.Context(), ledgerMap(irish, "team-a"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.enter(t.Context(), irish, "team-b", func() []string { return nil }); err != nil {
		t.Fatal(err)
	}
	s.wantStored(t, "team-a", "team-b")
	// Emptied by us, but the other leader has written since.
	s.client.PrependReactor("delete", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewConflict(corev1.Resource("configmaps"), ledgerPrefix+irish, nil)
	})
	s.client.PrependReactor("patch", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) {
		patched := ledgerMap(irish, "team-a")
		patched.ResourceVersion = "7"
		return true, patched, nil
	})
	s.leave(pair{"team-b", irish})
	if err := s.flush(t.Context()); err != nil {
		t.Errorf("got %v, want the conflict to be an ordinary outcome", err)
	}
}

func TestLedgerWaitsNoLongerThanItsCaller(t *testing.T) {
	s := newShelf(t)
	s.mu.Lock()
	b := s.book(irish)
	s.mu.Unlock()
	b.writing <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.enter(ctx, irish, "team-a", func() []string { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
}
