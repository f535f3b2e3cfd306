package leader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

const leaseName = "chandler"

// What ends a campaign or a term.
var (
	errHeld       = errors.New("another replica holds the lease")
	errNotRenewed = errors.New("not renewed before the deadline")
)

// leases reads and writes the one Lease with the process's own credentials.
type leases struct {
	client  coordinationclient.LeaseInterface
	timeout time.Duration // of each request
}

func newLeases(config *rest.Config, namespace string, timeout time.Duration) (*leases, error) {
	config = rest.CopyConfig(config)
	config.Wrap(func(base http.RoundTripper) http.RoundTripper { return &datedTransport{base} })
	client, err := coordinationclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client for the lease: %w", err)
	}
	return &leases{client.Leases(namespace), timeout}, nil
}

// look reads the Lease as cheaply as can be: from the API server's watch cache,
// without asking etcd. Staleness of some milliseconds does no harm, since a
// campaign reads again. The time is the API server's.
func (l *leases) look(ctx context.Context) (*coordinationv1.Lease, time.Time, error) {
	return l.get(ctx, metav1.GetOptions{ResourceVersion: "0"})
}

func (l *leases) get(ctx context.Context, options metav1.GetOptions) (*coordinationv1.Lease, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	var now time.Time
	lease, err := l.client.Get(context.WithValue(ctx, dateKey{}, &now), leaseName, options)
	if now.IsZero() {
		now = time.Now() // a proxy in between that drops the header
	}
	return lease, now, err
}

func (l *leases) create(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	return l.client.Create(ctx, lease, metav1.CreateOptions{FieldManager: FieldManager})
}

func (l *leases) update(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	return l.client.Update(ctx, lease, metav1.UpdateOptions{FieldManager: FieldManager})
}

// dryRun creates a Lease without keeping it.
func (l *leases) dryRun(ctx context.Context, lease *coordinationv1.Lease) error {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	_, err := l.client.Create(ctx, lease, metav1.CreateOptions{FieldManager: FieldManager, DryRun: []string{metav1.DryRunAll}})
	return err
}

// dateKey is the context key of a *time.Time that receives an answer's date.
type dateKey struct{}

// datedTransport hands the Date header of an answer to the context that asks.
type datedTransport struct{ base http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t *datedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req)
	if into, ok := req.Context().Value(dateKey{}).(*time.Time); ok && err == nil {
		if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			*into = date
		}
	}
	return resp, err
}

// WrappedRoundTripper lets client-go reach the transport below.
func (t *datedTransport) WrappedRoundTripper() http.RoundTripper { return t.base }

// lock is the resourcelock.Interface of one campaign and the term that it may
// win. Unlike client-go's it names the field manager, judges expiry by the API
// server's clock, ends a campaign at the first refusal, and ends a term as soon
// as the Lease names another. Only agents is safe for concurrent use.
type lock struct {
	leases   *leases
	identity string
	node     string // of the identity; empty if its token names none
	fence    *fence
	log      *slog.Logger
	lost     func(error)  // ends the campaign or the term; safe to repeat
	agents   atomic.Int64 // number to write on the Lease; zero leaves it

	seen *coordinationv1.Lease // as last read or written
	held bool                  // we wrote our name and have seen no other since
}

// Get implements resourcelock.Interface. A Lease that has expired by the API
// server's clock is shown as released, so that the elector takes it at once
// instead of watching it for another lease duration.
func (l *lock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	lease, now, err := l.leases.get(ctx, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil, err // the elector creates it
	}
	if err != nil {
		return nil, nil, l.refused(err)
	}
	found := judge(lease, l.identity, now)
	if found == held || (found == expired && l.held) {
		l.held = false
		return nil, nil, l.refused(errHeld)
	}
	l.seen = lease
	record := resourcelock.LeaseSpecToLeaderElectionRecord(&lease.Spec)
	if found == expired {
		record.HolderIdentity = ""
	}
	raw, err := json.Marshal(record)
	return record, raw, err
}

