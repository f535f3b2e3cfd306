package agent

import (
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
	// initPublic is for files without secrets, initSecret for credentials.ini.
	initPublic fs.FileMode = 0o644
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
	// AccessKeyFile and SecretKeyFile are read. Both absent means no credentials.
	AccessKeyFile, SecretKeyFile string
	// UID and GID own credentials.ini; -1 leaves what the system gives.
	UID, GID int
	// Kubeconfig and NodeName are as in Options; NodeName may be empty.
	Kubeconfig, NodeName string
	Version              string
	Log                  *slog.Logger
}

// Init writes the three files once. Each is written whatever happens to the
// others; the error names those that were not.
func Init(ctx context.Context, o InitOptions) error {
	kube, err := loadKubeconfig(o.Kubeconfig, "chandler/"+o.Version+" (init)")
	if err != nil {
		return errors.Join(o.writeCredentials(), err)
	}
	resolver, err := newResolver(identity.Options{
		NodeName: o.NodeName, MachineNamespace: o.MachineNamespace, Log: o.Log, Metrics: prometheus.NewRegistry(),
	}, kube)
	if err != nil {
		return errors.Join(o.writeCredentials(), err)
	}
	facts, asked := resolver.Resolve(ctx)
	err = errors.Join(o.writeClusterID(facts), o.writeRegion(facts))
	if err != nil {
		err = errors.Join(err, asked) // why it is not known
	}
	return errors.Join(err, o.writeCredentials())
}

func (o InitOptions) writeClusterID(facts identity.Facts) error {
	data := identity.RenderClusterID(facts)
	if data == nil {
		return fmt.Errorf("write %s: no source knows the cluster ID", o.ClusterIDFile)
	}
	return o.write(o.ClusterIDFile, data, initPublic, -1, -1)
}

func (o InitOptions) writeRegion(facts identity.Facts) error {
	region := facts.Value(identity.Region)
	if region == "" {
		return fmt.Errorf("write %s: no source knows the region", o.RegionFile)
	}
	data, err := awsini.RenderConfig(awsini.Profile{Name: "default", Credentials: awsini.Credentials{Region: region}})
	if err != nil {
		return err
	}
	return o.write(o.RegionFile, data, initPublic, -1, -1)
}

func (o InitOptions) writeCredentials() error {
	access, err := readKeyFile(o.AccessKeyFile)
	secret, err2 := readKeyFile(o.SecretKeyFile)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	keys, err := awsini.New(access, awsini.Secret(secret))
	if errors.Is(err, awsini.ErrNone) {
		o.Log.Info("no AWS keys mounted, no credentials file written", "path", o.AccessKeyFile)
		return nil
	}
	if err != nil {
		return fmt.Errorf("write %s from %s and %s: %w", o.CredentialsFile, o.AccessKeyFile, o.SecretKeyFile, err)
	}
	data, err := awsini.RenderCredentials(awsini.Profile{Name: "default", Credentials: keys})
	if err != nil {
		return err
	}
	return o.write(o.CredentialsFile, data, initSecret, o.UID, o.GID)
}

// readKeyFile returns "" for a file that does not exist.
func readKeyFile(path string) (string, error) {
	f, err := os.Open(path) //nolint:gosec // the path is a flag
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // only read from
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(data) > maxKeyFile {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxKeyFile)
	}
	return strings.TrimSpace(string(data)), err
}

// write puts a whole file in place by a rename, so that no container ever sees
// half of it, with its mode and owner set before.
func (o InitOptions) write(path string, data []byte, mode fs.FileMode, uid, gid int) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // other containers read it
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "..chandler-*") // created with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chown(uid, gid), f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	o.Log.Info("file written", "path", path, "mode", mode.String())
	return nil
}
