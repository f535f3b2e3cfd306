package scrapercert

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	certsv1 "k8s.io/api/certificates/v1"

	"github.com/chandler-k8s/chandler/hostfiles"
)

// The files of the set.
const (
	// FileCert holds the certificate, FileKey its key.
	FileCert = "tls.crt"
	FileKey  = "tls.key"
	// FilePair holds both, the certificate first, for readers that cannot tolerate two
	// opens.
	FilePair = "tls.pem"
	// FileCA is what verifies targets.
	FileCA = "ca.crt"
)

const (
	publicMode fs.FileMode = 0o444
	// asCreated leaves the owner of such a file: it is the agent's user.
	asCreated int = -1
	// maxBundle bounds a CA bundle, in bytes: what a ConfigMap may hold.
	maxBundle = 1 << 20
)

// Trust names the certificates that verify targets.
type Trust struct {
	// ClusterCA is the cluster's CA as PEM. Empty means read ClusterCAFile.
	ClusterCA []byte
	// ClusterCAFile is where the pod has it. Empty with ClusterCA empty means that
	// there is none, so CAFile is required.
	ClusterCAFile string
	// CAFile is a further PEM bundle. Empty means none.
	CAFile string
}

// Dirs lists the directories whose files go into ca.crt.
func (t Trust) Dirs() []string {
	var dirs []string
	if t.CAFile != "" {
		dirs = append(dirs, filepath.Dir(t.CAFile))
	}
	if len(t.ClusterCA) == 0 && t.ClusterCAFile != "" {
		dirs = append(dirs, filepath.Dir(t.ClusterCAFile))
	}
	return dirs
}

// bundle reads all of it. The error names the file.
func (t Trust) bundle() ([]byte, error) {
	var all []*x509.Certificate
	if len(t.ClusterCA) > 0 {
		found, err := parseCertificates(t.ClusterCA)
		if err != nil {
			return nil, fmt.Errorf("the cluster's CA: %w", err)
		}
		all = found
	} else if t.ClusterCAFile != "" {
		found, err := readBundle(t.ClusterCAFile)
		if err != nil {
			return nil, fmt.Errorf("the cluster's CA: %w", err)
		}
		all = found
	}
	if t.CAFile != "" {
		found, err := readBundle(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("scraper.caFile: %w", err)
		}
		all = append(all, found...)
	}
	if len(all) == 0 {
		return nil, errors.New("the connection to the API server names no CA that could verify targets: set scraper.caFile")
	}
	return encodeCertificates(all), nil
}

func readBundle(path string) ([]*x509.Certificate, error) {
	f, err := os.Open(path) //nolint:gosec // the configuration names it
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read from
	data, err := io.ReadAll(io.LimitReader(f, maxBundle+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxBundle {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, maxBundle)
	}
	found, err := parseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return found, nil
}

// Files renders the set, nil while there is no certificate. It reads the CA bundles
// anew; while one is bad, the last good ca.crt stands in, and where there never was
// one, that is the error. It also tells of a certificate that has expired.
func (r *Renewer) Files() ([]hostfiles.File, error) {
	r.tellExpired()
	bundle, err := r.Trust.bundle()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pair == nil {
		return nil, nil
	}
	if bundle, err = r.settle(bundle, err); err != nil {
		return nil, err
	}
	secret := func(name string, data []byte) hostfiles.File {
		return hostfiles.File{Name: name, Mode: r.Mode, UID: r.UID, GID: r.GID, Data: data}
	}
	public := func(name string, data []byte) hostfiles.File {
		return hostfiles.File{Name: name, Mode: publicMode, UID: asCreated, GID: asCreated, Data: data}
	}
	return []hostfiles.File{
		public(FileCert, r.pair.certPEM), secret(FileKey, r.pair.keyPEM),
		secret(FilePair, bytes.Join([][]byte{r.pair.certPEM, r.pair.keyPEM}, nil)), public(FileCA, bundle),
	}, nil
}

// settle picks between a bundle just read and the last good one. The caller holds
// mu.
func (r *Renewer) settle(bundle []byte, err error) ([]byte, error) {
	if err == nil {
		r.trusted, r.caError = bundle, ""
		r.metrics.caGood.Set(1)
		return bundle, nil
	}
	r.metrics.caGood.Set(0)
	if r.trusted == nil {
		return nil, err
	}
	if r.caError != err.Error() {
		r.caError = err.Error()
		r.Log.Error("scraper CA bundle not read, the last good one stays", "err", err)
	}
	return r.trusted, nil
}

func (r *Renewer) tellExpired() {
	r.mu.Lock()
	p := r.pair
	told := r.expired
	r.expired = told || p != nil && time.Now().After(p.leaf.NotAfter)
	tell := r.expired && !told
	r.mu.Unlock()
	if tell {
		r.report(checkDates(p.leaf, time.Now()))
	}
}

// accept proves the certificate of a finished request.
func (r *Renewer) accept(made *request, c *certsv1.CertificateSigningRequest) (*pair, error) {
	data, err := outcome(c)
	if err != nil {
		return nil, err
	}
	p, err := newPair(data, made.keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	p.obtained = time.Now().Round(0)
	return p, p.verify(r.CommonName, r.NodeName, p.obtained)
}

// Check tells whether the files of a set, by name, are what a consumer needs: a key
// that fits the certificate, in both forms, within its dates, and a CA bundle.
func Check(files map[string][]byte) error {
	p, err := newPair(files[FileCert], files[FileKey])
	if err != nil {
		return fmt.Errorf("%s and %s: %w", FileCert, FileKey, err)
	}
	if !bytes.Equal(files[FilePair], bytes.Join([][]byte{files[FileCert], files[FileKey]}, nil)) {
		return fmt.Errorf("%s is not %s followed by %s", FilePair, FileCert, FileKey)
	}
	if _, err := parseCertificates(files[FileCA]); err != nil {
		return fmt.Errorf("%s: %w", FileCA, err)
	}
	if err := checkDates(p.leaf, time.Now()); err != nil {
		return fmt.Errorf("%s: %w", FileCert, err)
	}
	return nil
}
