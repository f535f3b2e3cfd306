// Package clusterstatus publishes the health of chosen workloads to CloudWatch:
// one metric that is 1 while every target is healthy and 0 while one is not. It
// owns what makes a workload healthy, when a value may be published, and the alarm
// and IAM policy that go with it; package leader runs it as one task of a term, and
// package agent prints the alarm. It creates no alarm and writes nothing to the
// cluster.
//
// # What is known
//
// Workloads are watched, not polled: a tick costs the API server nothing. Each
// watch is narrowed to a name where few names of a namespace are wanted. A watch
// says of itself whether what it has shown is current: it must be open, or have
// ended just now, and once it has sent bookmarks, which come every minute, they
// must not stay away. A dead connection is found by the ping of HTTP/2 within 45
// seconds. A target whose watch is not current is unknown.
//
// One unhealthy target makes the value 0, whatever is unknown. Otherwise one
// unknown target leaves the value unknown, and nothing is published: an alarm that
// treats missing data as breaching then tells that nobody knows.
//
// # Who publishes, and when
//
// Ticks are the multiples of the interval since the zero time of package time, the
// beginning of the year 1 in UTC. A datum of a tick is published once the Lease has
// been renewed after that tick (at intervals under five seconds, shortly before it),
// and is stamped with that renewal, which is less than the time between two renewals
// before the look at the targets: two seconds with the Lease's default duration. So every datum is vouched for by a fresh answer of the
// API server, and a leader that has lost the Lease, or the API server, publishes
// nothing. The first datum of a term needs no tick.
//
// The Lease carries the time of its last renewal or, once released, that of the last
// datum sent. A new leader publishes nothing in the minute of that: whatever its
// predecessor may have published, also a request that arrives late, has a timestamp
// of that minute or before. So no minute has data of two writers, by their own
// clocks, and only a killed leader leaves one empty, or more with a longer Lease. Clocks may be
// ten minutes apart by the policy of the Lease; a leader that comes after one that is
// ahead waits for so long.
package clusterstatus
