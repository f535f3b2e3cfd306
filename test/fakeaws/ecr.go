package fakeaws

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	targetECR       = "AmazonEC2ContainerRegistry_V20150921"
	targetECRPublic = "SpencerFrontendService"

	// ecrPublicRegion is the only one that gives out tokens for ECR Public.
	ecrPublicRegion = "us-east-1"
	// bcryptBytes is how much of a password bcrypt reads.
	bcryptBytes = 72
)

// Issued is one authorization token that ECR or ECR Public gave out.
type Issued struct {
	// Call is the call that got it.
	Call Call
	// Username is always "AWS".
	Username string
	// Password is as the client gets it. Its first 26 bytes alone tell it from
	// every other one. Since bcrypt reads 72 bytes at most, and Go's refuses to
	// hash more, a registry's htpasswd must hold the hash of Password[:72].
	Password string
	// Expires is when the registry stops accepting it.
	Expires time.Time
}

// LogValue leaves the password out.
func (i Issued) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("call", i.Call), slog.Time("expires", i.Expires))
}

// Issued returns every token given out since the start, oldest first.
func (s *Server) Issued() []Issued {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.issued)
}

// SetTokenLife changes how long tokens issued from now on last.
func (s *Server) SetTokenLife(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokenLife = d
}

func (s *Server) ecr() service {
	return service{
		name:  ServiceECR,
		claim: claimTarget(targetECR),
		codec: jsonCodec{},
		operations: map[string]operation{
			"GetAuthorizationToken": {run: s.getAuthorizationToken},
		},
	}
}

func (s *Server) ecrPublic() service {
	return service{
		name:  ServiceECRPublic,
		claim: claimTarget(targetECRPublic),
		codec: jsonCodec{},
		operations: map[string]operation{
			"GetAuthorizationToken": {run: s.getPublicAuthorizationToken},
		},
	}
}

// claimTarget claims the requests whose X-Amz-Target begins with prefix.
func claimTarget(prefix string) func(*http.Request, []byte) (string, bool) {
	return func(r *http.Request, _ []byte) (string, bool) {
		target, name, ok := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		return name, ok && target == prefix && r.Method == http.MethodPost
	}
}

type authorizationData struct {
	AuthorizationToken string  `json:"authorizationToken"`
	ExpiresAt          float64 `json:"expiresAt"` // seconds since 1970, with milliseconds
	ProxyEndpoint      string  `json:"proxyEndpoint,omitempty"`
}

func (s *Server) getAuthorizationToken(r request) (any, *apiError) {
	var in struct {
		RegistryIDs []string `json:"registryIds"`
	}
	if err := json.Unmarshal(r.body, &in); err != nil {
		return nil, &apiError{http.StatusBadRequest, "SerializationException", "The request body is not JSON"}
	}
	if len(in.RegistryIDs) == 0 {
		in.RegistryIDs = []string{r.keys.Account}
	}
	var out struct {
		AuthorizationData []authorizationData `json:"authorizationData"`
	}
	_, suffix := partitionOf(r.call.Region)
	for _, id := range in.RegistryIDs {
		data := s.issue(r.call)
		data.ProxyEndpoint = fmt.Sprintf("https://%s.dkr.ecr.%s.%s", id, r.call.Region, suffix)
		out.AuthorizationData = append(out.AuthorizationData, data)
	}
	return out, nil
}

func (s *Server) getPublicAuthorizationToken(r request) (any, *apiError) {
	if r.call.Region != ecrPublicRegion {
		return nil, &apiError{
			http.StatusBadRequest, "UnsupportedCommandException",
			"GetAuthorizationToken command is only supported in us-east-1.",
		}
	}
	var out struct {
		AuthorizationData authorizationData `json:"authorizationData"`
	}
	out.AuthorizationData = s.issue(r.call)
	return out, nil
}

// issue makes and records one token.
func (s *Server) issue(c Call) authorizationData {
	password := strings.Builder{}
	for password.Len() < s.options.PasswordBytes {
		password.WriteString(rand.Text())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	issued := Issued{
		Call:     c,
		Username: "AWS",
		Password: password.String()[:s.options.PasswordBytes],
		Expires:  time.Now().Add(s.offset + s.tokenLife).Truncate(time.Millisecond),
	}
	s.issued = append(s.issued, issued)
	return authorizationData{
		AuthorizationToken: base64.StdEncoding.EncodeToString([]byte(issued.Username + ":" + issued.Password)),
		ExpiresAt:          float64(issued.Expires.UnixMilli()) / 1000,
	}
}

// jsonCodec is awsJson 1.1.
type jsonCodec struct{}

func (jsonCodec) reply(w http.ResponseWriter, _, _ string, result any) {
	writeJSON(w, http.StatusOK, result)
}

func (jsonCodec) refuse(w http.ResponseWriter, _ string, e *apiError) {
	writeJSON(w, e.status, map[string]string{"__type": e.code, "message": e.message})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_, _ = w.Write(data) // the client went away
}

func (jsonCodec) wording(k Kind, c Call) *apiError {
	switch k {
	case Throttled:
		return &apiError{http.StatusBadRequest, "ThrottlingException", "Rate exceeded"}
	case AccessDenied:
		return &apiError{http.StatusBadRequest, "AccessDeniedException", deniedMessage(c, "*")}
	case ExpiredKeys:
		return &apiError{http.StatusBadRequest, "ExpiredTokenException", expiredMessage}
	case UnknownKeys:
		return &apiError{http.StatusBadRequest, "UnrecognizedClientException", unknownMessage}
	case BadSignature:
		return &apiError{http.StatusBadRequest, "InvalidSignatureException", signatureMessage}
	case missingSignature:
		return &apiError{http.StatusBadRequest, "MissingAuthenticationTokenException", "Missing Authentication Token"}
	case malformedSignature:
		return &apiError{http.StatusBadRequest, "IncompleteSignatureException", malformedMessage}
	default:
		return &apiError{http.StatusInternalServerError, "ServerException", "The service had an internal failure."}
	}
}

func (jsonCodec) unknownOperation(name string) *apiError {
	return &apiError{http.StatusBadRequest, "UnknownOperationException", "no operation " + name}
}
