package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	certsv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

const (
	requesters = 1000
	// atOnce is how many of them the measuring program keeps under way.
	atOnce = 100
)

// demand is a world with the agents of many nodes, which ask for certificates.
type demand struct {
	*world
	agents  []kubernetes.Interface
	changes watch.Interface // of all requests
}

// decided is what one round has shown.
type decided struct {
	approved, issued time.Duration // from the first request, or the leader's start, to the last
	approving        time.Duration // from the first approval to the last
	requests         cluster.Requests
	memory           float64
}

func measureCSR(ctx context.Context, binary string) (tables string, err error) {
	err = inWorld(ctx, binary, func(w *world) error {
		tables, err = w.csrTable(ctx)
		return err
	})
	return tables, err
}

func (w *world) csrTable(ctx context.Context) (_ string, err error) {
	d := &demand{world: w}
	if err := d.populate(ctx); err != nil {
		return "", err
	}
	a, err := w.approver(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	backlog, err := d.round(ctx, a, d.ask, a.start)
	if err != nil {
		return "", err
	}
	surge, err := d.round(ctx, a, nil, func() error { return d.ask(ctx) })
	if err != nil {
		return "", err
	}
	rate := func(r decided) string { return fmt.Sprintf("%.0f a second", requesters/r.approving.Seconds()) }
	per := func(r decided) string {
		n := r.requests.Where(byLeader, func(r cluster.Request) bool {
			return r.Resource != "selfsubjectaccessreviews" && r.Resource != "daemonsets"
		}).Total()
		return fmt.Sprintf("%.2f", float64(n)/requesters)
	}
	return table([][]string{
		{fmt.Sprintf("%s agents' requests", thousands(requesters)), "waiting when a leader starts", "at once, with a leader"},
		{"the leader's approval rate, first to last", rate(backlog), rate(surge)},
		{"until the last is approved", short(backlog.approved), short(surge.approved)},
		{"until the control plane has issued the last certificate", short(backlog.issued), short(surge.issued)},
		{"API requests of the leader a certificate, its watch included", per(backlog), per(surge)},
		{"resident memory of the leader after that (VmRSS)", mebibytes(backlog.memory), mebibytes(surge.memory)},
	}), nil
}

// approver prepares an agent that leads and approves.
func (w *world) approver(ctx context.Context) (*agent, error) {
	w.scraper = scraperOn()
	return w.newAgent(ctx, fixtures.EKSNode, "{podLogs: {enabled: false}, pullSecrets: {enabled: false}}", nil)
}

// populate makes the nodes, the agents' pods and their tokens.
func (d *demand) populate(ctx context.Context) error {
	progress("making %s agents", thousands(requesters))
	d.agents = make([]kubernetes.Interface, requesters)
	var making errgroup.Group
	making.SetLimit(16)
	for i := range d.agents {
		making.Go(func() error {
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeOf(i)}}
			if _, err := d.admin.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
				return err
			}
			config, err := fixtures.AgentPod(ctx, d.Cluster, node.Name)
			if err != nil {
				return err
			}
			d.agents[i], err = kubernetes.NewForConfig(config)
			return err
		})
	}
	return making.Wait()
}

func nodeOf(i int) string {
	return fmt.Sprintf("ip-10-1-%d-%d.eu-west-1.compute.internal", i/250, i%250)
}

// ask makes a request of every agent.
func (d *demand) ask(ctx context.Context) error {
	var asking errgroup.Group
	asking.SetLimit(atOnce)
	for i, agent := range d.agents {
		asking.Go(func() error {
			request, _, err := fixtures.ScraperRequest(nodeOf(i))
			if err == nil {
				_, err = agent.CertificatesV1().CertificateSigningRequests().Create(ctx, request, metav1.CreateOptions{})
			}
			return err
		})
	}
	return asking.Wait()
}

// round prepares, begins, and follows the requests to their certificates.
func (d *demand) round(ctx context.Context, a *agent, prepare func(context.Context) error, begin func() error) (r decided, err error) {
	if err := d.watch(ctx); err != nil {
		return r, err
	}
	defer d.changes.Stop()
	if prepare != nil {
		if err := prepare(ctx); err != nil {
			return r, err
		}
	}
	mark, err := d.Mark()
	if err != nil {
		return r, err
	}
	began, failed := time.Now(), make(chan error, 1)
	go func() { failed <- begin() }()
	if err := d.follow(ctx, began, &r); err != nil {
		return r, err
	}
	if err := <-failed; err != nil {
		return r, err
	}
	if err := pause(ctx, settling); err != nil {
		return r, err
	}
	if r.requests, err = d.Requests(mark); err != nil {
		return r, err
	}
	r.memory, err = a.memory()
	progress("%s requests approved after %s, in %s", thousands(requesters), short(r.approved), short(r.approving))
	return r, err
}

func (d *demand) watch(ctx context.Context) error {
	requests := d.admin.CertificatesV1().CertificateSigningRequests()
	now, err := requests.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return err
	}
	d.changes, err = watchtools.NewRetryWatcherWithContext(ctx, now.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return requests.Watch(ctx, options)
		},
	})
	return err
}

// follow takes the times until every request has its certificate.
func (d *demand) follow(ctx context.Context, began time.Time, r *decided) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	approved, issued := map[string]bool{}, map[string]bool{}
	var first time.Time
	for len(issued) < requesters {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d approved, %d issued: %w", len(approved), len(issued), ctx.Err())
		case event, ok := <-d.changes.ResultChan():
			request, isRequest := event.Object.(*certsv1.CertificateSigningRequest)
			if !ok || !isRequest {
				return fmt.Errorf("the watch ended: %v", event.Object)
			}
			if len(request.Status.Conditions) > 0 && !approved[request.Name] {
				if first.IsZero() {
					first = time.Now()
				}
				approved[request.Name] = true
				r.approved, r.approving = time.Since(began), time.Since(first)
			}
			if len(request.Status.Certificate) > 0 && !issued[request.Name] {
				issued[request.Name] = true
				r.issued = time.Since(began)
			}
		}
	}
	return nil
}
