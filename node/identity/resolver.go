package identity

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
)

const (
	// roundTimeout bounds one round of questions to the API server.
	roundTimeout = 10 * time.Second
	// metadataTimeout lets the SDK's three tries end (AWS: 3.5 to 5 s behind a
	// hop limit of 1) and no more.
	metadataTimeout = 15 * time.Second
	// metadataGrace is how long the first round waits for the metadata service
	// before it takes the last resort, the UID of kube-system, for an answer: a
	// metadata service within reach answers in a few milliseconds.
	metadataGrace = 100 * time.Millisecond
	// resync is how often the sources are asked again, jittered by half. Six
	// requests each time leave room in the budget of 60 requests an hour.
	resync = time.Hour
	// A failed round is repeated after retryMin, doubled up to retryMax. One with a
	// source that RBAC refuses is repeated likewise, doubled up to resync: an API
	// server that has just started refuses everything for some seconds.
	retryMin = time.Second
	retryMax = 2 * time.Minute
)

var errPending = errors.New("the instance metadata service has not answered yet")

// Options are what New needs.
type Options struct {
	// NodeName is the node's name; empty leaves out what the Node object says.
	NodeName string
	// ClusterID and Region are explicit values; empty means look them up.
	ClusterID, Region string
	// MachineNamespace is where OpenShift's Machines are. Empty means
	// "openshift-machine-api".
	MachineNamespace string
	// Core and Dynamic are clients of the cluster.
	Core    kubernetes.Interface
	Dynamic dynamic.Interface
	// Metadata is the SDK's IMDSv2 client; nil leaves that source out.
	Metadata metadataAPI
	// Previous is what an earlier run published; nil when there is nothing.
	Previous Facts
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

// Resolver keeps the facts of one node current.
type Resolver struct {
	explicit reply
	cluster  cluster
	imds     metadataAPI
	log      *slog.Logger
	metrics  *metrics

	mu       sync.Mutex // guards what follows
	facts    Facts
	replies  []reply // of the last round; none before the first
	metadata reply
	reported map[string]bool // oddities that the log has already
}

// New returns a Resolver that knows what Previous holds. It does no I/O.
func New(o Options) *Resolver {
	if o.MachineNamespace == "" {
		o.MachineNamespace = "openshift-machine-api"
	}
	r := &Resolver{
		explicit: reply{source: SourceConfig, about: []Key{ClusterID, Region, NodeName}, values: map[Key]string{
			ClusterID: o.ClusterID, Region: o.Region, NodeName: o.NodeName,
		}},
		cluster:  cluster{core: o.Core, dynamic: o.Dynamic, nodeName: o.NodeName, machineNamespace: o.MachineNamespace},
		imds:     o.Metadata,
		log:      o.Log,
		metrics:  newMetrics(o.Metrics),
		facts:    o.Previous,
		metadata: reply{source: sourceIMDS},
		reported: map[string]bool{},
	}
	if r.imds != nil {
		r.metadata = reply{source: sourceIMDS, err: errPending, about: Keys()}
	}
	return r
}

// Facts returns what is known now. The caller must not change it.
func (r *Resolver) Facts() Facts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.facts
}

// Gap is why a fact is not known.
type Gap struct {
	// Why names the sources that could know the fact and what came of asking them.
	Why string
	// InDoubt says that a source of the cluster may still have the fact, or the
	// metadata service, which has not answered yet.
	InDoubt bool
	// OfAWS says that the node belongs to AWS.
	OfAWS bool
}

// Missing returns why a fact is not known.
func (r *Resolver) Missing(k Key) Gap {
	r.mu.Lock()
	defer r.mu.Unlock()
	gap := Gap{OfAWS: r.facts.Value(InstanceID) != ""}
	if len(r.replies) == 0 {
		gap.Why, gap.InDoubt = "no source has been asked yet", true
		return gap
	}
	var asked []string
	for _, reply := range r.replies {
		gap.OfAWS = gap.OfAWS || reply.ofAWS
		if !slices.Contains(reply.about, k) {
			continue
		}
		outcome := reply.why
		switch {
		case errors.Is(reply.err, errPending):
			outcome, gap.InDoubt = "has not answered yet", true
		case errors.Is(reply.err, errUninitialized):
			outcome = errUninitialized.Error()
		case reply.err != nil:
			outcome = "could not be asked"
			gap.InDoubt = gap.InDoubt || reply.source != sourceIMDS // which may never answer
		case reply.forbidden:
			outcome = "refused by RBAC"
		case reply.absent:
			outcome, gap.InDoubt = "the Node does not exist", true
		}
		if outcome != "" {
			outcome = " (" + outcome + ")"
		}
		asked = append(asked, reply.source+outcome)
	}
	gap.Why = "asked " + strings.Join(asked, ", ")
	return gap
}

// Run keeps asking until ctx ends and calls changed after the first round and
// whenever a fact has changed. It returns nil.
func (r *Resolver) Run(ctx context.Context, changed func()) error {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		r.askMetadata(ctx)
	}()
	defer func() { <-answered }()

	asked, err := r.ask(ctx)
	if r.lastResort(asked) {
		r.grace(ctx, answered)
	}
	r.settle(asked)
	changed()
	retry, metadataDone := retryMin, answered
	for ctx.Err() == nil {
		wait := resync/2 + rand.N(resync)
		switch {
		case err != nil:
			wait, retry = retry/2+rand.N(retry), min(2*retry, retryMax)
		case refused(asked):
			wait, retry = retry/2+rand.N(retry), min(2*retry, resync)
		case r.tentative(asked):
			wait = retryMax/2 + rand.N(retryMax)
		default:
			retry = retryMin
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-metadataDone:
			metadataDone = nil // a nil channel is never ready again
		case <-timer.C:
			asked, err = r.ask(ctx)
		}
		timer.Stop()
		if ctx.Err() == nil && r.settle(asked) {
			changed()
		}
	}
	return nil
}