// Create implements resourcelock.Interface.
func (l *lock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	lease := &coordinationv1.Lease{Spec: resourcelock.LeaderElectionRecordToLeaseSpec(&record)}
	lease.Name = leaseName
	l.place(lease)
	return l.write(ctx, lease, l.leases.create)
}

// Update implements resourcelock.Interface. It keeps what others wrote into the
// Lease's metadata and adds the number of agents.
func (l *lock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	if l.seen == nil {
		return errors.New("update of a lease that was never read")
	}
	lease := l.seen.DeepCopy()
	lease.ManagedFields = nil // absent means unchanged
	lease.Spec = resourcelock.LeaderElectionRecordToLeaseSpec(&record)
	if count := annotate(lease.Annotations[AgentsAnnotation], int(l.agents.Load())); count != "" {
		metav1.SetMetaDataAnnotation(&lease.ObjectMeta, AgentsAnnotation, count)
	}
	l.place(lease)
	return l.write(ctx, lease, l.leases.update)
}

// place names our node on the Lease.
func (l *lock) place(lease *coordinationv1.Lease) {
	if l.node == "" {
		delete(lease.Annotations, NodeAnnotation)
		return
	}
	metav1.SetMetaDataAnnotation(&lease.ObjectMeta, NodeAnnotation, l.node)
}

func (l *lock) write(ctx context.Context, lease *coordinationv1.Lease,
	send func(context.Context, *coordinationv1.Lease) (*coordinationv1.Lease, error),
) error {
	sent := time.Now()
	written, err := send(ctx, lease)
	if err != nil {
		return l.refused(l.explain(err))
	}
	var replaced *metav1.MicroTime
	if l.seen != nil {
		replaced = l.seen.Spec.RenewTime
	}
	l.fence.record(replaced, lease.Spec.RenewTime)
	l.seen, l.held = written, true
	l.fence.renew(sent)
	return nil
}

// refused ends a campaign at its first error. During a term the elector's renew
// deadline decides how many errors are too many.
func (l *lock) refused(err error) error {
	switch {
	case !l.held:
		l.lost(err)
	case apierrors.IsConflict(err):
		// Somebody wrote to the Lease; the elector reads it next.
		l.log.Debug("renew the lease", "err", err)
	default:
		l.log.Warn("renew the lease", "err", err)
	}
	return err
}

// explain names the remedy for a Lease whose managedFields are empty, as after
// somebody wiped them or made it without a field. The API server stamps no write to
// it from then on, and without a stamp the policy cannot tell its age.
func (l *lock) explain(err error) error {
	if l.seen == nil || len(l.seen.ManagedFields) > 0 || !RefusedByPolicy(err) {
		return err
	}
	return fmt.Errorf("the Lease has no managedFields, so nothing can tell its age: kubectl delete lease --namespace %s %s: %w", l.seen.Namespace, leaseName, err)
}

// release empties the Lease if it is still ours, and leaves on it what a successor
// gets as Term.Previous. It is called after the election and every task has ended. A
// Lease that meanwhile names another is a success.
func (l *lock) release(ctx context.Context) error {
	for {
		lease := l.seen.DeepCopy()
		lease.ManagedFields = nil
		lease.Spec.HolderIdentity = new(string)
		lease.Spec.RenewTime = l.fence.handOver(lease.Spec.RenewTime, time.Now())
		_, err := l.leases.update(ctx, lease)
		if !apierrors.IsConflict(err) {
			return err
		}
		if l.seen, _, err = l.leases.get(ctx, metav1.GetOptions{}); err != nil {
			return err
		}
		if holder := l.seen.Spec.HolderIdentity; holder == nil || *holder != l.identity {
			return nil
		}
	}
}

// RecordEvent implements resourcelock.Interface. The log and the metrics tell
// who leads; an Event for each renewal lost would need rights that agents lack.
func (l *lock) RecordEvent(string) {}

// Identity implements resourcelock.Interface.
func (l *lock) Identity() string { return l.identity }

// Describe implements resourcelock.Interface.
func (l *lock) Describe() string { return leaseName }
