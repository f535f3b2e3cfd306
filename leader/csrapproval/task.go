package csrapproval

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authorizationv1 "k8s.io/api/authorization/v1"
	certsv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	certsclient "k8s.io/client-go/kubernetes/typed/certificates/v1"
	certslisters "k8s.io/client-go/listers/certificates/v1"
	"k8s.io/client-go/tools/events"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/scrapercsr"
)

// Name is the task's name.
const Name = "csrapproval"

// Options is what New needs besides the term.
type Options struct {
	// Rules is what a request must be. Its namespace is the term's.
	Rules scrapercsr.Rules
	// Metrics are those of the process. Required.
	Metrics *Metrics
}

// Task decides requests for one term. It implements leader.Task.
type Task struct {
	rules    scrapercsr.Rules
	metrics  *Metrics
	term     prometheus.Registerer
	log      *slog.Logger
	events   events.EventRecorder
	approve  certsclient.CertificateSigningRequestInterface
	guard    *leader.Guard
	pods     scrapercsr.Pods
	requests certslisters.CertificateSigningRequestLister

	mu   sync.Mutex
	told map[string]bool // names of requests whose signer's silence was told
}

// New builds the task of one term. It does no I/O.
func New(term leader.Term, opts Options) (*Task, error) {
	opts.Rules.Namespace = term.Namespace
	if opts.Metrics == nil || opts.Rules.CommonName == "" || opts.Rules.SignerName == "" || opts.Rules.LongestLife <= 0 {
		return nil, errors.New("approval of scraper certificates: Metrics and all Rules are required")
	}
	return &Task{
		rules:   opts.Rules,
		metrics: opts.Metrics,
		term:    term.Metrics,
		log:     term.Log.With("task", Name),
		events:  term.Events,
		approve: term.Client.CertificatesV1().CertificateSigningRequests(),
		guard:   newGuard(),
		pods:    term.Client.CoreV1().Pods(term.Namespace),
		told:    map[string]bool{},
	}, nil
}

// Name implements leader.Task.
func (t *Task) Name() string { return Name }

// Watch implements leader.Task.
func (t *Task) Watch(in leader.Informers, enqueue func(key string)) error {
	requests := in.Typed(leader.Selection{Fields: "spec.signerName=" + t.rules.SignerName}).
		Certificates().V1().CertificateSigningRequests()
	t.requests = requests.Lister()
	changed := func(request metav1.Object) { enqueue(request.GetName()) }
	if _, err := requests.Informer().AddEventHandler(leader.OnChange(changed)); err != nil {
		return fmt.Errorf("watch certificate requests: %w", err)
	}
	// Not before: a scrape may come at any time from here on.
	if err := t.term.Register(newUnissued(t.unissued)); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	return nil
}

// Sync implements leader.Task. The key is the name of a request.
func (t *Task) Sync(ctx context.Context, key string) (again time.Duration, err error) {
	request, err := t.requests.Get(key)
	if apierrors.IsNotFound(err) {
		t.forget(key)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	switch do := decide(request, t.rules); do {
	case judge:
		return 0, t.judge(ctx, request)
	case await:
		return t.await(request), nil
	default:
		t.forget(key)
		t.log.Debug("request left alone", "name", request.Name)
		return 0, nil
	}
}

// judge approves or denies a request, or returns why it can do neither yet.
func (t *Task) judge(ctx context.Context, request *certsv1.CertificateSigningRequest) error {
	decoded, err := t.rules.Check(ctx, t.pods, request)
	if violation, ok := errors.AsType[*scrapercsr.Violation](err); ok {
		written, err := t.decide(ctx, request, certsv1.CertificateDenied, string(violation.Reason), violation.Message)
		if written {
			t.metrics.decisions.WithLabelValues(decisionDenied, string(violation.Reason)).Inc()
			t.log.Warn("request for a scraper certificate denied", "name", request.Name, "reason", violation.Reason, "problem", violation.Message)
		}
		return err
	}
	if err != nil {
		return err
	}
	if err := t.guard.CheckBy(ctx, func(ctx context.Context, task string) error { return t.dryRun(ctx, request, task) }); err != nil {
		return err
	}
	node := decoded.DNSNames[0]
	written, err := t.decide(ctx, request, certsv1.CertificateApproved, reasonApproved, "The agent of node "+node+" asks for its scraper certificate.")
	if written {
		t.metrics.decisions.WithLabelValues(decisionApproved, reasonApproved).Inc()
		t.log.Info("request for a scraper certificate approved", "name", request.Name, "node", node)
	}
	return err
}

// decide writes a decision for the very state of the request that was judged. It
// reports whether the decision is ours: somebody else's is an event of its own.
func (t *Task) decide(ctx context.Context, request *certsv1.CertificateSigningRequest, decision certsv1.RequestConditionType, reason, message string) (written bool, err error) {
	decided := request.DeepCopy()
	decided.Status.Conditions = append(decided.Status.Conditions, certsv1.CertificateSigningRequestCondition{
		Type: decision, Status: corev1.ConditionTrue, Reason: reason, Message: message,
	})
	_, err = t.approve.UpdateApproval(ctx, request.Name, decided, metav1.UpdateOptions{FieldManager: leader.FieldManager})
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("write decision %s (%s) on certificate request %s: %w", decision, reason, request.Name, err)
	}
	return true, nil
}

// Permissions implements leader.Permitted.
func (t *Task) Permissions() []authorizationv1.ResourceAttributes {
	const group = certsv1.GroupName
	return []authorizationv1.ResourceAttributes{
		{Group: group, Resource: "certificatesigningrequests", Verb: "list"},
		{Group: group, Resource: "certificatesigningrequests", Verb: "watch"},
		{Group: group, Resource: "certificatesigningrequests", Subresource: "approval", Verb: "update"},
		{Group: group, Resource: "signers", Name: t.rules.SignerName, Verb: "approve"},
		{Namespace: t.rules.Namespace, Resource: "pods", Verb: "get"},
	}
}

func (t *Task) unissued() int {
	all, err := t.requests.List(labels.Everything())
	if err != nil {
		return 0 // a lister of a cache never returns one
	}
	count := 0
	for _, request := range all {
		if decide(request, t.rules) == await && timeLeft(request, time.Now()) <= 0 {
			count++
		}
	}
	return count
}
