package csrsigning

import (
	"crypto/x509"
	"slices"
	"time"

	certsv1 "k8s.io/api/certificates/v1"
)

// lives are the times that rotation is derived from.
type lives struct {
	leaf    time.Duration // of the longest certificate
	ca      time.Duration
	overlap time.Duration // how long a CA is in the bundle before it signs
}

// holding is what the Secret holds.
type holding struct {
	active *authority
	// next takes over once it has been in the bundle for the overlap. Nil outside
	// of a rotation.
	next      *authority
	published time.Time // when next was first seen in the bundle; zero before
	old       []*x509.Certificate
}

// advance returns what the Secret should hold now: the same as before if nothing is
// to change. bundle is what targets have been given so far. making tells that a new
// CA is wanted, as next or, where there is none that works, as active.
func (h holding) advance(bundle []*x509.Certificate, now time.Time, l lives) (after holding, making bool) {
	h.old = slices.DeleteFunc(slices.Clone(h.old), func(c *x509.Certificate) bool { return !now.Before(c.NotAfter) })
	if h.next != nil && !now.Before(h.next.certificate.NotAfter) {
		h.next, h.published = nil, time.Time{}
	}
	if h.active == nil || !now.Before(h.active.certificate.NotAfter) {
		h.active, h.next, h.published = h.next, nil, time.Time{}
		return h, h.active == nil
	}
	if h.next == nil {
		return h, !now.Before(h.rotation(l))
	}
	if h.published.IsZero() && slices.ContainsFunc(bundle, h.next.certificate.Equal) {
		h.published = now.Truncate(time.Second).UTC()
	}
	if !h.published.IsZero() && !now.Before(h.published.Add(l.overlap)) {
		h.old = append(h.old, h.active.certificate)
		h.active, h.next, h.published = h.next, nil, time.Time{}
	}
	return h, false
}

// rotation is when to make the next CA: early enough for the active one to sign
// certificates of full length until the next takes over, with an overlap to spare.
func (h holding) rotation(l lives) time.Time {
	return h.active.certificate.NotAfter.Add(-l.leaf - 2*l.overlap)
}

// due is when advance will want a change by itself.
func (h holding) due(l lives) time.Time {
	due := h.rotation(l)
	if h.next != nil {
		due = h.published.Add(l.overlap)
		if h.published.IsZero() {
			due = h.active.certificate.NotAfter // the bundle's update is an event
		}
	}
	for _, c := range h.old {
		due = earlier(due, c.NotAfter)
	}
	return due
}

// equal reports whether the Secret need not be written.
func (h holding) equal(other holding) bool {
	same := func(a, b *authority) bool {
		return a == b || (a != nil && b != nil && a.certificate.Equal(b.certificate))
	}
	return same(h.active, other.active) && same(h.next, other.next) && h.published.Equal(other.published) &&
		slices.EqualFunc(h.old, other.old, (*x509.Certificate).Equal)
}

// bundle is what targets have to trust.
func (h holding) bundle() []*x509.Certificate {
	all := []*x509.Certificate{h.active.certificate}
	if h.next != nil {
		all = append(all, h.next.certificate)
	}
	return append(all, h.old...)
}

// signable reports whether a request waits for our signature.
func signable(request *certsv1.CertificateSigningRequest, signer string) bool {
	approved := false
	for _, condition := range request.Status.Conditions {
		switch condition.Type {
		case certsv1.CertificateDenied, certsv1.CertificateFailed:
			return false
		case certsv1.CertificateApproved:
			approved = true
		}
	}
	return approved && request.Spec.SignerName == signer && len(request.Status.Certificate) == 0 && request.DeletionTimestamp == nil
}
