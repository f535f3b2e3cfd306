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
	heirs            []workload // that the API server knows, if nothing of ours says whose it is
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
		owner, ok := referred(&ref, kinds()...)
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

// ownerless reports whether something of ours is there, and nothing says whose it is.
func (f found) ownerless() bool {
	_, owned := f.recorded()
	return !owned && len(f.made()) > 0
}

// claimants are the workloads that the Role may belong to, in a stable order.
func (f found) claimants() []workload {
	var claimants []workload
	for owner := range f.members {
		claimants = append(claimants, owner)
	}
	others := f.heirs
	if owner, ok := f.recorded(); ok {
		others = []workload{owner}
	}
	for _, owner := range others {
		if len(f.members[owner]) == 0 {
			claimants = append(claimants, owner)
		}
	}
	slices.SortFunc(claimants, func(a, b workload) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.uid, b.uid))
	})
	return claimants
}

// answer is what the API server said of a claimant.
type answer struct {
	exists   bool // and is not being deleted
	labelled bool // its pod template carries the label
	created  time.Time
	doubted  bool // it has to be asked about, again or at last
}

// elect returns the claimant whose Role it is, zero if none is, and those that must
// do without: of those that exist and have pods or at least the label, the one that
// has the Role already, or else the oldest. Who was not asked about counts as
// existing.
func (f found) elect(answers map[workload]answer) (winner workload, losers []workload) {
	var live []workload
	for _, claimant := range f.claimants() {
		a, asked := answers[claimant]
		if !asked || a.exists && (a.labelled || len(f.members[claimant]) > 0) {
			live = append(live, claimant)
		}
	}
	if len(live) == 0 {
		return workload{}, nil
	}
	recorded, _ := f.recorded()
	winner = slices.MinFunc(live, func(a, b workload) int {
		if has := a == recorded; has != (b == recorded) {
			if has {
				return -1
			}
			return 1
		}
		return answers[a].created.Compare(answers[b].created)
	})
	for _, claimant := range live {
		if claimant != winner {
			losers = append(losers, claimant)
		}
	}
	return winner, losers
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

// granted returns what rules grant that are as ours are.
func granted(all []rbacv1.PolicyRule) (names []string, listPods bool) {
	for _, rule := range all {
		ours := rules(rule.ResourceNames, true)
		switch {
		case equality.Semantic.DeepEqual(rule, ours[0]):
			listPods = true
		case len(ours) > 1 && equality.Semantic.DeepEqual(rule, ours[1]):
			names = append(names, rule.ResourceNames...)
		}
	}
	return names, listPods
}

// narrowed returns as much of what a Role should grant as it grants already.
func narrowed(got, want *rbacv1.Role) *rbacv1.Role {
	has, mayList := granted(got.Rules)
	names, listPods := granted(want.Rules)
	kept := map[string]bool{}
	for _, name := range has {
		kept[name] = true
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !kept[name] })
	return &rbacv1.Role{ObjectMeta: want.ObjectMeta, Rules: rules(names, listPods && mayList)}
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
