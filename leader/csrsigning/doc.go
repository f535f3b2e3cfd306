// Package csrsigning signs scraper certificates for control planes that do not sign
// client certificates, under the signer name chandler.dev/scraper-client. It owns
// the CA, its rotation and its bundle; package leader runs it as one task of a term.
//
// It signs requests that are approved and pass the rules of package scrapercsr again,
// pod included: an approval by hand makes it sign nothing else. What is approved and
// breaks a rule gets the condition Failed, with the rule's reason.
//
// # The CA
//
// Secret chandler-scraper-ca of the leader's namespace holds the CA that signs, the
// next one while a rotation is under way, and the certificates of former ones without
// their keys. ConfigMap chandler-scraper-ca holds the bundle, made of these
// certificates, for targets to mount. Both are made if absent. One that carries
// another label, or is not of this shape, is somebody else's: it is left alone and
// told by an Event, a metric and the log, and nothing is signed until it is gone.
//
// A CA is in the bundle before it signs. A new one is in there for a day first, so
// that targets that read their files rarely know it; an old one until it has expired,
// and with it every certificate that it signed. Deleting the Secret makes a new CA at
// once and drops all others from the bundle, which revokes every certificate.
//
// Two leaders at a time make one CA: the API server lets one create the Secret and
// refuses updates of a state that is no longer current.
package csrsigning
