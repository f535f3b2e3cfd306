package podlogs

import (
	"cmp"
	"slices"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/leader"
)

// maxPods is the most names that one Role lists. With names of 253 bytes, the
// longest, that stays below the 1.5 MiB that etcd takes in one request.
const maxPods = 5000

// found is what the watches show of one key.
type found struct {
	members          map[workload][]string // sorted names of pods
	role             *rbacv1.Role          // ours, or nil
	binding, account *metav1.PartialObjectMetadata
}

// made has the objects of ours that are there, by resource.
func (f found) made() map[string]metav1.Object {
	objects := map[string]metav1.Object{}
	if f.role != nil {
		objects[roles] = f.role
	}
	if f.binding != nil {
		objects[bindings] = f.binding
	}
	if f.account != nil {
		objects[accounts] = f.account
	}
	return objects
}

// ownerOf returns the workload that an object of ours says it belongs to.
func ownerOf(object metav1.Object) (workload, bool) {
	for _, ref := range object.GetOwnerReferences() {
		owner, ok := referred(&ref, deployment, statefulSet, daemonSet, job, cronJob)
		if ok && prefix+owner.name == object.GetName() {
			return owner, true
		}
	}
	return workload{}, false
}

// recorded returns the workload that what we made says it belongs to, the Role's
// first.
func (f found) recorded() (workload, bool) {
	made := f.made()
	for _, resource := range []string{roles, bindings, accounts} {
		if object, ok := made[resource]; ok {
			if owner, ok := ownerOf(object); ok {
				return owner, true
			}
		}
	}
	return workload{}, false
}

// claimants are the workloads that the Role may belong to, in a stable order.
func (f found) claimants() []workload {
	var claimants []workload
	for owner := range f.members {
		claimants = append(claimants, owner)
	}
	if owner, ok := f.recorded(); ok && len(f.members[owner]) == 0 {
		claimants = append(claimants, owner)
	}
	slices.SortFunc(claimants, func(a, b workload) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.uid, b.uid))
	})
	return claimants
}

// sole returns the only claimant if it has pods.
func (f found) sole() (workload, bool) {
	claimants := f.claimants()
	if len(claimants) != 1 || len(f.members[claimants[0]]) == 0 {
		return workload{}, false
	}
	return claimants[0], true
}

// answer is what the API server says of a claimant.
type answer struct {
	workload
	exists   bool // and is not being deleted
	labelled bool // its pod template carries the label
	created  time.Time
}

// elect returns the claimant whose Role it is, if any, and those that must do
// without: of those that exist and have pods or at least the label, the one that has
// the Role already, or else the oldest.
func (f found) elect(answers []answer) (winner workload, ok bool, losers []workload) {
	recorded, _ := f.recorded()
	var live []answer
	for _, a := range answers {
		if a.exists && (a.labelled || len(f.members[a.workload]) > 0) {
			live = append(live, a)
		}
	}
	if len(live) == 0 {
		return workload{}, false, nil
	}
	first := slices.MinFunc(live, func(a, b answer) int {
		if has := a.workload == recorded; has != (b.workload == recorded) {
			if has {
				return -1
			}
			return 1
		}
		return a.created.Compare(b.created)
	})
	for _, a := range live {
		if a.workload != first.workload {
			losers = append(losers, a.workload)
		}
	}
	return first.workload, true, losers
}

// rules returns those of a Role for pods of the given names. Without names there
// must be no rule on pods/log: one without resourceNames would mean every pod.
func rules(names []string, listPods bool) []rbacv1.PolicyRule {
	var all []rbacv1.PolicyRule
	if listPods {
		all = append(all, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}})
	}
	if len(names) > 0 {
		all = append(all, rbacv1.PolicyRule{
			APIGroups: []string{""}, Resources: []string{"pods/log"}, ResourceNames: names,
			Verbs: []string{"get", "list", "watch"},
		})
	}
	return all
}

// objectMeta is that of everything we make for a workload. The reference blocks
// no deletion: where admission guards that, it would take a right on the workload.
func objectMeta(namespace string, owner workload) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: prefix + owner.name,
		Labels: map[string]string{leader.TaskLabel: Name},
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: apiVersion(owner.kind), Kind: owner.kind, Name: owner.name, UID: owner.uid,
		}},
	}
}

// sameRole reports whether a Role of ours is as it has to be.
func sameRole(got, want *rbacv1.Role) bool {
	return equality.Semantic.DeepEqual(got.Rules, want.Rules) &&
		equality.Semantic.DeepEqual(got.OwnerReferences, want.OwnerReferences)
}
