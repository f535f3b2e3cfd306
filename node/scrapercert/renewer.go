package scrapercert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	certsclient "k8s.io/client-go/kubernetes/typed/certificates/v1"

	"github.com/chandler-k8s/chandler/hostfiles"
)

const (
	// defaultPatience is how long a request may wait before that is reported.
	defaultPatience = 90 * time.Second
	// leastPause keeps certificates that live for a second or less from a loop
	// without a pause.
	leastPause = time.Second
)

// Options are what New needs.
type Options struct {
	// Client makes and watches requests, with the rights of deploy/base/scrapercert.yaml.
	// It has no timeout of its own, which would end watches.
	Client kubernetes.Interface
	// NodeName is the certificate's one SAN.
	NodeName string
	// CommonName is the certificate's subject.
	CommonName string
	// SignerName is who is asked to sign.
	SignerName string
	// OwnSigner is the signer that error messages propose where another does not sign.
	OwnSigner string
	// Duration is the life that is asked for, at least 10 minutes.
	Duration time.Duration
	// RenewAfter replaces a certificate this long after it was obtained, if its own
	// life does not ask for it earlier. Zero means by its life alone.
	RenewAfter time.Duration
	// Patience is how long a request may be undecided or unsigned before that is
	// reported. Zero means 90 seconds.
	Patience time.Duration
	// Trust is what ca.crt is made of.
	Trust Trust
	// Mode, UID and GID are those of the files with the key.
	Mode     fs.FileMode
	UID, GID int
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

// Renewer keeps one certificate current.
type Renewer struct {
	Options
	metrics *metrics

	// Of Run alone.
	open *request   // the request that is under way, nil between two
	self *requester // who we are, nil until it mattered

	mu      sync.Mutex // guards what follows
	pair    *pair      // what is in use, nil while there is none
	foreign *pair      // published by an earlier run with other settings
	trusted []byte     // the last good ca.crt
	caError string     // the last error of Trust, so that the log has it once
	problem error      // what the last attempt failed with
	expired bool       // that pair has expired was reported
}

// New assembles a Renewer. It does no I/O.
func New(o Options) *Renewer {
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	return &Renewer{Options: o, metrics: newMetrics(o.Metrics)}
}

func (r *Renewer) requests() certsclient.CertificateSigningRequestInterface {
	return r.Client.CertificatesV1().CertificateSigningRequests()
}

// Resume takes up what an earlier run published, before Run. The error says why
// that is of no use: ErrInvalid, ErrExpired, or that it does not parse.
func (r *Renewer) Resume(files []hostfiles.File) error {
	byName := map[string][]byte{}
	for _, f := range files {
		byName[f.Name] = f.Data
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if bundle, err := parseCertificates(byName[FileCA]); err == nil {
		r.trusted = encodeCertificates(bundle)
	}
	p, err := newPair(byName[FileCert], byName[FileKey])
	if err != nil {
		return fmt.Errorf("%s and %s: %w", FileCert, FileKey, err)
	}
	err = p.verify(r.CommonName, r.NodeName, time.Now())
	switch {
	case err == nil:
		r.use(p)
	case !errors.Is(err, ErrExpired):
		r.foreign = p
	}
	return err
}

// use makes a pair the one in use. The caller holds mu.
func (r *Renewer) use(p *pair) {
	r.pair, r.foreign, r.expired = p, nil, false
	r.metrics.notAfter.Set(float64(p.leaf.NotAfter.Unix()))
}

// Run keeps the certificate current until ctx ends and calls changed for each new
// one. It returns nil.
func (r *Renewer) Run(ctx context.Context, changed func()) error {
	var row failures
	for sleep(ctx, r.due()) {
		p, err := r.renew(ctx)
		switch {
		case err == nil:
			r.take(p)
			changed()
		case ctx.Err() == nil:
			r.report(err)
		}
		pause(ctx, row.pause(err))
	}
	return nil
}

// failures counts attempts in a row that ended in the same way.
type failures struct {
	result string
	count  int
}

// pause is how long to wait after an attempt.
func (f *failures) pause(err error) time.Duration {
	if err == nil {
		*f = failures{}
		return leastPause
	}
	k := kindOf(err)
	if k.result != f.result {
		*f = failures{result: k.result}
	}
	f.count++
	return k.pause(f.count)
}

// due is when the next certificate is needed.
func (r *Renewer) due() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pair == nil {
		return time.Time{}
	}
	return r.pair.due(r.RenewAfter)
}

// renew brings one new pair, or says what stopped it. It blocks for as long as the
// request is undecided.
func (r *Renewer) renew(ctx context.Context) (*pair, error) {
	if r.open == nil {
		open, err := newRequest(r.CommonName, r.NodeName)
		if err != nil {
			return nil, err
		}
		r.open = open
	}
	if r.open.object == nil {
		if err := r.submit(ctx); err != nil {
			return nil, err
		}
	}
	object, err := r.follow(ctx, r.open.object, finished)
	if err != nil && !isVanished(err) {
		return nil, err // the request stands, and is taken up again
	}
	ended := r.open
	r.open = nil
	if err != nil {
		return nil, err
	}
	p, err := r.accept(ended, object)
	if err != nil {
		return nil, fmt.Errorf("certificate request %s: %w", object.Name, err)
	}
	return p, nil
}

func (r *Renewer) take(p *pair) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.use(p)
	r.problem = nil
	r.metrics.rotations.Inc()
	r.metrics.result(resultIssued)
	r.Log.Info("scraper certificate obtained", "notAfter", p.leaf.NotAfter, "renewal", p.due(r.RenewAfter))
}

// report counts and logs a failure, or a wait that has become long.
func (r *Renewer) report(err error) {
	k := kindOf(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problem = err
	r.metrics.result(k.result)
	r.Log.Log(context.Background(), k.level, k.message, "result", k.result, "err", err) //nolint:sloglint // one of kinds
}

// Problem is what the last attempt failed with, nil after a success and before the
// first answer.
func (r *Renewer) Problem() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.problem
}

// Obsolete reports whether what an earlier run published can serve nobody any
// more: it is for other settings than ours, and has expired.
func (r *Renewer) Obsolete() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.foreign != nil && time.Now().After(r.foreign.leaf.NotAfter)
}
