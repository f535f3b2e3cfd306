package cluster

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
)

// auditLog is the API server's audit log, in the data directory.
const auditLog = "audit.log"

// Mark is an instant in the history of requests. The zero value is the start of
// the cluster.
type Mark struct{ offset int64 }

// Request is what requests are counted by.
type Request struct {
	// User made the request, e.g. "system:serviceaccount:chandler:chandler-agent".
	User string
	// Pod is the name of the pod that the user's token is bound to, e.g.
	// "agent-a". Empty for tokens bound to none and for certificates.
	Pod string
	// Verb is the API's, e.g. "list", "watch", "patch"; for a Path it is that of
	// HTTP in lower case.
	Verb string
	// Group is the resource's API group, e.g. "coordination.k8s.io". Empty means
	// the core group.
	Group string
	// Resource is the plural name with its subresource, e.g. "pods/log". Empty
	// for requests that concern no resource.
	Resource string
	// Namespace is empty for cluster-wide requests.
	Namespace string
	// Path is set instead of Resource, without the query, e.g. "/apis".
	Path string
}

// Requests holds how many requests of each kind there were.
type Requests map[Request]int

// Total returns the sum.
func (r Requests) Total() int {
	total := 0
	for _, count := range r {
		total += count
	}
	return total
}

// Where returns those that satisfy every condition, in a map of its own.
func (r Requests) Where(conditions ...func(Request) bool) Requests {
	matching := Requests{}
next:
	for request, count := range r {
		for _, holds := range conditions {
			if !holds(request) {
				continue next
			}
		}
		matching[request] = count
	}
	return matching
}

// User is a condition for Where: requests of this user, whole name.
func User(name string) func(Request) bool {
	return func(r Request) bool { return r.User == name }
}

// ServiceAccountUser returns the user name of a ServiceAccount.
func ServiceAccountUser(namespace, name string) string {
	return "system:serviceaccount:" + namespace + ":" + name
}

// Mark returns the present instant.
func (c *Cluster) Mark() (Mark, error) {
	info, err := os.Stat(c.auditPath())
	if errors.Is(err, os.ErrNotExist) {
		return Mark{}, nil
	}
	if err != nil {
		return Mark{}, fmt.Errorf("mark requests: %w", err)
	}
	return Mark{offset: info.Size()}, nil
}

// Requests counts every request that the API server received since the mark,
// watches included, each exactly once and whatever its outcome, as its audit log
// tells. A request counts before its answer is sent, so what a client has an
// answer to is in the count. Who impersonates others is counted himself. Requests
// whose credentials are not valid are left out.
func (c *Cluster) Requests(since Mark) (Requests, error) {
	file, err := os.Open(c.auditPath())
	if errors.Is(err, os.ErrNotExist) {
		return Requests{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("count requests: %w", err)
	}
	defer file.Close()
	if _, err := file.Seek(since.offset, io.SeekStart); err != nil {
		return nil, fmt.Errorf("count requests: %w", err)
	}
	counts := Requests{}
	for request, err := range requests(file) {
		if err != nil {
			return nil, fmt.Errorf("count requests: %w", err)
		}
		counts[request]++
	}
	return counts, nil
}

func (c *Cluster) auditPath() string { return filepath.Join(c.dir, auditLog) }

// event is the part of an audit.k8s.io/v1 Event that is counted.
type event struct {
	Verb       string
	RequestURI string
	User       struct {
		Username string
		Extra    map[string][]string
	}
	ObjectRef *struct {
		APIGroup, Resource, Subresource, Namespace string
	}
}

// requests yields the events of a log. A line that is still being written is
// left out.
func requests(log io.Reader) iter.Seq2[Request, error] {
	return func(yield func(Request, error) bool) {
		lines := bufio.NewReaderSize(log, 1<<16)
		for {
			line, err := lines.ReadBytes('\n')
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(Request{}, err)
				return
			}
			var e event
			err = json.Unmarshal(line, &e)
			if !yield(e.request(), err) || err != nil {
				return
			}
		}
	}
}

func (e *event) request() Request {
	r := Request{User: e.User.Username, Verb: e.Verb}
	if pod := e.User.Extra["authentication.kubernetes.io/pod-name"]; len(pod) == 1 {
		r.Pod = pod[0]
	}
	if e.ObjectRef == nil {
		r.Path, _, _ = strings.Cut(e.RequestURI, "?")
		return r
	}
	r.Group, r.Resource, r.Namespace = e.ObjectRef.APIGroup, e.ObjectRef.Resource, e.ObjectRef.Namespace
	if e.ObjectRef.Subresource != "" {
		r.Resource += "/" + e.ObjectRef.Subresource
	}
	return r
}
