package podlogs

import (
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

// state is what a term knows of one key besides what the watches show. It belongs
// to the Sync of its key, but for what the collector reads.
type state struct {
	pace   pace
	traces map[string]trace    // by resource
	claims map[workload]answer // of claimants that the API server was asked about, or has to be

	sought map[types.UID]bool // objects of ours that workloads were looked for, to own them
	heirs  []workload         // those that were found

	status string // guarded by Task.mu
}

// trace is what is known of an object of ours, or of the name that it should have.
type trace struct {
	// owner is the workload that it was last made or seen for. It is zero once its
	// end has been noticed.
	owner  workload
	ending bool // seen to be deleted while something holds it
	// until is when to try to make it, if the watch does not show it by then.
	until  time.Time
	taken  bool // there is one of its name that the watch did not show
	theirs bool // and it is somebody else's
}

// observe takes in what the watches show.
func (s *state) observe(f found, now time.Time) {
	made := f.made()
	for _, resource := range []string{roles, bindings, accounts} {
		before := s.traces[resource]
		object, there := made[resource]
		if there {
			owner, _ := ownerOf(object)
			after := trace{owner: owner, ending: object.GetDeletionTimestamp() != nil}
			s.traces[resource] = after
			if after.ending && !before.ending && owner != (workload{}) {
				s.doubt(owner)
			}
			continue
		}
		if before.owner != (workload{}) && !before.until.After(now) {
			delete(s.traces, resource)
			s.doubt(before.owner)
		}
	}
	recorded, owned := f.recorded()
	if owned {
		s.heirs = nil
	}
	maps.DeleteFunc(s.claims, func(claimant workload, _ answer) bool {
		return claimant != recorded && len(f.members[claimant]) == 0 && !slices.Contains(s.heirs, claimant)
	})
}

// doubt has a workload asked about before anything is made for it: something of
// its own has ended, as everything does when the workload is deleted, even while
// its pods are still seen. One that is known to be gone stays so.
func (s *state) doubt(owner workload) {
	if a, asked := s.claims[owner]; !asked || a.exists {
		s.claims[owner] = answer{exists: true, doubted: true}
	}
}

// unclear returns the kinds of those workloads that the API server has to be asked
// about to know whose the Role is. A sole claimant with pods is taken at its word,
// until something of its own ends.
func (s *state) unclear(f found) []string {
	var unclear []string
	open := slices.DeleteFunc(f.claimants(), s.gone)
	if len(open) == 0 && s.unsought(f) {
		return kinds()
	}
	for _, claimant := range open {
		a, asked := s.claims[claimant]
		ask := a.doubted || len(f.members[claimant]) == 0 || len(open) > 1 && !asked
		if ask && !slices.Contains(unclear, claimant.kind) {
			unclear = append(unclear, claimant.kind)
		}
	}
	return unclear
}

// unsought reports whether there is something of ours that has no owner, as what was
// handed over or edited, and for which no workload without pods was looked for yet.
func (s *state) unsought(f found) bool {
	if !f.ownerless() {
		return false
	}
	for _, object := range f.made() {
		if !s.sought[object.GetUID()] && len(validation.IsDNS1123Subdomain(object.GetName())) == 0 {
			return true
		}
	}
	return false
}

// inherit notes which workloads of the kinds asked for were found for what has no owner.
func (s *state) inherit(f found, asked []string, heirs []workload) {
	if !f.ownerless() {
		return
	}
	s.heirs = append(heirs, slices.DeleteFunc(s.heirs, func(heir workload) bool { return slices.Contains(asked, heir.kind) })...)
	if len(asked) < len(kinds()) {
		return
	}
	for _, object := range f.made() {
		s.sought[object.GetUID()] = true
	}
}

// gone reports whether a workload is known not to exist. None comes back under the
// same UID.
func (s *state) gone(claimant workload) bool {
	a, asked := s.claims[claimant]
	return asked && !a.exists
}