// Resolve is for a single shot: it asks every source of the cluster once, then the
// metadata service if that may know the cluster or the region better, and returns
// what is known. The error names the sources of the cluster that could not be
// asked; the facts are good all the same.
func (r *Resolver) Resolve(ctx context.Context) (Facts, error) {
	asked, err := r.ask(ctx)
	r.settle(asked)
	if r.Facts().Value(Region) == "" || r.Facts().Value(ClusterID) == "" || r.lastResort(asked) {
		r.askMetadata(ctx)
		r.settle(asked)
	}
	return r.Facts(), err
}

// ask asks the cluster. The error names the sources that could not be asked.
func (r *Resolver) ask(ctx context.Context) ([]reply, error) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	asked := r.cluster.replies(ctx)
	var errs []error
	for _, reply := range asked {
		errs = append(errs, reply.err)
	}
	return asked, errors.Join(errs...)
}

// refused reports whether RBAC has refused a source.
func refused(asked []reply) bool {
	return slices.ContainsFunc(asked, func(r reply) bool { return r.forbidden })
}

// tentative reports whether a source may soon know a better cluster ID than the UID of
// kube-system.
func (r *Resolver) tentative(asked []reply) bool {
	return r.lastResort(asked) && slices.ContainsFunc(asked, func(r reply) bool { return r.tentative })
}

// lastResort reports whether nothing better than the UID of kube-system is known.
func (r *Resolver) lastResort(asked []reply) bool {
	facts, _ := decide(r.Facts(), r.join(asked))
	return facts[ClusterID].Source == sourceNamespace
}

// grace gives the metadata service a moment.
func (r *Resolver) grace(ctx context.Context, answered <-chan struct{}) {
	timer := time.NewTimer(metadataGrace)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-answered:
	case <-timer.C:
	}
}

// join puts the answers of config and metadata where they rank: the first is
// above all, and the last of the cluster's, kube-system, below all.
func (r *Resolver) join(asked []reply) []reply {
	last := len(asked) - 1
	all := append([]reply{r.explicit}, asked[:last]...)
	return append(all, r.metadataReply(), asked[last])
}

func (r *Resolver) metadataReply() reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.metadata
}

func (r *Resolver) askMetadata(ctx context.Context) {
	if r.imds == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	answer := metadata(ctx, r.imds)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.metadata = answer
}

// settle decides, keeps the outcome, and reports whether it is new.
func (r *Resolver) settle(asked []reply) bool {
	replies := r.join(asked)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replies = replies
	if id := another(r.facts, replies); id != "" {
		r.log.Warn("facts of another instance discarded", "value", id, "other", r.facts.Value(InstanceID))
		r.facts = nil
	}
	facts, odd := decide(r.facts, replies)
	r.report(replies, odd)
	if facts.Equal(r.facts) {
		r.metrics.show(facts)
		return false
	}
	for _, k := range Keys() {
		if f, ok := facts[k]; ok && f != r.facts[k] {
			r.log.Info("identity fact found", "fact", string(k), "value", f.Value, "source", f.Source)
		}
	}
	r.facts = facts
	r.metrics.show(facts)
	return true
}

// report warns about each oddity the first time that it is seen.
func (r *Resolver) report(replies []reply, odd []disagreement) {
	for _, reply := range replies {
		if reply.err != nil && !errors.Is(reply.err, errPending) {
			r.metrics.failures.WithLabelValues(reply.source).Inc()
			if r.first("asked", reply.source, reply.err.Error()) {
				r.log.Warn("identity source could not be asked", "source", reply.source, "err", reply.err)
			}
		}
		if reply.forbidden && r.first("forbidden", reply.source) {
			r.log.Info("identity source is not ours to read, RBAC refuses it", "source", reply.source)
		}
		if reply.refused != nil && r.first("refused", reply.source, reply.refused.Error()) {
			r.log.Warn("identity value refused", "source", reply.source, "err", reply.refused)
		}
	}
	for _, d := range odd {
		fact := string(d.key)
		switch {
		case !r.first("odd", string(d.key), d.kept.Value, d.lower.Value, d.lower.Source):
		case d.reason != nil:
			r.log.Warn("identity value refused", "fact", fact, "source", d.lower.Source, "err", d.reason)
		default:
			r.log.Warn("identity sources disagree", "fact", fact, "value", d.kept.Value, "source", d.kept.Source,
				"other", d.lower.Value, "other_source", d.lower.Source)
		}
	}
}

// first reports whether an oddity is new.
func (r *Resolver) first(parts ...string) bool {
	key := strings.Join(parts, "\x00")
	if r.reported[key] {
		return false
	}
	if len(r.reported) >= maxReported {
		clear(r.reported) // errors that differ each time must not grow without end
	}
	r.reported[key] = true
	return true
}

const maxReported = 64

type metrics struct {
	source   *prometheus.GaugeVec
	failures *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		source: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "chandler_identity_source",
			Help: "1 for the source that a fact of this node comes from.",
		}, []string{"fact", "source"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "chandler_identity_source_failures_total",
			Help: "Rounds in which a source of facts could not be asked.",
		}, []string{"source"}),
	}
	reg.MustRegister(m.source, m.failures)
	for _, s := range Sources() {
		m.failures.WithLabelValues(s)
	}
	return m
}

func (m *metrics) show(f Facts) {
	for _, k := range Keys() {
		for _, s := range Sources() {
			value := 0.0
			if f[k].Source == s {
				value = 1
			}
			m.source.WithLabelValues(string(k), s).Set(value)
		}
	}
}
