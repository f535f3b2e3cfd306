package fakeaws

import (
	"encoding/xml"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	stsVersion   = "2011-06-15"
	stsNamespace = "https://sts.amazonaws.com/doc/2011-06-15/"

	// Bounds of DurationSeconds: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
	minSession     = 15 * time.Minute
	defaultSession = time.Hour
)

// Role is an IAM role that keys or web identity tokens can be exchanged for.
type Role struct {
	// ARN is e.g. "arn:aws:iam::123456789012:role/ecr-reader".
	ARN string
	// ExternalID is the one that AssumeRole must bring. Empty means none is
	// asked for.
	ExternalID string
	// Trusts are the ARNs of those who may assume it with keys. Empty means
	// every signer.
	Trusts []string
	// WebIdentity decides on a web identity token and names its subject, e.g.
	// "system:serviceaccount:chandler:chandler-leader". Nil means that the role
	// trusts no web identity; an error refuses the token as invalid, or as
	// expired when it is ErrWebIdentityExpired.
	WebIdentity func(token string) (subject string, err error)
	// MaxSession is the longest session. Zero means 1 hour.
	MaxSession time.Duration
}

// ErrWebIdentityExpired is what Role.WebIdentity returns, or wraps, for an
// expired token.
var ErrWebIdentityExpired = errors.New("web identity token expired")

// SetRole adds a role or replaces the one of the same ARN. Sessions of the old
// one go on.
func (s *Server) SetRole(r Role) {
	if r.MaxSession == 0 {
		r.MaxSession = defaultSession
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[r.ARN] = r
}

func (s *Server) role(arn string) (Role, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.roles[arn]
	return r, ok
}

func (s *Server) sts() service {
	return service{
		name:  ServiceSTS,
		claim: claimQuery(stsVersion),
		codec: queryCodec{},
		operations: map[string]operation{
			"GetCallerIdentity":         {run: s.getCallerIdentity},
			"AssumeRole":                {run: s.assumeRole},
			"AssumeRoleWithWebIdentity": {run: s.assumeRoleWithWebIdentity, unsigned: true},
		},
	}
}

// claimQuery claims the awsQuery requests for one API version.
func claimQuery(version string) func(*http.Request, []byte) (string, bool) {
	return func(r *http.Request, body []byte) (string, bool) {
		if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
			return "", false
		}
		form, err := url.ParseQuery(string(body))
		return form.Get("Action"), err == nil && form.Get("Version") == version
	}
}

// form is the request's parameters; claimQuery has proven that they parse.
func (r request) form() url.Values {
	form, _ := url.ParseQuery(string(r.body))
	return form
}

type callerIdentityResult struct {
	XMLName xml.Name `xml:"GetCallerIdentityResult"`
	Arn     string
	UserID  string `xml:"UserId"`
	Account string
}

func (s *Server) getCallerIdentity(r request) (any, *apiError) {
	return callerIdentityResult{Arn: r.keys.ARN, UserID: r.keys.userID(), Account: r.keys.Account}, nil
}

type credentialsElement struct {
	AccessKeyID     string `xml:"AccessKeyId"`
	SecretAccessKey string
	SessionToken    string
	Expiration      string
}

type assumedRoleUser struct {
	AssumedRoleID string `xml:"AssumedRoleId"`
	Arn           string
}

type assumeRoleResult struct {
	XMLName         xml.Name `xml:"AssumeRoleResult"`
	AssumedRoleUser assumedRoleUser
	Credentials     credentialsElement
}

func (s *Server) assumeRole(r request) (any, *apiError) {
	form := r.form()
	role, known := s.role(form.Get("RoleArn"))
	trusted := len(role.Trusts) == 0 || slices.Contains(role.Trusts, r.call.Principal)
	if !known || !trusted || (role.ExternalID != "" && form.Get("ExternalId") != role.ExternalID) {
		// STS gives one answer to all three, so as not to tell which.
		return nil, &apiError{http.StatusForbidden, "AccessDenied", deniedMessage(r.call, form.Get("RoleArn"))}
	}
	keys, refused := s.openSession(role, form)
	if refused != nil {
		return nil, refused
	}
	return assumeRoleResult{
		AssumedRoleUser: assumedRoleUser{AssumedRoleID: keys.userID(), Arn: keys.ARN},
		Credentials:     keys.element(),
	}, nil
}

// openSession issues temporary keys of a role for the session that form asks
// for.
func (s *Server) openSession(role Role, form url.Values) (Keys, *apiError) {
	session := form.Get("RoleSessionName")
	if !regexp.MustCompile(`^[\w+=,.@-]{2,64}$`).MatchString(session) {
		return Keys{}, validationError("roleSessionName has the wrong form")
	}
	life := defaultSession
	if text := form.Get("DurationSeconds"); text != "" {
		seconds, err := strconv.Atoi(text)
		life = time.Duration(seconds) * time.Second
		if err != nil || life < minSession {
			return Keys{}, validationError("durationSeconds must be at least 900")
		}
	}
	if life > role.MaxSession {
		return Keys{}, validationError("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	return s.newSession(role.ARN, session, life), nil
}

func validationError(message string) *apiError {
	return &apiError{http.StatusBadRequest, "ValidationError", message}
}

// queryCodec is awsQuery.
type queryCodec struct{}

func (queryCodec) reply(w http.ResponseWriter, operation, requestID string, result any) {
	writeXML(w, http.StatusOK, struct {
		XMLName   xml.Name
		Result    any
		RequestID string `xml:"ResponseMetadata>RequestId"`
	}{xml.Name{Space: stsNamespace, Local: operation + "Response"}, result, requestID})
}

func (queryCodec) refuse(w http.ResponseWriter, requestID string, e *apiError) {
	fault := "Sender"
	if e.status >= http.StatusInternalServerError {
		fault = "Receiver"
	}
	writeXML(w, e.status, struct {
		XMLName   xml.Name
		Type      string `xml:"Error>Type"`
		Code      string `xml:"Error>Code"`
		Message   string `xml:"Error>Message"`
		RequestID string `xml:"RequestId"`
	}{xml.Name{Space: stsNamespace, Local: "ErrorResponse"}, fault, e.code, e.message, requestID})
}

func writeXML(w http.ResponseWriter, status int, v any) {
	data, err := xml.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	_, _ = w.Write(data) // the client went away
}

func (queryCodec) wording(k Kind, c Call) *apiError {
	switch k {
	case Throttled:
		return &apiError{http.StatusBadRequest, "Throttling", "Rate exceeded"}
	case AccessDenied:
		return &apiError{http.StatusForbidden, "AccessDenied", deniedMessage(c, "*")}
	case ExpiredKeys:
		return &apiError{http.StatusForbidden, "ExpiredToken", expiredMessage}
	case UnknownKeys:
		return &apiError{http.StatusForbidden, "InvalidClientTokenId", unknownMessage}
	case BadSignature:
		return &apiError{http.StatusForbidden, "SignatureDoesNotMatch", signatureMessage}
	case missingSignature:
		return &apiError{http.StatusForbidden, "MissingAuthenticationToken", "Request is missing Authentication Token"}
	case malformedSignature:
		return &apiError{http.StatusBadRequest, "IncompleteSignature", malformedMessage}
	default:
		return &apiError{http.StatusInternalServerError, "InternalFailure", "The service had an internal failure."}
	}
}

func (queryCodec) unknownOperation(name string) *apiError {
	return &apiError{http.StatusBadRequest, "InvalidAction", "Could not find operation " + name + " for version " + stsVersion}
}
