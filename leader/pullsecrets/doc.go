// Package pullsecrets keeps an image pull secret for ECR in every namespace that
// asks for one. It owns registry hosts, ECR tokens and the Secrets made of them;
// package leader runs it as one task of a term.
//
// A namespace asks with the label <account>.dkr.ecr.<region>.amazonaws.com=true.
// The answer is a Secret of the same name, type kubernetes.io/dockerconfigjson,
// that works for every alias host of that account and region. AWS keys come from
// Secret <prefix>-<host> of the host namespace, or else, where the configuration
// lets it, from the process's own AWS identity; see identityOf. One token serves every namespace and registry of the same identity
// and region, and is renewed at half of its life.
//
// # Nothing is read
//
// The task may not read Secrets outside the host namespace, so it never compares:
// it writes what has to be there, once per namespace and token, and remembers what
// it wrote. It creates and updates; it neither applies nor patches. A JSON patch
// can test a value before any admission policy is asked, and the conflicts of an
// apply tell whether a value differs: whoever may patch Secrets can guess their
// content. An update answers with what was sent.
//
// Secrets that somebody else made are guarded by the admission policy
// chandler-pull-secrets (deploy/base/pullsecrets.yaml): it refuses an update or
// delete of a Secret without our label. Before a new token is written anywhere, and
// before every update and delete unless it was just done, two dry runs prove that
// the policy is in force; without it nothing is written.
//
// A Secret of ours is ours whole: an update brings back what was changed in it
// and drops what was added to it, and keeps its UID. The task cannot see such
// changes; they last until the next renewal, six hours at most with ECR's tokens
// of twelve, or until the annotation chandler.dev/resync of the namespace gets
// another value.
//
// # The ledger
//
// Since Secrets cannot be listed, a ConfigMap per registry in the leader's own
// namespace lists the namespaces that may hold our Secret. An entry is written
// before the Secret, one write for all namespaces that wait, and removed after
// it, so that a namespace that lost its label while nobody led is cleaned up by
// the next leader. Entries are added and removed one by one with merge patches:
// two leaders at a time do not undo each other. Each renewal asserts all entries
// again, which also mends a ConfigMap that was deleted by hand. One ConfigMap
// holds some 15,000 namespaces, or half as many with an account each.
//
// An entry of ours in a ServiceAccount is recorded there too, before it is added:
// one that was there already is somebody else's and is never removed.
//
// # Failure
//
// A failed call changes nothing: Secrets keep the old token until it expires, and
// chandler_pullsecrets_expiry_timestamp_seconds tells when the first of them does,
// by what is written in them. The ledger keeps that date for the next leader; it
// moves forward only after the Secrets. Failures are
// retried per identity, not per namespace, with a backoff up to five minutes; a
// change of the key Secret is tried at once. Two leaders at a time write two
// tokens, both valid.
package pullsecrets
