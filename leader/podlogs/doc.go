// Package podlogs keeps a Role for reading the logs of each workload that asks
// for one. It owns the owner chains of pods and the Roles, ServiceAccounts and
// RoleBindings named podlogreader-<workload>; package leader runs it as one task of
// a term.
//
// A workload asks with the label podlogreader-affiliate=enable in its pod template.
// Its Role grants get, list and watch of pods/log for exactly the names of its
// labelled pods, finished ones included until they are deleted. Without pods there
// is no such rule: RBAC takes an empty list of names for every pod.
//
// # Whose pod it is
//
// A pod belongs to a Deployment, StatefulSet, DaemonSet, Job or CronJob by the
// chain of controller references, each link compared by namespace, kind, API group
// and UID. ReplicaSets and Jobs carry the labels of their template, so the same
// label selector finds pods and what is between them and their workload: nothing
// is read but watches of metadata, which the API server selects. What the chain
// does not lead anywhere for is ignored, with an Event on the pod.
//
// Anybody who writes pods of a namespace can write a pod that claims to belong to
// a workload there. That makes its log readable, and no log of a pod that he could
// not have labelled himself; Kubernetes draws its line around the namespace. A
// claim to a workload that does not exist lasts until the garbage collector ends
// the pod. A chain never leaves its namespace.
//
// # When the API server is asked
//
// The watches do not show whether a workload without pods is scaled to zero or has
// lost its label, nor which of two that claim one name exists. Then, and about
// hourly for one that stays without pods, the workload is read. For what has no
// owner, such as a Role that was handed over, one without pods is looked for once
// among all kinds. A workload also is read before
// anything is made again of which the watch has shown the end, or has not shown
// soon after it was made: the workload may be gone although its pods are seen, and
// we and the garbage collector would chase each other. One that is gone stays so;
// the others are believed until something of theirs ends again.
//
// # Bursts
//
// A change is written once nothing has changed for a moment, and at the latest
// soon after; while changes go on, the writes of one Role grow further apart, up to
// two seconds. See pace.
//
// # What is not ours
//
// Only objects with the label chandler.dev/task=podlogs are changed or deleted. Of
// such a Role, rules and owner references are set right and the rest is left; a
// ServiceAccount or RoleBinding is made if there is none of its name and then left
// as it is. The admission policies of deploy/base/podlogs.yaml hold the leader to
// all this. Before the first write of each kind that grants something, and again
// every ten minutes in which there is one, dry runs prove that its policy is in
// force; without it nothing is granted. Taking away goes on.
package podlogs
