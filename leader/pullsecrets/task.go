package pullsecrets

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/prometheus/client_golang/prometheus"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/chandler-k8s/chandler/leader"
)

// Name is the task's name, and the value of the label chandler.dev/task on
// everything that it makes.
const Name = "pullsecrets"

// resyncAnnotation of a namespace makes its Secrets be written again whenever its
// value changes.
const resyncAnnotation = "chandler.dev/resync"

// ledgerKey is the key of loading and tidying the ledger. It has no dot, so it is
// no host, and no slash, so it is no pair.
const ledgerKey = "ledger"

// keySecrets leaves out what cannot hold AWS keys: most of a namespace's bytes.
const keySecrets = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token," +
	"type!=kubernetes.io/dockerconfigjson,type!=kubernetes.io/tls"

// byHost indexes namespaces by the registries that they ask for.
const byHost = "registry"

// Options is what New needs besides the term.
type Options struct {
	// HostNamespace holds the Secrets with AWS keys, e.g. "ci-cd". Required.
	HostNamespace string
	// CredentialsSecretPrefix begins their names; "-" and the registry's host
	// follow. E.g. "eatr-aws-credentials". Required.
	CredentialsSecretPrefix string
	// Adopt expects Secrets that another tool made. It only saves a request each:
	// whether they may be taken over is up to the admission policy.
	Adopt bool
	// ServiceAccounts names those that get our entry in imagePullSecrets, in every
	// namespace that has a pull secret, e.g. "default". Empty means none. Entries
	// that we added to others before are removed.
	ServiceAccounts []string
	// OwnIdentityFor lists the registries that may be asked as the process's own AWS
	// identity, by host or by the account's 12 digits. Nil means all, empty none.
	OwnIdentityFor []string
	// Roles holds the role to assume by registry host. Nil means none.
	Roles map[string]Role
	// Public also serves namespaces labelled "public.ecr.aws".
	Public bool
	// AWS returns the process's own AWS identity and the HTTP client; its region is
	// not used. It is asked again after an error.
	AWS func(context.Context) (aws.Config, error)
	// Metrics are those of the process. Required.
	Metrics *Metrics
}

// Task keeps pull secrets for one term. It implements leader.Task.
type Task struct {
	opts    Options
	home    string // the leader's own namespace
	log     *slog.Logger
	client  kubernetes.Interface
	ledger  *ledger
	tokens  *tokens
	report  *report
	guard   *leader.Guard
	metrics prometheus.Registerer // of the term
	enqueue func(key string)

	namespaces cache.Indexer
	keys       corelisters.SecretNamespaceLister
	keysSeen   func() bool                                 // false until the host namespace's Secrets are known
	accounts   map[string]corelisters.ServiceAccountLister // by name
	began      time.Time

	// mu is taken while the ledger's is held, never the other way round.
	mu         sync.Mutex
	registries map[string]*registryState // by host; those that are asked for
	secrets    map[pair]secretState
	tidied     time.Time // when the ledger was last flushed
}

// New builds the task of one term. It does no I/O.
func New(term leader.Term, opts Options) (*Task, error) {
	if opts.HostNamespace == "" || opts.CredentialsSecretPrefix == "" || opts.Metrics == nil {
		return nil, errors.New("pull secrets: HostNamespace, CredentialsSecretPrefix and Metrics are required")
	}
	for host := range opts.Roles {
		// Configuration is checked elsewhere; one role in vain must not end a term.
		if _, err := Parse(host); err != nil {
			term.Log.Warn("role is never assumed", "task", Name, "err", err)
		}
	}
	t := &Task{
		opts:       opts,
		home:       term.Namespace,
		log:        term.Log.With("task", Name),
		client:     term.Client,
		guard:      newGuard(term.Client.CoreV1().Secrets(term.Namespace)),
		report:     newReport(term),
		metrics:    term.Metrics,
		accounts:   map[string]corelisters.ServiceAccountLister{},
		began:      time.Now(),
		registries: map[string]*registryState{},
		secrets:    map[pair]secretState{},
	}
	t.ledger = newLedger(term.Client.CoreV1().ConfigMaps(term.Namespace), t.entered)
	t.tokens = newTokens(dialer(opts.AWS), opts.Metrics.called)
	return t, nil
}

