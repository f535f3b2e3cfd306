package podlogs

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
)

func withAccounts(o *Options) { o.CreateServiceAccounts = true }

// addStatefulSet makes the API server know a labelled one.
func (p *play) addStatefulSet(t *testing.T, name string, uid types.UID) workload {
	t.Helper()
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: uid}}
	set.Spec.Template.Labels = map[string]string{labelKey: enabled}
	if err := p.client.Tracker().Add(set); err != nil {
		t.Fatal(err)
	}
	return workload{statefulSet, name, uid}
}

// TestMadeAndDeletedUnseen has a ServiceAccount and a RoleBinding deleted so soon that
// the watches never show them to a Sync.
func TestMadeAndDeletedUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t, withAccounts)
		web := p.addStatefulSet(t, "web", "1")
		put(t, p.pods, pod("web-0", web))
		p.sync(t, "ns/web")
		p.showRole(t, "web")
		for _, resource := range []string{accounts, bindings} {
			if got := p.counts()["create "+resource]; got != 1 {
				t.Fatalf("got %d creations of %s, want 1", got, resource)
			}
		}
		err1 := p.client.CoreV1().ServiceAccounts("ns").Delete(t.Context(), prefix+"web", metav1.DeleteOptions{})
		err2 := p.client.RbacV1().RoleBindings("ns").Delete(t.Context(), prefix+"web", metav1.DeleteOptions{})
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		again := p.once(t, "ns/web") // at the news of the deletion
		if again == 0 {
			t.Fatal("got no other look at what the watches do not show, want one")
		}
		time.Sleep(again)
		p.sync(t, "ns/web")
		for _, resource := range []string{accounts, bindings} {
			if got := p.counts()["create "+resource]; got != 2 {
				t.Errorf("got %d creations of %s, want 2", got, resource)
			}
		}
		show(t, p.accounts, web)
		show(t, p.bindings, web)
		p.sync(t, "ns/web")
		before := p.counts()
		p.sync(t, "ns/web")
		if after := p.counts(); fmt.Sprint(before) != fmt.Sprint(after) {
			t.Errorf("got requests %v, then %v, want none when all is there", before, after)
		}
	})
}

// TestForgedClaims has pods appear that claim to belong to StatefulSets of one name
// with UIDs that never were.
func TestForgedClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t)
		put(t, p.pods, pod("web-0", p.addStatefulSet(t, "web", "1")))
		p.sync(t, "ns/web")
		p.showRole(t, "web")
		const forgeries = 30
		for i := range forgeries {
			put(t, p.pods, pod(fmt.Sprint("forged-", i), workload{statefulSet, "web", types.UID(fmt.Sprint("forged-", i))}))
			p.sync(t, "ns/web")
		}
		if got := p.counts(); got["get statefulsets"] > forgeries || got["create roles"] != 1 || got["update roles"] > 0 {
			t.Errorf("got requests %v for %d claims one by one, want at most one read for each, and no write", got, forgeries)
		}
		time.Sleep(2 * burst)
		before := p.counts()["get statefulsets"]
		for i := range forgeries {
			put(t, p.pods, pod(fmt.Sprint("again-", i), workload{statefulSet, "web", types.UID(fmt.Sprint("again-", i))}))
		}
		p.sync(t, "ns/web")
		if got := p.counts()["get statefulsets"] - before; got != 1 {
			t.Errorf("got %d reads for %d claims at once, want 1", got, forgeries)
		}
		if got := p.states["ns/web"].status; got != stateCurrent {
			t.Errorf("got state %s, want %s: none of the others exists", got, stateCurrent)
		}
		// Those that come one by one in no time are read for at a pace.
		before, begin := p.counts()["get statefulsets"], time.Now()
		for i := range forgeries {
			put(t, p.pods, pod(fmt.Sprint("more-", i), workload{statefulSet, "web", types.UID(fmt.Sprint("more-", i))}))
			p.once(t, "ns/web")
			time.Sleep(20 * time.Millisecond)
		}
		if got := p.counts()["get statefulsets"] - before; got > 5 {
			t.Errorf("got %d reads for %d claims in %s, want a handful", got, forgeries, time.Since(begin))
		}
	})
}

