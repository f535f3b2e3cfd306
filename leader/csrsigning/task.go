package csrsigning

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
	"k8s.io/client-go/kubernetes"
	certslisters "k8s.io/client-go/listers/certificates/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/scrapercsr"
)

// Name is the task's name, and the value of the label chandler.dev/task on
// everything that it makes.
const Name = "csrsigning"

// caKeyName is the key of the CA. It has a slash, so it is no request's name.
const caKeyName = "/ca"

const (
	defaultCALife  = 365 * 24 * time.Hour
	defaultOverlap = 24 * time.Hour
	// leafsPerCA is how many of the longest certificates fit into a CA's life.
	leafsPerCA = 3
)

// Options is what New needs besides the term.
type Options struct {
	// Rules is what a request must be. Its namespace is the term's, its signer
	// scrapercsr.OwnSigner.
	Rules scrapercsr.Rules
	// MaxLife bounds the certificates further than requests may ask. Zero means
	// Rules.LongestLife. Below ten minutes, the least that a request can ask for,
	// it is for demonstrations.
	MaxLife time.Duration
	// CALife is how long a CA is valid. Zero means a year, and three times MaxLife at
	// least.
	CALife time.Duration
	// Overlap is how long a new CA is in the bundle before it signs. Zero means a day.
	Overlap time.Duration
	// Metrics are those of the process. Required.
	Metrics *Metrics
}

// Task signs requests for one term. It implements leader.Task.
type Task struct {
	rules   scrapercsr.Rules
	lives   lives
	metrics *Metrics
	gauges  gauges
	term    prometheus.Registerer
	log     *slog.Logger
	events  events.EventRecorder
	client  kubernetes.Interface
	pods    scrapercsr.Pods
	guard   *leader.Guard
	enqueue func(key string)

	requests certslisters.CertificateSigningRequestLister
	secrets  corelisters.SecretNamespaceLister
	bundles  corelisters.ConfigMapNamespaceLister

	mu    sync.Mutex
	ready *authority // in the bundle, so it may sign; nil if there is none
	told  string     // the last problem of the CA
}

// New builds the task of one term. It does no I/O.
func New(term leader.Term, opts Options) (*Task, error) {
	opts.Rules.Namespace = term.Namespace
	l := lives{leaf: opts.MaxLife, ca: opts.CALife, overlap: opts.Overlap}
	if l.leaf == 0 {
		l.leaf = opts.Rules.LongestLife
	}
	if l.ca == 0 {
		l.ca = max(defaultCALife, leafsPerCA*l.leaf)
	}
	if l.overlap == 0 {
		l.overlap = defaultOverlap
	}
	switch {
	case opts.Metrics == nil || opts.Rules.CommonName == "" || opts.Rules.LongestLife <= 0:
		return nil, errors.New("signing of scraper certificates: Metrics and Rules are required")
	case opts.Rules.SignerName != scrapercsr.OwnSigner:
		return nil, fmt.Errorf("signing of scraper certificates: signer %q is not ours, %q", opts.Rules.SignerName, scrapercsr.OwnSigner)
	case l.leaf < 0 || l.overlap < 0 || l.ca <= l.leaf+2*l.overlap:
		return nil, fmt.Errorf("signing of scraper certificates: CALife %s must exceed MaxLife %s and two overlaps of %s", l.ca, l.leaf, l.overlap)
	}
	return &Task{
		rules: opts.Rules, lives: l, metrics: opts.Metrics, gauges: newGauges(), term: term.Metrics,
		log: term.Log.With("task", Name), events: term.Events,
		guard: newGuard(), client: term.Client, pods: term.Client.CoreV1().Pods(term.Namespace),
	}, nil
}

// Name implements leader.Task.
func (t *Task) Name() string { return Name }

// Watch implements leader.Task.
func (t *Task) Watch(in leader.Informers, enqueue func(key string)) error {
	t.enqueue = enqueue
	requests := in.Typed(leader.Selection{Fields: "spec.signerName=" + t.rules.SignerName}).Certificates().V1().CertificateSigningRequests()
	named := in.Typed(leader.Selection{Namespace: t.rules.Namespace, Fields: "metadata.name=" + ObjectName}).Core().V1()
	t.requests = requests.Lister()
	t.secrets = named.Secrets().Lister().Secrets(t.rules.Namespace)
	t.bundles = named.ConfigMaps().Lister().ConfigMaps(t.rules.Namespace)
	requestChanged := func(request metav1.Object) { enqueue(request.GetName()) }
	caChanged := func(metav1.Object) { enqueue(caKeyName) }
	for _, w := range []struct {
		informer cache.SharedIndexInformer
		changed  func(metav1.Object)
	}{
		{requests.Informer(), requestChanged}, {named.Secrets().Informer(), caChanged}, {named.ConfigMaps().Informer(), caChanged},
	} {
		if _, err := w.informer.AddEventHandler(leader.OnChange(w.changed)); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
	}
	if err := errors.Join(t.term.Register(t.gauges.expiry), t.term.Register(t.gauges.foreign)); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	enqueue(caKeyName)
	return nil
}

