// Package scrapercert keeps the client certificate with which Prometheus on the
// node scrapes.
//
// It makes a key, asks for a certificate by a CertificateSigningRequest, proves
// what comes back, and asks anew before that expires. A pair in use stays until
// the next one is proved. The key is in memory and in the files that Files
// returns, and nowhere else: not in a log, an error, a metric or a request.
//
// client-go's certificate manager is not used. It does not tell a denied request
// from one that nobody signs, cannot label a request or find one of an earlier
// life, and counts the five minutes by which Kubernetes backdates certificates as
// part of their life, so that it would renew short ones without end.
//
// # Requests
//
// A request that nobody decides or signs is reported and waited for; it is not
// repeated, since a second one would fare no better. One that is denied, fails or
// yields a wrong certificate is repeated after a minute at the earliest. A
// request of an earlier run that is still undecided, for the same signer and common
// name, is waited for too, although its key is lost: agents that restart in a circle
// do not pile up requests.
//
// # What it refuses
//
// It uses no certificate whose key, subject, names or usage are not exactly those
// asked for, or that is not valid by this node's clock. It publishes nothing, and
// approves nothing. Package node calls it.
package scrapercert
