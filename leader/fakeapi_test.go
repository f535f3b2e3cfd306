package leader

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// fakeAPI answers, without a network, the few requests that a Leader makes, so
// that whole elections run inside a synctest bubble. It keeps the rules of the
// admission policies; that the real ones do too is shown by the integration
// tests.
type fakeAPI struct {
	mu        sync.Mutex
	lease     *coordinationv1.Lease // nil if absent
	version   int
	down      bool
	readOnly  bool           // refuses every write of the Lease
	noTokens  bool           // refuses every token
	looks     int            // reads of the Lease
	writes    []string       // "holder" of each successful write of the Lease
	requests  map[string]int // by bearer token
	tokens    int            // tokens granted
	denied    map[string]bool
	lacks     string        // an admission policy that is not in force
	delay     time.Duration // of each answer
	silent    string        // ending of a path that is never answered
	clockSkew time.Duration // of the API server's clock against the test's
}

func newFakeAPI() *fakeAPI {
	return &fakeAPI{requests: map[string]int{}, denied: map[string]bool{}}
}

// config returns the configuration of one pod.
func (f *fakeAPI) config(pod string) *rest.Config {
	return &rest.Config{
		Host: "http://fake", Transport: f, BearerToken: pod, QPS: -1,
		ContentConfig: rest.ContentConfig{ContentType: "application/json"},
	}
}

func (f *fakeAPI) RoundTrip(req *http.Request) (*http.Response, error) {
	body := []byte(nil)
	if req.Body != nil {
		body, _ = io.ReadAll(req.Body)
		_ = req.Body.Close()
	}
	if f.delay > 0 && !sleep(req.Context(), f.delay) {
		return nil, req.Context().Err()
	}
	if f.silent != "" && strings.HasSuffix(req.URL.Path, f.silent) {
		<-req.Context().Done()
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, fmt.Errorf("connection refused")
	}
	pod := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	f.requests[pod]++
	code, answer := f.answer(req, pod, body)
	data, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Content-Type": {"application/json"}}
	header.Set("Date", f.now().UTC().Format(http.TimeFormat))
	return &http.Response{StatusCode: code, Header: header, Body: io.NopCloser(bytes.NewReader(data)), Request: req}, nil
}

func (f *fakeAPI) now() time.Time { return time.Now().Add(f.clockSkew).Truncate(time.Second) }

func (f *fakeAPI) answer(req *http.Request, pod string, body []byte) (int, any) {
	switch {
	case strings.HasSuffix(req.URL.Path, "/token"):
		return f.token(pod, body)
	case strings.HasSuffix(req.URL.Path, "/selfsubjectaccessreviews"):
		var review authorizationv1.SelfSubjectAccessReview
		_ = json.Unmarshal(body, &review)
		review.Status.Allowed = !f.denied[review.Spec.ResourceAttributes.Resource]
		return http.StatusCreated, &review
	case strings.Contains(req.URL.Path, "/leases"):
		return f.answerLease(req, pod, body)
	}
	return refuse(http.StatusNotFound, metav1.StatusReasonNotFound)
}

func (f *fakeAPI) answerLease(req *http.Request, pod string, body []byte) (int, any) {
	switch {
	case req.Method == http.MethodGet && f.lease == nil:
		f.looks++
		return refuse(http.StatusNotFound, metav1.StatusReasonNotFound)
	case req.Method == http.MethodGet:
		f.looks++
		return http.StatusOK, f.lease
	case f.readOnly || req.URL.Query().Get("fieldManager") != FieldManager:
		return refuse(http.StatusForbidden, metav1.StatusReasonForbidden)
	}
	var wanted coordinationv1.Lease
	_ = json.Unmarshal(body, &wanted)
	switch {
	case wanted.Name != leaseName && req.URL.Query().Get("dryRun") != "":
		return f.judge(leasePolicy)
	case req.Method == http.MethodPost && f.lease != nil:
		return refuse(http.StatusConflict, metav1.StatusReasonAlreadyExists)
	case req.Method == http.MethodPut && f.lease == nil:
		return refuse(http.StatusNotFound, metav1.StatusReasonNotFound)
	case req.Method == http.MethodPut && wanted.ResourceVersion != f.lease.ResourceVersion:
		return refuse(http.StatusConflict, metav1.StatusReasonConflict)
	case !f.mayWrite(pod, &wanted):
		return refuse(http.StatusForbidden, metav1.StatusReasonForbidden)
	}
	f.store(&wanted)
	f.writes = append(f.writes, holder(&wanted))
	return http.StatusOK, f.lease
}