// TestLateWatch has the watch show nothing for a minute of what was made: it is ours
// all the same.
func TestLateWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t, withAccounts)
		web := p.addStatefulSet(t, "web", "1")
		put(t, p.pods, pod("web-0", web))
		for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(echo) {
			p.sync(t, "ns/web")
		}
		if got := p.states["ns/web"].status; got == stateForeign || len(p.recorder.Events) > 0 {
			t.Errorf("got state %q and %d Events about a Role of ours", got, len(p.recorder.Events))
		}
		if got := p.counts(); got["create roles"] > 7 || got["list roles"] > 5 {
			t.Errorf("got requests %v in a minute, want a few", got)
		}
		p.showRole(t, "web")
		show(t, p.accounts, web)
		show(t, p.bindings, web)
		p.sync(t, "ns/web")
		if got := p.states["ns/web"].status; got != stateCurrent {
			t.Errorf("got state %s once it is shown, want %s", got, stateCurrent)
		}
	})
}

// TestTheirAccount has a ServiceAccount and a RoleBinding of somebody else: they are
// tried twice, since another leader's would be shown in between, and then left alone.
func TestTheirAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t, withAccounts)
		web := p.addStatefulSet(t, "web", "1")
		name := metav1.ObjectMeta{Namespace: "ns", Name: prefix + "web"}
		for _, object := range []runtime.Object{&corev1.ServiceAccount{ObjectMeta: name}, &rbacv1.RoleBinding{ObjectMeta: name}} {
			if err := p.client.Tracker().Add(object); err != nil {
				t.Fatal(err)
			}
		}
		put(t, p.pods, pod("web-0", web))
		p.sync(t, "ns/web")
		p.showRole(t, "web")
		for range 10 {
			time.Sleep(echo)
			p.sync(t, "ns/web")
		}
		if got := p.counts(); got["create serviceaccounts"] != 2 || got["create rolebindings"] != 2 || got["get statefulsets"] > 0 {
			t.Errorf("got requests %v, want each made twice and nothing read", got)
		}
		if got := p.states["ns/web"].status; got != stateCurrent {
			t.Errorf("got state %s, want %s", got, stateCurrent)
		}
	})
}

// TestFailuresArePaced has pods come and go while a policy is missing, or a workload
// cannot be read.
func TestFailuresArePaced(t *testing.T) {
	web := workload{statefulSet, "web", "1"}
	failing := map[string]struct {
		verb, resource string
		empty          runtime.Object
		rivals         bool // each pod claims to be of another StatefulSet
		most           int
	}{
		"policy":   {"create", "roles", &rbacv1.Role{}, false, 1}, // the first dry run of one proof
		"workload": {"get", "statefulsets", &appsv1.StatefulSet{}, true, 6},
	}
	for name, test := range failing {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlay(t)
				requests := 0
				p.client.PrependReactor(test.verb, test.resource, func(clienttesting.Action) (bool, runtime.Object, error) {
					requests++
					return true, test.empty, apierrors.NewForbidden(rbacv1.Resource(test.resource), "web", errors.New("no RBAC rule"))
				})
				if err := p.client.Tracker().Add(&rbacv1.Role{ObjectMeta: objectMeta("ns", web)}); err != nil {
					t.Fatal(err)
				}
				p.showRole(t, "web") // of the leader before
				failures := 0
				for i := range 30 {
					owner := web
					if test.rivals {
						owner.uid = types.UID(fmt.Sprint("forged-", i))
					}
					put(t, p.pods, pod(fmt.Sprint("web-", i), owner))
					if _, err := p.Sync(t.Context(), "ns/web"); err != nil {
						failures++
					}
					time.Sleep(20 * time.Millisecond)
				}
				time.Sleep(longestGap)
				if _, err := p.Sync(t.Context(), "ns/web"); err == nil {
					t.Error("got no error")
				}
				if requests > test.most || requests == 0 || failures > 6 {
					t.Errorf("got %d requests and %d failures for 30 changes in 600 ms, want at most %d and a handful", requests, failures, test.most)
				}
				// What has failed is tried again at the pace of its backoff.
				if again, err := p.Sync(t.Context(), "ns/web"); err == nil {
					t.Errorf("got no error but another look after %s, which would end the backoff", again)
				}
			})
		})
	}
}
