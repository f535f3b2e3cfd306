package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// TestImage packs the same binaries at two places and reads the result back.
func TestImage(t *testing.T) {
	var tars [2][]byte
	for i := range tars {
		dir := t.TempDir()
		r := request{
			out: filepath.Join(dir, "image.tar"), name: "example.com/chandler:v1", labels: map[string]string{"k": "v"},
			binaries: map[string]string{"arm64": filepath.Join(dir, "arm"), "amd64": filepath.Join(dir, "amd")},
		}
		must(t, os.WriteFile(r.binaries["arm64"], []byte("an ARM binary"), 0o700))
		must(t, os.WriteFile(r.binaries["amd64"], []byte("another binary"), 0o755))
		must(t, run(r, io.Discard))
		var err error
		tars[i], err = os.ReadFile(r.out)
		must(t, err)
	}
	if !bytes.Equal(tars[0], tars[1]) {
		t.Error("the same binaries gave other bytes")
	}
	index, err := layout.ImageIndexFromPath(unpack(t, tars[0]))
	must(t, err)
	top, err := index.IndexManifest()
	must(t, err)
	if got := top.Manifests[0].Annotations["io.containerd.image.name"]; got != "example.com/chandler:v1" {
		t.Errorf("name: got %q", got)
	}
	images, err := index.ImageIndex(top.Manifests[0].Digest)
	must(t, err)
	manifest, err := images.IndexManifest()
	must(t, err)
	got := map[string]string{}
	for _, m := range manifest.Manifests {
		image, err := images.Image(m.Digest)
		must(t, err)
		got[m.Platform.OS+"/"+m.Platform.Architecture] = contentOf(t, image)
	}
	for platform, want := range map[string]string{"linux/amd64": "another binary", "linux/arm64": "an ARM binary"} {
		if got[platform] != want {
			t.Errorf("%s: got %q, want %q", platform, got[platform], want)
		}
	}
}

// contentOf checks an image's configuration and the link, and returns what its only
// file holds.
func contentOf(t *testing.T, image v1.Image) string {
	t.Helper()
	config, err := image.ConfigFile()
	must(t, err)
	if c := config.Config; c.User != user || len(c.Entrypoint) != 1 || c.Entrypoint[0] != "/chandler" || c.Labels["k"] != "v" {
		t.Errorf("configuration: got %+v", c)
	}
	layers, err := image.Layers()
	must(t, err)
	if len(layers) != 1 {
		t.Fatalf("got %d layers, want 1", len(layers))
	}
	content, err := layers[0].Uncompressed()
	must(t, err)
	r := tar.NewReader(content)
	header, err := r.Next()
	must(t, err)
	if header.Name != "chandler" || header.Mode != 0o555 || header.Uid != 0 {
		t.Errorf("file: got %s %o of %d, want chandler 555 of 0", header.Name, header.Mode, header.Uid)
	}
	data, err := io.ReadAll(r)
	must(t, err)
	link, err := r.Next()
	must(t, err)
	if link.Typeflag != tar.TypeSymlink || link.Name != "usr/local/bin/init.py" || link.Linkname != "/chandler" {
		t.Errorf("link: got %s to %q, want usr/local/bin/init.py to /chandler", link.Name, link.Linkname)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("a third entry in the layer: %v", err)
	}
	return string(data)
}

func unpack(t *testing.T, packed []byte) string {
	t.Helper()
	dir := t.TempDir()
	r := tar.NewReader(bytes.NewReader(packed))
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		must(t, err)
		data, err := io.ReadAll(r)
		must(t, err)
		path := filepath.Join(dir, header.Name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, data, 0o644))
	}
}

func TestBadFlags(t *testing.T) {
	for name, r := range map[string]request{
		"no binary":      {out: filepath.Join(t.TempDir(), "x")},
		"no output":      {binaries: map[string]string{"amd64": "main.go"}},
		"binary missing": {out: filepath.Join(t.TempDir(), "x"), binaries: map[string]string{"amd64": "absent"}},
	} {
		if err := run(r, io.Discard); err == nil {
			t.Errorf("%s: got no error", name)
		}
		if r.out != "" {
			if _, err := os.Stat(r.out); err == nil {
				t.Errorf("%s: it has written an image", name)
			}
		}
	}
	if err := pair(map[string]string{})("amd64"); err == nil {
		t.Error("a pair without =: got no error")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