// mayWrite is the gist of the policy chandler-lease.
func (f *fakeAPI) mayWrite(pod string, wanted *coordinationv1.Lease) bool {
	was, will := holder(f.lease), holder(wanted)
	if will != pod && (will != "" || was != pod) {
		return false
	}
	return was == "" || was == pod || f.now().Sub(stamp(f.lease)) > leaseDuration(f.lease)
}

func (f *fakeAPI) token(pod string, body []byte) (int, any) {
	if f.noTokens || holder(f.lease) != pod {
		return refuse(http.StatusForbidden, metav1.StatusReasonForbidden)
	}
	var request authenticationv1.TokenRequest
	_ = json.Unmarshal(body, &request)
	if seconds := request.Spec.ExpirationSeconds; seconds != nil && *seconds > 600 {
		return f.judge(tokenPolicy)
	}
	f.tokens++
	request.Status.Token = "leader-token-" + strconv.Itoa(f.tokens)
	return http.StatusCreated, &request
}

// store writes the Lease as the API server does.
func (f *fakeAPI) store(lease *coordinationv1.Lease) {
	f.version++
	lease.ResourceVersion = strconv.Itoa(f.version)
	stamped := metav1.NewTime(f.now())
	lease.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: FieldManager, Operation: "Update", Time: &stamped}}
	f.lease = lease
}

// edit changes the Lease as an administrator would.
func (f *fakeAPI) edit(change func(*coordinationv1.Lease)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	f.lease = f.lease.DeepCopy()
	f.lease.ResourceVersion = strconv.Itoa(f.version)
	change(f.lease)
}

func (f *fakeAPI) set(change func(*fakeAPI)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeAPI) holder() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return holder(f.lease)
}

func holder(lease *coordinationv1.Lease) string {
	if lease == nil || lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

func refuse(code int, reason metav1.StatusReason) (int, any) {
	return code, &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: string(reason),
	}
}

// judge answers what a policy refuses.
func (f *fakeAPI) judge(policy string) (int, any) {
	if f.lacks == policy {
		return http.StatusCreated, &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess}
	}
	code, status := refuse(http.StatusForbidden, metav1.StatusReasonForbidden)
	if status, ok := status.(*metav1.Status); ok {
		status.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{{Message: "policy " + policy}}}
	}
	return code, status
}

// held returns a Lease that the named pod has just renewed.
func heldBy(pod, agents string) *coordinationv1.Lease {
	seconds := int32(15)
	lease := &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &pod, LeaseDurationSeconds: &seconds}}
	lease.Name, lease.Namespace = leaseName, "chandler"
	if agents != "" {
		lease.Annotations = map[string]string{AgentsAnnotation: agents}
	}
	return lease
}

// stubTask is a Task made of functions.
type stubTask struct {
	name string
	keys []string
	sync func(context.Context, string) (time.Duration, error)
}

func (s *stubTask) Name() string { return s.name }

func (s *stubTask) Watch(_ Informers, enqueue func(string)) error {
	for _, key := range s.keys {
		enqueue(key)
	}
	return nil
}

func (s *stubTask) Sync(ctx context.Context, key string) (time.Duration, error) {
	return s.sync(ctx, key)
}

// replica is one Leader that runs in a bubble.
type replica struct {
	*Leader
	stop   context.CancelFunc
	result chan error
}

// start runs a Leader for the pod; without tasks of its own it has one that does
// nothing.
func start(t *testing.T, api *fakeAPI, pod string, adjust ...func(*Options)) *replica {
	t.Helper()
	opts := Options{
		Config:    api.config(pod),
		Namespace: "chandler",
		Identity:  pod,
		Tasks:     func(Term) ([]Task, error) { return nil, nil },
		Log:       slog.New(slog.NewTextHandler(t.Output(), nil)),
		Metrics:   prometheus.NewRegistry(),
	}
	for _, change := range adjust {
		change(&opts)
	}
	leader, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r := &replica{Leader: leader, stop: stop, result: make(chan error, 1)}
	go func() { r.result <- leader.Run(ctx) }()
	return r
}

// end stops the replica as a shutdown does.
func (r *replica) end(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.result; err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}