// Sync implements leader.Task. The key is the name of a request, or that of the CA.
func (t *Task) Sync(ctx context.Context, key string) (again time.Duration, err error) {
	if key == caKeyName {
		return t.syncCA(ctx)
	}
	request, err := t.requests.Get(key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	ca := t.current()
	if ca == nil || !signable(request, t.rules.SignerName) {
		return 0, nil // a CA that becomes ready enqueues what waits for it
	}
	return 0, t.sign(ctx, request, ca)
}

// sign issues the certificate, or says on the request why it never will.
func (t *Task) sign(ctx context.Context, request *certsv1.CertificateSigningRequest, ca *authority) error {
	answer := request.DeepCopy()
	decoded, err := t.rules.Check(ctx, t.pods, request)
	violation, broken := errors.AsType[*scrapercsr.Violation](err)
	switch {
	case broken:
		answer.Status.Conditions = append(answer.Status.Conditions, certsv1.CertificateSigningRequestCondition{
			Type: certsv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: string(violation.Reason), Message: violation.Message,
		})
	case err != nil:
		return err
	default:
		asked := time.Duration(*request.Spec.ExpirationSeconds) * time.Second
		answer.Status.Certificate, err = ca.sign(decoded, time.Now(), min(asked, t.lives.leaf))
		if err != nil {
			return fmt.Errorf("certificate request %s: %w", request.Name, err)
		}
	}
	_, err = t.client.CertificatesV1().CertificateSigningRequests().UpdateStatus(ctx, answer, metav1.UpdateOptions{FieldManager: leader.FieldManager})
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return nil // what somebody else did is an event
	case err != nil:
		return fmt.Errorf("write status of certificate request %s: %w", request.Name, err)
	case broken:
		t.metrics.certificates.WithLabelValues(resultFailed).Inc()
		t.log.Warn("approved request not signed", "name", request.Name, "reason", violation.Reason, "problem", violation.Message)
	default:
		t.metrics.certificates.WithLabelValues(resultSigned).Inc()
		t.log.Info("scraper certificate signed", "name", request.Name, "node", decoded.DNSNames[0])
	}
	return nil
}

// current returns the CA that may sign now, nil if there is none.
func (t *Task) current() *authority {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ready == nil || !time.Now().Before(t.ready.certificate.NotAfter) {
		return nil
	}
	return t.ready
}

// setReady says which CA signs from now on, and wakes the requests that wait.
func (t *Task) setReady(ca *authority) {
	t.mu.Lock()
	before := t.ready
	t.ready = ca
	t.mu.Unlock()
	switch {
	case ca == nil:
		t.gauges.expiry.Set(0)
		return
	case before != nil && before.certificate.Equal(ca.certificate):
		return
	}
	t.gauges.expiry.Set(float64(ca.certificate.NotAfter.Unix()))
	t.log.Info("CA signs scraper certificates", "subject", ca.certificate.Subject.CommonName, "expires", ca.certificate.NotAfter)
	waiting, err := t.requests.List(labels.Everything())
	if err != nil {
		return // a lister of a cache never returns one
	}
	for _, request := range waiting {
		if signable(request, t.rules.SignerName) {
			t.enqueue(request.Name)
		}
	}
}

// Permissions implements leader.Permitted.
func (t *Task) Permissions() []authorizationv1.ResourceAttributes {
	const group = certsv1.GroupName
	needed := []authorizationv1.ResourceAttributes{
		{Group: group, Resource: "certificatesigningrequests", Verb: "list"},
		{Group: group, Resource: "certificatesigningrequests", Verb: "watch"},
		{Group: group, Resource: "certificatesigningrequests", Subresource: "status", Verb: "update"},
		{Group: group, Resource: "signers", Name: t.rules.SignerName, Verb: "sign"},
		{Namespace: t.rules.Namespace, Resource: "pods", Verb: "get"},
	}
	for _, resource := range []string{"secrets", "configmaps"} {
		needed = append(needed, authorizationv1.ResourceAttributes{Namespace: t.rules.Namespace, Resource: resource, Verb: "create"})
		for _, verb := range []string{"list", "watch", "update"} {
			needed = append(needed, authorizationv1.ResourceAttributes{
				Namespace: t.rules.Namespace, Resource: resource, Name: ObjectName, Verb: verb,
			})
		}
	}
	return needed
}
