// Command image packs static binaries into one OCI image for several platforms,
// without Docker: `make image`. The same binaries give the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// user runs the binary unless a pod says otherwise; the DaemonSet does.
	user = "65532:65532"
	// initScript is where the image that `chandler init` replaces has its program.
	initScript = "usr/local/bin/init.py"
)

// request is what the flags ask for.
type request struct {
	out      string            // path of the tar
	name     string            // e.g. "example.com/chandler:v1"
	labels   map[string]string // of the configuration
	binaries map[string]string // architecture → path
}

func main() {
	r := request{labels: map[string]string{}, binaries: map[string]string{}}
	flag.StringVar(&r.out, "out", "", "path of the tar, which is replaced")
	flag.StringVar(&r.name, "name", "chandler:dev", "name and tag that an import gives the image")
	flag.Func("label", "KEY=VALUE; repeatable", pair(r.labels))
	flag.Func("binary", "ARCHITECTURE=PATH, e.g. arm64=bin/chandler-arm64; repeatable", pair(r.binaries))
	flag.Parse()
	if err := run(r, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func pair(into map[string]string) func(string) error {
	return func(text string) error {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return fmt.Errorf("%q: want KEY=VALUE", text)
		}
		into[key] = value
		return nil
	}
}

func run(r request, out io.Writer) error {
	if r.out == "" || len(r.binaries) == 0 {
		return errors.New("want --out and at least one --binary")
	}
	var index v1.ImageIndex = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, architecture := range sorted(r.binaries) {
		image, err := r.image(architecture)
		if err != nil {
			return fmt.Errorf("image for %s: %w", architecture, err)
		}
		size, err := report(out, architecture, r.binaries[architecture], image)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{
			MediaType: types.OCIManifestSchema1, Size: size, Platform: &v1.Platform{OS: "linux", Architecture: architecture},
		}})
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s %s\n", r.name, digest) //nolint:errcheck // a terminal
	return r.write(index)
}

// image has one layer, which holds one file and a link to it.
func (r request) image(architecture string) (v1.Image, error) {
	binary, err := os.ReadFile(r.binaries[architecture])
	if err != nil {
		return nil, err
	}
	content, err := layer(binary)
	if err != nil {
		return nil, err
	}
	image := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	if image, err = mutate.AppendLayers(image, content); err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", architecture
	config.Config = v1.Config{Entrypoint: []string{"/chandler"}, User: user, WorkingDir: "/", Labels: r.labels}
	return mutate.ConfigFile(image, config)
}

// layer packs the binary. No time, owner or name of this machine goes in.
func layer(binary []byte) (v1.Layer, error) {
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "chandler", Mode: 0o555, Size: int64(len(binary))})
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(binary); err != nil {
		return nil, err
	}
	err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: initScript, Linkname: "/chandler", Mode: 0o777})
	if err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(packed.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestCompression))
}

// report prints what an image takes on the wire and on disk, and returns the size
// of its manifest.
func report(out io.Writer, architecture, binary string, image v1.Image) (int64, error) {
	layers, err := image.Layers()
	if err != nil {
		return 0, err
	}
	compressed, err := layers[0].Size()
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(binary)
	if err != nil {
		return 0, err
	}
	const mebibyte = 1 << 20
	fmt.Fprintf(out, "linux/%s: %.1f MiB compressed, %.1f MiB unpacked\n", //nolint:errcheck // a terminal
		architecture, float64(compressed)/mebibyte, float64(info.Size())/mebibyte)
	return image.Size()
}

// write lays the index out as a directory, and packs that in a fixed order.
func (r request) write(index v1.ImageIndex) (err error) {
	dir, err := os.MkdirTemp("", "chandler-image-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	// containerd goes by the first annotation, the OCI specification has the second.
	_, tag, _ := strings.Cut(filepath.Base(r.name), ":")
	err = path.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name": r.name, "org.opencontainers.image.ref.name": tag,
	}))
	if err != nil {
		return err
	}
	file, err := os.Create(r.out + ".new")
	if err != nil {
		return err
	}
	if err := errors.Join(pack(file, dir), file.Close()); err != nil {
		return err
	}
	return os.Rename(r.out+".new", r.out)
}

// pack writes the directory's files as a tar without times and owners.
func pack(out io.Writer, dir string) error {
	w := tar.NewWriter(out)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error { // in lexical order
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: filepath.ToSlash(name), Mode: 0o644, Size: int64(len(data))}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	return errors.Join(err, w.Close())
}

func sorted(m map[string]string) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
