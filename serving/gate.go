package serving

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// reconnect is how long before its certificate's end a connection is closed after
// an answer. Clients such as Prometheus keep connections for hours and show a new
// certificate only on a new one: without this, a connection would outlive the
// certificate that opened it, and a scrape would fail.
const reconnect = 5 * time.Minute

// user is somebody whose identity is proven.
type user struct {
	name   string
	groups []string
}

// refusal is why a request is not answered.
type refusal struct {
	status int
	reason string // one of reasons
	text   string // for the client
}

func (r *refusal) Error() string { return r.text }

// gate lets those through to next who may read everything behind it.
type gate struct {
	roots      *roots
	clients    Clients
	delegation *delegation // nil refuses tokens
	metrics    *metrics
	next       http.Handler
	// Warnings that strangers can cause.
	unavailable, tooMany *seldom
}

func newGate(clients Clients, roots *roots, m *metrics, log *slog.Logger, next http.Handler) *gate {
	g := &gate{roots: roots, clients: clients, metrics: m, next: next, unavailable: &seldom{log: log}, tooMany: &seldom{log: log}}
	if clients.Delegation != nil {
		g.delegation = newDelegation(clients.Delegation, g.allowed)
	}
	return g
}

// ServeHTTP implements http.Handler.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := g.admit(w, r); err != nil {
		g.refuse(w, r, err)
		return
	}
	proves(r)
	g.next.ServeHTTP(w, r)
}

func (g *gate) refuse(w http.ResponseWriter, r *http.Request, err error) {
	refused, ok := errors.AsType[*refusal](err)
	var warning *seldom
	switch {
	case !ok:
		refused = &refusal{http.StatusServiceUnavailable, "unavailable", "cannot authenticate the token: the API server is unavailable"}
		warning = g.unavailable
	case refused.status == http.StatusTooManyRequests:
		w.Header().Set("Retry-After", strconv.Itoa(int(unknownEvery.Seconds())))
		warning = g.tooMany
	}
	if warning != nil && r.Context().Err() == nil { // else the client has gone
		if log := warning.mayLog(); log != nil {
			log.Warn("token not reviewed", "err", err)
		}
	}
	g.metrics.refusals.WithLabelValues(refused.reason).Inc()
	w.Header().Set("Connection", "close") // another certificate needs another connection
	answer(w, refused.status, refused.text)
}

// admit returns nil for those who may pass, a *refusal for those who may not, and
// another error when it cannot tell. A certificate that passes makes a token
// needless.
func (g *gate) admit(w http.ResponseWriter, r *http.Request) error {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	var err error = &refusal{http.StatusUnauthorized, "no_certificate", "show a client certificate"}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		err = g.byCertificate(w, r.TLS.PeerCertificates)
	}
	switch {
	case err == nil || !strings.EqualFold(scheme, "Bearer") || token == "":
		return err
	case g.delegation == nil:
		return &refusal{http.StatusUnauthorized, "token", "tokens are not accepted here: show a client certificate, or see serving.delegation"}
	default:
		return g.delegation.admit(r.Context(), source(r.RemoteAddr), token)
	}
}

func (g *gate) byCertificate(w http.ResponseWriter, chain []*x509.Certificate) error {
	leaf := chain[0]
	who, err := g.verify(chain)
	if err != nil {
		return err
	}
	margin := max(reconnect, leaf.NotAfter.Sub(leaf.NotBefore)/5)
	if time.Until(leaf.NotAfter) < margin {
		w.Header().Set("Connection", "close")
	}
	if !g.allowed(who) {
		return &refusal{http.StatusForbidden, "not_allowed", fmt.Sprintf("user %q is not in serving.allowedUsers", who.name)}
	}
	return nil
}

// verify proves that a CA of ours issued the certificate to a client. The
// handshake has proven that the client has its key.
func (g *gate) verify(chain []*x509.Certificate) (user, error) {
	leaf, intermediates := chain[0], x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: g.roots.pool(), Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return user{}, &refusal{http.StatusUnauthorized, "expired", "the client certificate has expired or is not valid yet: " + invalid.Detail}
	}
	if err != nil {
		return user{}, &refusal{http.StatusUnauthorized, "untrusted", "the client certificate is not accepted: " + err.Error()}
	}
	if leaf.Subject.CommonName == "" {
		return user{}, &refusal{http.StatusUnauthorized, "untrusted", "the client certificate has no common name"}
	}
	return user{name: leaf.Subject.CommonName, groups: leaf.Subject.Organization}, nil
}

func (g *gate) allowed(who user) bool {
	return slices.Contains(g.clients.Users, who.name) ||
		slices.ContainsFunc(who.groups, func(group string) bool { return slices.Contains(g.clients.Groups, group) })
}
