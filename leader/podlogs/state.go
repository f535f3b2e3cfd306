package podlogs

import (
	"maps"
	"slices"
	"time"
)

// state is what a term knows of one key besides what the watches show. It belongs
// to the Sync of its key, but for what the collector reads.
type state struct {
	pace   pace
	traces map[string]trace    // by resource
	claims map[workload]answer // of claimants that the API server was asked about, or has to be

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
	recorded, _ := f.recorded()
	maps.DeleteFunc(s.claims, func(claimant workload, _ answer) bool {
		return claimant != recorded && len(f.members[claimant]) == 0
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
	open := slices.DeleteFunc(f.claimants(), func(claimant workload) bool { return s.gone(claimant) })
	for _, claimant := range open {
		a, asked := s.claims[claimant]
		ask := a.doubted || len(f.members[claimant]) == 0 || len(open) > 1 && !asked
		if ask && !slices.Contains(unclear, claimant.kind) {
			unclear = append(unclear, claimant.kind)
		}
	}
	return unclear
}

// gone reports whether a workload is known not to exist. None comes back under the
// same UID.
func (s *state) gone(claimant workload) bool {
	a, asked := s.claims[claimant]
	return asked && !a.exists
}
