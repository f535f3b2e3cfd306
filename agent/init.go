package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chandler-k8s/chandler/node/awsini"
	"github.com/chandler-k8s/chandler/node/identity"
)

const (
	// initPublic is what the image that Init replaces writes. Its volumes are the
	// pod's own, and its containers may run as any user.
	initPublic fs.FileMode = 0o644
	// initSecret is for credentials.ini where the flags say who reads it.
	initSecret fs.FileMode = 0o640
	// maxKeyFile bounds a key file, in bytes.
	maxKeyFile = 16 << 10
)

// InitOptions are the flags of the one-shot command. The paths are those of the
// OpenShift init container that it stands in for.
type InitOptions struct {
	// MachineNamespace is where Machines are looked up.
	MachineNamespace string
	// ClusterIDFile, RegionFile and CredentialsFile are written.
	ClusterIDFile, RegionFile, CredentialsFile string
	// AccessKeyFile and SecretKeyFile are read. If either is absent or empty, there are
	// no credentials.
	AccessKeyFile, SecretKeyFile string
	// UID and GID own credentials.ini, which others cannot read then; -1 leaves what
	// the system gives.
	UID, GID int
	// Kubeconfig and NodeName are as in Options; NodeName may be empty.
	Kubeconfig, NodeName string
	Version              string
	Log                  *slog.Logger
}

// Init writes the three files once. Each is written whatever happens to the
// others; the error names those that were not. Missing credentials are logged, and
// so is a missing region without credentials: the image that Init replaces succeeds
// then.
func Init(ctx context.Context, o InitOptions) error {
	keys, keysErr := o.credentials()
	facts, asked := o.resolve(ctx)
	err := errors.Join(o.writeClusterID(facts), o.writeRegion(facts, keys != nil))
	if err != nil {
		err = errors.Join(err, asked) // why it is not known
	}
	return errors.Join(err, keysErr, o.writeCredentials(keys))
}

// resolve asks every source once. The error says which could not be asked.
func (o InitOptions) resolve(ctx context.Context) (identity.Facts, error) {
	kube, err := loadKubeconfig(o.Kubeconfig, "chandler/"+o.Version+" (init)")
	if err != nil {
		return nil, err
	}
	resolver, err := newResolver(identity.Options{
		NodeName: o.NodeName, MachineNamespace: o.MachineNamespace, Log: o.Log, Metrics: prometheus.NewRegistry(),
	}, kube)
	if err != nil {
		return nil, err
	}
	return resolver.Resolve(ctx)
}

func (o InitOptions) writeClusterID(facts identity.Facts) error {
	data := identity.RenderClusterID(facts)
	if data == nil {
		return fmt.Errorf("write %s: no source knows the cluster ID", o.ClusterIDFile)
	}
	return o.write(o.ClusterIDFile, data, initPublic, -1, -1)
}

// writeRegion fails without a region only if there are credentials: they are of no
// use then.
func (o InitOptions) writeRegion(facts identity.Facts, credentials bool) error {
	region := facts.Value(identity.Region)
	if region == "" && credentials {
		return fmt.Errorf("write %s: no source knows the region", o.RegionFile)
	}
	if region == "" {
		o.Log.Warn("region not written, no source knows it", "path", o.RegionFile)
		return nil
	}
	data, err := awsini.RenderConfig(awsini.Profile{Name: "default", Credentials: awsini.Credentials{Region: region}})
	if err != nil {
		return err
	}
	return o.write(o.RegionFile, data, initPublic, -1, -1)
}

// credentials returns nil if there are none.
func (o InitOptions) credentials() (*awsini.Credentials, error) {
	access, err := o.readKeyFile(o.AccessKeyFile)
	secret, err2 := o.readKeyFile(o.SecretKeyFile)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	if access == "" || secret == "" {
		o.Log.Warn("credentials not written, a key is missing", "path", o.CredentialsFile)
		return nil, nil
	}
	keys, err := awsini.New(access, awsini.Secret(secret))
	if err != nil {
		return nil, fmt.Errorf("write %s from %s and %s: %w", o.CredentialsFile, o.AccessKeyFile, o.SecretKeyFile, err)
	}
	return &keys, nil
}

func (o InitOptions) writeCredentials(keys *awsini.Credentials) error {
	if keys == nil {
		return nil
	}
	data, err := awsini.RenderCredentials(awsini.Profile{Name: "default", Credentials: *keys})
	if err != nil {
		return err
	}
	mode := initPublic
	if o.UID >= 0 || o.GID >= 0 {
		mode = initSecret
	}
	return o.write(o.CredentialsFile, data, mode, o.UID, o.GID)
}

// readKeyFile returns the first line of a file that has any, and warns of one that
// has not or does not exist.
func (o InitOptions) readKeyFile(path string) (string, error) {
	f, err := os.Open(path) //nolint:gosec // the path is a flag
	if errors.Is(err, fs.ErrNotExist) {
		o.Log.Warn("key file does not exist", "path", path)
		return "", nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return "", fmt.Errorf("%w: let user %d read it, by the pod's fsGroup or runAsUser", err, os.Getuid())
	}
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // only read from
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(data) > maxKeyFile {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxKeyFile)
	}
	line, more, _ := strings.Cut(strings.TrimSpace(string(data)), "\n")
	if err == nil && line == "" {
		o.Log.Warn("key file is empty", "path", path)
	}
	if more != "" {
		o.Log.Warn("key file has more than one line, using the first", "path", path)
	}
	return strings.TrimSpace(line), err
}

func (o InitOptions) write(path string, data []byte, mode fs.FileMode, uid, gid int) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // other containers read it
		return err
	}
	if err := replaceFile(path, bytes.NewReader(data), mode, uid, gid); err != nil {
		return err
	}
	o.Log.Info("file written", "path", path, "mode", mode.String())
	return nil
}