// Name implements leader.Task.
func (t *Task) Name() string { return Name }

// Watch implements leader.Task.
func (t *Task) Watch(in leader.Informers, enqueue func(key string)) error {
	t.enqueue = enqueue
	namespaces := in.Metadata(corev1.SchemeGroupVersion.WithResource("namespaces"), leader.Selection{})
	t.namespaces = namespaces.GetIndexer()
	err := namespaces.AddIndexers(cache.Indexers{byHost: t.indexHosts})
	if err != nil {
		return fmt.Errorf("index namespaces: %w", err)
	}
	// Optional, as each needs a permission that an installation may do without.
	keys := in.Typed(leader.Selection{Namespace: t.opts.HostNamespace, Fields: keySecrets, Optional: true}).Core().V1().Secrets()
	t.keys, t.keysSeen = keys.Lister().Secrets(t.opts.HostNamespace), keys.Informer().HasSynced
	watches := []watch{{namespaces, t.namespaceChanged}, {keys.Informer(), t.keysChanged}}
	for _, name := range t.opts.ServiceAccounts {
		accounts := in.Typed(leader.Selection{Fields: "metadata.name=" + name, Optional: true}).Core().V1().ServiceAccounts()
		t.accounts[name] = accounts.Lister()
		watches = append(watches, watch{accounts.Informer(), t.accountChanged})
	}
	for _, w := range watches {
		if _, err := w.informer.AddEventHandler(leader.OnChange(w.changed)); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
	}
	// Not before: a scrape may come at any time from here on.
	if err := t.metrics.Register(&collector{task: t}); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	enqueue(ledgerKey)
	return nil
}

type watch struct {
	informer cache.SharedIndexInformer
	changed  func(metav1.Object)
}

// indexHosts is the index of namespaces by the registries whose Secret they get.
func (t *Task) indexHosts(obj any) ([]string, error) {
	namespace, ok := obj.(*metav1.PartialObjectMetadata)
	if !ok {
		return nil, nil
	}
	var asked []string
	for _, host := range hosts(namespace) {
		if do, _ := decide(namespace, host, t.opts.Public); do == supply {
			asked = append(asked, host)
		}
	}
	return asked, nil
}

func (t *Task) namespaceChanged(namespace metav1.Object) {
	for _, host := range hosts(namespace) {
		t.enqueue(host)
		t.enqueue(pair{namespace.GetName(), host}.key())
	}
}

func (t *Task) keysChanged(secret metav1.Object) {
	if host, ok := strings.CutPrefix(secret.GetName(), t.opts.CredentialsSecretPrefix+"-"); ok {
		t.enqueue(host)
	}
}

// accountChanged needs no more than the namespaces known so far: those that
// appear later are enqueued by themselves.
func (t *Task) accountChanged(account metav1.Object) {
	namespace := t.namespace(account.GetNamespace())
	if namespace == nil {
		return
	}
	for _, host := range hosts(namespace) {
		t.enqueue(pair{namespace.Name, host}.key())
	}
}

// Sync implements leader.Task. Keys are "<namespace>/<host>" for a Secret,
// "<host>" for a registry's token, and "ledger".
func (t *Task) Sync(ctx context.Context, key string) (again time.Duration, err error) {
	if key == ledgerKey {
		return t.syncLedger(ctx)
	}
	if p, ok := parsePair(key); ok {
		return t.syncSecret(ctx, p)
	}
	return t.syncRegistry(ctx, key)
}

// Permissions implements leader.Permitted.
func (t *Task) Permissions() []authorizationv1.ResourceAttributes {
	var needed []authorizationv1.ResourceAttributes
	add := func(resource, namespace, name string, verbs ...string) {
		for _, verb := range verbs {
			needed = append(needed, authorizationv1.ResourceAttributes{
				Resource: resource, Namespace: namespace, Name: name, Verb: verb,
			})
		}
	}
	add("namespaces", "", "", "list", "watch")
	add("secrets", t.opts.HostNamespace, "", "list", "watch")
	add("secrets", "", "", "create", "update", "delete")
	add("configmaps", t.home, "", "create", "list", "patch", "delete")
	for _, name := range t.opts.ServiceAccounts {
		add("serviceaccounts", "", name, "list", "watch", "patch")
	}
	return needed
}
