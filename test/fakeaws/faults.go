package fakeaws

import (
	"maps"
	"net/http"
	"slices"
	"time"
)

// Names of the services in Call.Service. Those of AWS APIs are their signing
// names.
const (
	ServiceECR        = "ecr"
	ServiceECRPublic  = "ecr-public"
	ServiceSTS        = "sts"
	ServiceCloudWatch = "monitoring"
	ServiceIMDS       = "imds"
)

// Call describes one request, and as a pattern, where an empty field matches
// anything, many.
type Call struct {
	// Service is one of the Service constants.
	Service string
	// Operation is the SDK's name, e.g. "GetAuthorizationToken"; for instance
	// metadata "GetToken", "GetMetadata" or "GetDynamicData".
	Operation string
	// Region is the one signed for, e.g. "eu-west-1"; the instance's for
	// instance metadata. Empty for unsigned requests.
	Region string
	// Caller is the access key ID, known or not; for instance metadata the
	// instance ID. Empty for unsigned requests.
	Caller string
	// Principal is the ARN of the user, or of the role whose session signed the
	// request. Empty when the access key ID is unknown, and for instance
	// metadata.
	Principal string
}

func (pattern Call) matches(c Call) bool {
	fits := func(want, got string) bool { return want == "" || want == got }
	return fits(pattern.Service, c.Service) &&
		fits(pattern.Operation, c.Operation) &&
		fits(pattern.Region, c.Region) &&
		fits(pattern.Caller, c.Caller) &&
		fits(pattern.Principal, c.Principal)
}

// Kind is the way in which a call fails. Each service words it as the real one
// does, e.g. Throttled is ThrottlingException from ECR and Throttling from STS.
type Kind int

// Instance metadata answers the kinds that concern keys with 403 and Throttled
// with 503.
const (
	// None is no failure: only the latency of a Fault counts.
	None Kind = iota
	// Throttled is "Rate exceeded".
	Throttled
	// AccessDenied is keys without the permission.
	AccessDenied
	// ExpiredKeys is temporary keys past their time.
	ExpiredKeys
	// UnknownKeys is an access key ID that AWS does not know.
	UnknownKeys
	// BadSignature is what a wrong secret access key causes.
	BadSignature
	// ServerError is status 500.
	ServerError
	// Unreachable is a connection that is cut before any answer.
	Unreachable
	// Silent is no answer at all until the client gives up.
	Silent
)

// Fault makes calls slow, or fail, or both.
type Fault struct {
	// Calls selects the calls to hit. The zero value hits every call.
	Calls Call
	// Times is how many calls to hit before the fault removes itself. Zero
	// means no limit.
	Times int
	// Latency is waited for before the call is answered or failed.
	Latency time.Duration
	// Kind is how the call fails.
	Kind Kind
}

type activeFault struct {
	Fault

	left int // calls still to hit, when Times is set
}

// Inject adds a fault and returns a function, safe to repeat, that removes it.
// Of several faults that match a call the oldest one that fails it decides how;
// later failing ones are kept for later calls, and the rest add their latency.
func (s *Server) Inject(f Fault) (remove func()) {
	active := &activeFault{Fault: f, left: f.Times}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, active)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.faults = slices.DeleteFunc(s.faults, func(a *activeFault) bool { return a == active })
	}
}

// ClearFaults removes every fault that Inject added.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Count returns how many calls that match pattern came in since the start or
// the last ResetCounts. Every attempt counts, failed and refused ones included.
func (s *Server) Count(pattern Call) int {
	total := 0
	for call, n := range s.Counts() {
		if pattern.matches(call) {
			total += n
		}
	}
	return total
}

// Counts returns the number of calls by kind of call.
func (s *Server) Counts() map[Call]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.counts)
}

// ResetCounts starts counting from zero.
func (s *Server) ResetCounts() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.counts)
}

// suffer counts a call and applies the faults that match it. It returns the
// Kind that the caller must answer with, and false when the call is over.
func (s *Server) suffer(w http.ResponseWriter, r *http.Request, c Call) (Kind, bool) {
	latency, kind := s.hit(c)
	if latency > 0 && !s.wait(r, time.After(latency)) {
		// An empty 200 would pass for an answer.
		hangUp(w)
		return None, false
	}
	switch kind {
	case Unreachable:
		hangUp(w)
		return None, false
	case Silent:
		s.wait(r, nil)
		hangUp(w)
		return None, false
	default:
		return kind, true
	}
}

func (s *Server) hit(c Call) (latency time.Duration, kind Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[c]++
	for _, f := range s.faults {
		if !f.Calls.matches(c) || (kind != None && f.Kind != None) {
			continue
		}
		f.left--
		latency += f.Latency
		if f.Kind != None {
			kind = f.Kind
		}
	}
	s.faults = slices.DeleteFunc(s.faults, func(f *activeFault) bool { return f.Times > 0 && f.left <= 0 })
	return latency, kind
}

// wait blocks until ready, and returns false if the client or the server went
// away first. A nil ready never comes.
func (s *Server) wait(r *http.Request, ready <-chan time.Time) bool {
	select {
	case <-ready:
		return true
	case <-r.Context().Done():
		return false
	case <-s.ended:
		return false
	}
}
