//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/debian"
	"github.com/chandler-k8s/chandler/test/prometheus"
)

// importImages gives every node the images that manifests name: ours, and stand-ins of
// those that the examples would pull.
func (p *product) importImages(t *testing.T) {
	t.Helper()
	probe := build(t, "test/e2e/probe", ".", "probe")
	p.pulledImage = pack(t, probe, registry+"/team/app:v1")
	images := []string{
		pack(t, probe, probeImage), pack(t, build(t, ".", ".", "chandler"), image), prometheusImage(t),
		busybox(t, "docker.io/library/busybox:1.37", "sh"),
		packTree(t, yaceImage, []string{"/bin/yace"}, map[string]string{"bin/yace": probe}),
	}
	for _, node := range p.nodes {
		for _, image := range images {
			p.cluster(t, "import", node, image)
		}
	}
}

// build builds a program of a module at dir.
func build(t *testing.T, dir, pkg, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	command := exec.Command("go", "build", "-trimpath", "-o", path, pkg)
	command.Dir = filepath.Join(root, dir)
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, output)
	}
	return path
}

// pack makes an image of a program, called name. The same program by another name is
// another image: kubelet remembers of an image whether it came with a secret, and then
// asks every pod for one.
func pack(t *testing.T, program, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	command := exec.Command("go", "run", ".", "--out", path, "--name", name, "--label", "name="+name, "--binary", runtime.GOARCH+"="+program)
	command.Dir = filepath.Join(root, "tools", "image")
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("image %s: %v\n%s", name, err, output)
	}
	return path
}

// busybox is Debian's, whose shell finds its other programs in itself, under these
// names.
func busybox(t *testing.T, name string, programs ...string) string {
	t.Helper()
	cache, err := cluster.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "busybox")
	if err := debian.Unpack(t.Context(), dir, t.Output(), "busybox-static"); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, program := range programs {
		files["bin/"+program] = filepath.Join(dir, "bin", "busybox")
	}
	return packTree(t, name, nil, files)
}

// prometheusImage is Debian's, with the libraries that it asks for.
func prometheusImage(t *testing.T) string {
	t.Helper()
	programs, err := prometheus.Find(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	said, err := exec.Command("ldd", programs.Prometheus).CombinedOutput()
	if err != nil {
		t.Fatalf("ldd: %v\n%s", err, said)
	}
	files := map[string]string{"bin/prometheus": programs.Prometheus}
	for word := range strings.FieldsSeq(string(said)) {
		if filepath.IsAbs(word) {
			files[word[1:]] = word
		}
	}
	return packTree(t, "docker.io/prom/prometheus:v3.5.0", []string{"/bin/prometheus"}, files)
}

// packTree makes an image of files, named by their path in it: what `docker save` writes.
func packTree(t *testing.T, name string, entrypoint []string, files map[string]string) string {
	t.Helper()
	layer := map[string][]byte{}
	for path, source := range files {
		data, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		layer[path] = data
	}
	content := archive(t, layer, 0o755)
	config := map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{"Entrypoint": entrypoint},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(content))}},
	}
	manifest := []map[string]any{{"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}}
	whole := map[string][]byte{"layer.tar": content}
	for file, value := range map[string]any{"config.json": config, "manifest.json": manifest} {
		data, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		whole[file] = data
	}
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(path, archive(t, whole, 0o644), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func archive(t *testing.T, files map[string][]byte, mode fs.FileMode) []byte {
	t.Helper()
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for name, data := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(mode), Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}
