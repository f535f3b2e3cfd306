package fakeaws

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	tokenHeader    = "X-Aws-Ec2-Metadata-Token"
	tokenTTLHeader = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"

	// maxTokenSeconds is six hours, see
	// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
	maxTokenSeconds = 21600
)

// TokenMode is what the metadata service of an instance asks of its clients.
type TokenMode int

const (
	// TokensRequired is IMDSv2 only.
	TokensRequired TokenMode = iota
	// TokensOptional is IMDSv1 and IMDSv2.
	TokensOptional
	// TokensUnknown is IMDSv1 only: asking for a token is answered with 404.
	TokensUnknown
	// MetadataDisabled answers everything with 403.
	MetadataDisabled
)

// Instance describes one EC2 instance and its metadata service.
type Instance struct {
	// Address is where its metadata service listens, e.g. "127.0.0.1:4567".
	// Empty means a free port on 127.0.0.1. It cannot be changed later.
	Address string
	// Region is e.g. "eu-west-1". Required.
	Region string
	// Zone is e.g. "eu-west-1a" or "us-west-2-lax-1a". Empty means zone a of
	// Region.
	Zone string
	// ID is e.g. "i-0123456789abcdef0". Empty means a random one.
	ID string
	// Type is e.g. "m5.large", also the default.
	Type string
	// Account is the owner's. Empty means Options.Account.
	Account string
	// Tags are the instance's. Nil means that they are not offered in metadata,
	// the default at AWS. Keys hold no space and no slash, as AWS demands.
	Tags map[string]string
	// Role is the ARN of the instance's role, whose keys the metadata service
	// hands out. Empty means the instance has none.
	Role string
	// Mode is TokensRequired by default.
	Mode TokenMode
	// HopLimit is how many network hops the answer with the token may travel; the
	// client is two hops away, as in a pod. Zero means 2. With 1 the
	// answer never arrives.
	HopLimit int
}

// IMDS is the running metadata service of one instance. Each has a base URL of
// its own, since the SDK drops the path of a configured endpoint.
type IMDS struct {
	server *Server
	url    string

	// mu guards everything below.
	mu       sync.Mutex
	instance Instance
	tokens   map[string]time.Time // until when each is good
	role     Keys                 // current keys of instance.Role
}

// AddInstance starts the metadata service of one more instance, which ends with
// the server.
func (s *Server) AddInstance(i Instance) (*IMDS, error) {
	if err := i.complete(s.options.Account); err != nil {
		return nil, fmt.Errorf("add instance: %w", err)
	}
	m := &IMDS{server: s, instance: i, tokens: map[string]time.Time{}}
	url, err := s.serve(i.Address, http.HandlerFunc(m.answer))
	if err != nil {
		return nil, fmt.Errorf("add instance: %w", err)
	}
	m.url = url
	return m, nil
}

// complete fills in defaults; the account is that of the server.
func (i *Instance) complete(account string) error {
	fill := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	if i.Region == "" {
		return errors.New("instance has no Region")
	}
	for key := range i.Tags {
		if key == "" || strings.ContainsAny(key, " /") {
			return fmt.Errorf("tag key %q is not allowed in metadata", key)
		}
	}
	fill(&i.Address, defaultAddress)
	fill(&i.Zone, i.Region+"a")
	fill(&i.ID, "i-0"+strings.ReplaceAll(requestID(), "-", "")[:16])
	fill(&i.Type, "m5.large")
	fill(&i.Account, account)
	if i.HopLimit == 0 {
		i.HopLimit = 2
	}
	i.Tags = maps.Clone(i.Tags)
	return nil
}

// URL is the base URL, e.g. "http://127.0.0.1:40124", for the Endpoint option
// of the SDK's imds client.
func (m *IMDS) URL() string { return m.url }

// Env returns the environment variable that points the SDK's metadata client
// at this instance.
func (m *IMDS) Env() map[string]string {
	return map[string]string{"AWS_EC2_METADATA_SERVICE_ENDPOINT": m.url}
}

// Instance returns the instance as it is now.
func (m *IMDS) Instance() Instance {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.instance
	i.Tags = maps.Clone(i.Tags)
	return i
}

// Update changes the instance while it runs. A change that AddInstance would
// refuse is refused, and nothing changes.
func (m *IMDS) Update(change func(*Instance)) error {
	i := m.Instance()
	change(&i)
	if err := i.complete(m.server.options.Account); err != nil {
		return fmt.Errorf("update instance: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.instance = i
	return nil
}

func (m *IMDS) answer(w http.ResponseWriter, r *http.Request) {
	i := m.Instance()
	w.Header().Set("Server", "EC2ws")
	w.Header().Set("Date", m.server.now().UTC().Format(http.TimeFormat))
	call := Call{Service: ServiceIMDS, Operation: metadataOperation(r), Region: i.Region, Caller: i.ID}
	kind, goOn := m.server.suffer(w, r, call)
	switch {
	case !goOn:
	case kind != None:
		http.Error(w, "", metadataStatus(kind))
	case i.Mode == MetadataDisabled:
		http.Error(w, "", http.StatusForbidden)
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
		m.serveToken(w, r, i)
	case r.Method != http.MethodGet:
		http.Error(w, "", http.StatusMethodNotAllowed)
	case !m.admitted(r, i):
		http.Error(w, "", http.StatusUnauthorized)
	default:
		m.serveMetadata(w, r, i)
	}
}

// metadataOperation names a request as the SDK names its calls.
func metadataOperation(r *http.Request) string {
	switch {
	case r.Method == http.MethodPut:
		return "GetToken"
	case strings.HasPrefix(r.URL.Path, "/latest/dynamic"):
		return "GetDynamicData"
	default:
		return "GetMetadata"
	}
}

func metadataStatus(k Kind) int {
	switch k {
	case Throttled:
		return http.StatusServiceUnavailable
	case ServerError:
		return http.StatusInternalServerError
	default:
		return http.StatusForbidden
	}
}

func (m *IMDS) serveToken(w http.ResponseWriter, r *http.Request, i Instance) {
	if i.Mode == TokensUnknown {
		http.NotFound(w, r)
		return
	}
	// A proxy in between would hand the token to others.
	if r.Header.Get("X-Forwarded-For") != "" {
		http.Error(w, "", http.StatusForbidden)
		return
	}
	seconds, err := strconv.Atoi(r.Header.Get(tokenTTLHeader))
	if err != nil || seconds < 1 || seconds > maxTokenSeconds {
		http.Error(w, "", http.StatusBadRequest)
		return
	}
	if i.HopLimit < 2 {
		m.server.wait(r, nil)
		hangUp(w)
		return
	}
	token := rand.Text() + rand.Text()
	expires := m.server.now().Add(time.Duration(seconds) * time.Second)
	m.mu.Lock()
	m.tokens[token] = expires
	m.mu.Unlock()
	w.Header().Set(tokenTTLHeader, strconv.Itoa(seconds))
	w.Header().Set("Content-Type", "text/plain")
	_, _ = fmt.Fprint(w, token) // the client went away
}

// admitted says whether a request brings the token that the mode asks for. A
// token is refused when it is bad even where none is needed.
func (m *IMDS) admitted(r *http.Request, i Instance) bool {
	token := r.Header.Get(tokenHeader)
	if i.Mode == TokensUnknown || (i.Mode == TokensOptional && token == "") {
		return true
	}
	now := m.server.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	expires, known := m.tokens[token]
	if known && !now.Before(expires) {
		delete(m.tokens, token)
		return false
	}
	return known
}
