package podlogs

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/chandler-k8s/chandler/leader"
)

// handOver has a Role, a RoleBinding and a ServiceAccount without owner get our label.
func (p *play) handOver(t *testing.T, name string) {
	t.Helper()
	meta := metav1.ObjectMeta{Namespace: "ns", Name: prefix + name, UID: "role", Labels: map[string]string{leader.TaskLabel: Name}}
	if err := p.client.Tracker().Add(&rbacv1.Role{ObjectMeta: meta, Rules: rules([]string{"theirs"}, true)}); err != nil {
		t.Fatal(err)
	}
	p.showRole(t, name)
	for uid, indexer := range map[types.UID]interface{ Update(any) error }{"account": p.accounts, "binding": p.bindings} {
		meta.UID = uid
		if err := indexer.Update(&metav1.PartialObjectMetadata{ObjectMeta: meta}); err != nil {
			t.Fatal(err)
		}
	}
}

// wantEmpty wants the Role to belong to an owner and to list no pod.
func (p *play) wantEmpty(t *testing.T, owner workload) {
	t.Helper()
	role, err := p.client.RbacV1().Roles("ns").Get(t.Context(), prefix+owner.name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rules(nil, true), role.Rules); diff != "" {
		t.Errorf("rules -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(objectMeta("ns", owner).OwnerReferences, role.OwnerReferences); diff != "" {
		t.Errorf("owners -want +got:\n%s", diff)
	}
}

// tally counts requests of a verb; the tests themselves get Roles.
func (p *play) tally(verb string) (n int) {
	for request, count := range p.counts() {
		if strings.HasPrefix(request, verb+" ") && request != "get roles" {
			n += count
		}
	}
	return n
}

// TestHandedOverAtZero hands over what has no owner and whose workload has no pods.
func TestHandedOverAtZero(t *testing.T) {
	labelled := map[string]string{labelKey: enabled}
	web := metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "1"}
	ending, ofCron := web, web
	now, yes := metav1.Now(), true
	ending.DeletionTimestamp, ending.Finalizers = &now, []string{"example.com/stay"}
	ofCron.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: cronJob, Name: "nightly", UID: "2", Controller: &yes}}
	with := func(object runtime.Object, labels map[string]string) runtime.Object {
		switch object := object.(type) {
		case *appsv1.Deployment:
			object.Spec.Template.Labels = labels
		case *batchv1.Job:
			object.Spec.Template.Labels = labels
		case *batchv1.CronJob:
			object.Spec.JobTemplate.Spec.Template.Labels = labels
		}
		return object
	}
	for _, test := range []struct {
		name   string
		object runtime.Object
		kind   string // of the owner that it gets, or else it is deleted
	}{
		{"Deployment", with(&appsv1.Deployment{ObjectMeta: web}, labelled), deployment},
		{"CronJob", with(&batchv1.CronJob{ObjectMeta: web}, labelled), cronJob},
		{"Job", with(&batchv1.Job{ObjectMeta: web}, labelled), job},
		{"Job of a CronJob", with(&batchv1.Job{ObjectMeta: ofCron}, labelled), ""},
		{"not labelled", &appsv1.Deployment{ObjectMeta: web}, ""},
		{"being deleted", with(&appsv1.Deployment{ObjectMeta: ending}, labelled), ""},
		{"nothing", nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlay(t)
				if test.object != nil {
					if err := p.client.Tracker().Add(test.object); err != nil {
						t.Fatal(err)
					}
				}
				p.handOver(t, "web")
				p.sync(t, "ns/web")
				if got := p.tally("get"); got > len(kinds()) {
					t.Errorf("got %d reads, want at most one of each kind", got)
				}
				if test.kind == "" {
					if got := p.counts(); got["delete roles"] != 1 || got["delete rolebindings"] != 1 || got["delete serviceaccounts"] != 1 {
						t.Errorf("got requests %v, want all deleted", got)
					}
					return
				}
				p.wantEmpty(t, workload{test.kind, "web", "1"})
				p.showRole(t, "web")
				p.sync(t, "ns/web")
				if got := p.tally("get"); got > len(kinds())+1 || p.tally("delete") > 0 || p.tally("update") != 1 {
					t.Errorf("got requests %v, want one update, and one read more since its owner is known", p.counts())
				}
			})
		})
	}
}

// TestOwnerStripped takes the owner from a Role whose workload is scaled to zero.
func TestOwnerStripped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t)
		web := p.addStatefulSet(t, "web", "1")
		member := pod("web-0", web)
		put(t, p.pods, member)
		p.sync(t, "ns/web")
		p.showRole(t, "web")
		if err := p.pods.Delete(member); err != nil {
			t.Fatal(err)
		}
		p.sync(t, "ns/web")
		p.wantEmpty(t, web)

		role, err := p.client.RbacV1().Roles("ns").Get(t.Context(), prefix+"web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		role.OwnerReferences = nil
		if _, err := p.client.RbacV1().Roles("ns").Update(t.Context(), role, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		p.showRole(t, "web")
		p.sync(t, "ns/web")
		p.wantEmpty(t, web)
		if got := p.tally("delete"); got > 0 {
			t.Errorf("got requests %v, want nothing deleted", p.counts())
		}
	})
}

// TestUnreadableAtZero has no answer on whose a Role is: it grants nothing, and stays.
func TestUnreadableAtZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlay(t)
		p.client.PrependReactor("get", "cronjobs", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, &batchv1.CronJob{}, apierrors.NewForbidden(batchv1.Resource("cronjobs"), "web", errors.New("no RBAC rule"))
		})
		p.handOver(t, "web")
		var err error
		for again := quietNew; again > 0; {
			again, err = p.Sync(t.Context(), "ns/web")
			if again > 0 {
				time.Sleep(again)
			}
		}
		if err == nil {
			t.Error("got no error, want that of the read")
		}
		role, err := p.client.RbacV1().Roles("ns").Get(t.Context(), prefix+"web", metav1.GetOptions{})
		if err != nil || len(role.Rules) > 0 {
			t.Errorf("got rules %v, %v, want a Role without any", role.Rules, err)
		}
	})
}
