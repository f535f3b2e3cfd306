// Package scrapercsr says what the request for a scraper certificate may be. It
// says it twice: to the tasks that approve and sign such requests, as a check with
// a reason for every violation, and to the API server, as admission policies that
// bind even a stolen token. It refuses whatever an honest agent would not send
// byte by byte. It writes nothing and knows no task; packages csrapproval,
// csrsigning and agent call it.
//
// An honest request is made by an agent's pod with the token that is bound to it.
// It asks our signer for a client certificate with the configured common name and
// nothing else as its subject, a P-256 key, and the name of the agent's own node as
// its only SAN.
package scrapercsr
