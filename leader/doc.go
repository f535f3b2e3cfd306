// Package leader elects one replica, gives it the leader's credentials and runs
// the cluster's chores for as long as it holds the Lease. It owns the election,
// the credentials, the term, and the queues, retries, deadlines, metrics and
// logs of every task. It knows no task: package agent passes them in.
//
// # Looking and campaigning
//
// Stock leader election makes every replica read the Lease every 2 to 4.4
// seconds, so a DaemonSet on 5,000 nodes reads it some 1,500 times a second.
// Here a follower only looks: one read, answered from the API server's watch
// cache, at an interval that grows with the number of candidates. The leader
// counts them and writes the number on the Lease (AgentsAnnotation).
//
//	interval = agents / 10 a second, at least 1 second, at most 10 minutes
//
// Why this is enough for a quick takeover. With n followers whose phases are
// independent, each looking every n/10 seconds, the chance that nobody looks
// during t seconds is about e^(-10t) at any n: a vacancy is seen after 0.1
// seconds on average, and after more than one second once in 20,000 times. One
// follower's interval of 500 seconds at 5,000 nodes does not matter, because
// it need not be that follower. At ten agents or fewer the floor rules: each
// looks once a second, so even a single follower sees a vacancy within a
// second, and all together still make no more than ten looks a second.
//
// The phases are made independent, not hoped to be: the first look comes at a
// random moment of the first second, and whenever the interval changes, the
// next look comes at a random moment of the new interval. After that each
// interval varies by a tenth.
//
// A count that is absent or unusable leaves the last good one in force; before
// there is any, a follower looks every two thirds of a lease duration, which
// keeps takeover within two lease durations even for two replicas. A false
// count can come only from a holder of the Lease. A replica that has known another
// doubles its own, beyond a hundred, from look to look at most, so it takes ten minutes of a false
// count to make looks ten minutes apart, which is the ceiling. Above 6,000 agents the ceiling also rules, and looks grow
// by one a second for each further 600 agents.
//
// A follower that sees the Lease absent, released, expired or already its own
// campaigns with client-go's leaderelection, once: a write that is refused, or
// another holder, sends it back to looking. The crowd is the retry, so a Lease
// that cannot be written costs no more than one that can.
//
// # Whose clock
//
// Expiry is judged by the API server's clock alone, as its admission policy
// does: the stamp that it put into managedFields at the last write, against the
// Date header of the answer. A node's clock and the holder's renewTime play no
// part, so neither a wrong clock nor a forged time starts or prevents a
// takeover. The stamp has whole seconds, so an expired Lease is open to others 15
// to 17 seconds after the last renewal at the stock lease duration. With several
// API servers the two times may come from two clocks; the policy decides, and a
// refused write is an ordinary outcome.
//
// # Fencing
//
// On shutdown and on losing the Lease, tasks are cancelled and waited for before
// the Lease is released; tasks that outlive the moment another replica could
// take over make Run return ErrOverrun. A process that was frozen past its lease
// must not write when it wakes, and no timer can be trusted to fire first:
// therefore the leader's transport itself refuses writes once the last renewal
// is too old, by the monotonic clock or by the wall clock, whichever ran further.
// One request already under way when the process froze can still go
// out, which is why every Sync must stay correct if two leaders overlap.
package leader
