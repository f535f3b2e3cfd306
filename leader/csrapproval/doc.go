// Package csrapproval approves the agents' requests for scraper certificates. It
// owns the decision, which is one of three: approve, deny or leave alone; package
// leader runs it as one task of a term.
//
// It leaves alone what our agents did not make, what asks another signer, and what
// somebody has decided already. Of the rest it denies a proven violation of the rules
// of package scrapercsr, each with a reason of its own, and approves what violates
// none. A look-up that fails proves nothing: it is an error and is retried.
//
// A decision costs two requests: the pod is read from the API server and not from
// a cache, so that one that is gone certainly is, and the approval is written. The
// watch is narrowed to our signer by the API server.
//
// Some control planes, EKS among them, approve and never sign. A request that we
// approved and that has no certificate after a minute is told by the log, an Event on
// the agent's pod and a metric, with the remedy.
package csrapproval
