// Command registry serves one image from a real container registry that knows one
// user, until it is interrupted. It prints a line once it serves.
package main

import (
	"archive/tar"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/crypto/bcrypt"
)

// bcryptBytes is how much of a password bcrypt reads.
const bcryptBytes = 72

type request struct {
	address, user, password, image, repository string
}

func main() {
	var r request
	flag.StringVar(&r.address, "address", "127.0.0.1:0", "where to listen")
	flag.StringVar(&r.user, "user", "AWS", "who may pull")
	flag.StringVar(&r.password, "password-file", "", "file with the user's password")
	flag.StringVar(&r.image, "image", "", "tar that tools/image wrote")
	flag.StringVar(&r.repository, "repository", "team/app:v1", "what the image is called here")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, r)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, r request) (err error) {
	if err := os.Setenv("OTEL_TRACES_EXPORTER", "none"); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "registry-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := r.push(ctx, dir); err != nil {
		return fmt.Errorf("push %s: %w", r.image, err)
	}
	users := filepath.Join(dir, "htpasswd")
	if err := r.writeUser(users); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", r.address)
	if err != nil {
		return err
	}
	fmt.Println("serving on", listener.Addr())
	server := &http.Server{Handler: newApp(ctx, dir, configuration.Auth{"htpasswd": {"realm": "test", "path": users}})} //nolint:gosec // of a test
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func newApp(ctx context.Context, dir string, auth configuration.Auth) *handlers.App {
	config := &configuration.Configuration{
		Storage: configuration.Storage{"filesystem": {"rootdirectory": filepath.Join(dir, "storage")}}, Auth: auth,
	}
	config.HTTP.Secret = "for one process only"
	config.Log.Level = "error"
	config.Catalog.MaxEntries = 10
	return handlers.NewApp(ctx, config)
}

func (r request) writeUser(path string) error {
	password, err := os.ReadFile(r.password)
	if err != nil {
		return err
	}
	password = password[:min(len(password), bcryptBytes)]
	hash, err := bcrypt.GenerateFromPassword(password, bcrypt.MinCost)
	if err != nil {
		return err
	}
	return os.WriteFile(path, fmt.Appendf(nil, "%s:%s\n", r.user, hash), 0o600)
}

// push puts the image in by a registry on the same storage that asks for no user.
func (r request) push(ctx context.Context, dir string) error {
	index, err := load(r.image, filepath.Join(dir, "image"))
	if err != nil {
		return err
	}
	open := httptest.NewServer(newApp(ctx, dir, nil))
	defer open.Close()
	to, err := name.ParseReference(strings.TrimPrefix(open.URL, "http://")+"/"+r.repository, name.Insecure)
	if err != nil {
		return err
	}
	return remote.WriteIndex(to, index, remote.WithContext(ctx))
}

// load unpacks the tar and returns the image for all platforms that is in it.
func load(file, dir string) (ggcr.ImageIndex, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // a directory that was only read
	from, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer from.Close() //nolint:errcheck // was only read
	for packed := tar.NewReader(from); ; {
		header, err := packed.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(packed)
		if err != nil {
			return nil, err
		}
		if err := root.MkdirAll(filepath.Dir(header.Name), 0o700); err != nil {
			return nil, err
		}
		if err := root.WriteFile(header.Name, data, 0o600); err != nil {
			return nil, err
		}
	}
	all, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	manifest, err := all.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		return nil, fmt.Errorf("want one image in the tar: %w", err)
	}
	return all.ImageIndex(manifest.Manifests[0].Digest)
}
