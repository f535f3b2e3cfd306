package cluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Binaries holds the paths of the components' executables.
type Binaries struct {
	Etcd, APIServer, ControllerManager string
}

// NodeBinaries holds the paths of what a cluster with real nodes runs besides.
type NodeBinaries struct {
	Scheduler, Kubelet, KubeProxy, Kubectl string
	// Containerd is a directory with containerd, its shim and ctr.
	Containerd string
}

// component is an executable and the package that it is built from, a `tool` of
// a module in binaries/.
type component struct{ name, pkg string }

// set is executables that are built together, from one module.
type set struct {
	what       string // e.g. "the control plane"
	cost       string // what to say of the first build
	module     string // directory below binaries/, empty for itself
	version    string // the module whose version the executables have
	tags       string // build tags, comma-separated
	components []component
}

// controlPlane lists the executables in the order of Binaries' fields.
func controlPlane() set {
	return set{
		what: "the control plane", version: "k8s.io/kubernetes",
		cost: "All of Kubernetes' server side is compiled, which takes about ten minutes on two cores\nand 2 GB of memory.",
		components: []component{
			{"etcd", "go.etcd.io/etcd/server/v3"},
			{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"},
			{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"},
		},
	}
}

// nodeParts lists what Kubernetes adds for nodes, in the order of NodeBinaries'.
func nodeParts() set {
	return set{
		what: "the parts of real nodes", version: "k8s.io/kubernetes",
		cost: "Where the control plane has been compiled, this takes about a minute on two cores.",
		components: []component{
			{"kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"},
			{"kubelet", "k8s.io/kubernetes/cmd/kubelet"},
			{"kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"},
			{"kubectl", "k8s.io/kubernetes/cmd/kubectl"},
		},
	}
}

func containerd() set {
	const module = "github.com/containerd/containerd/v2"
	return set{
		what: "containerd", version: module, module: "containerd",
		cost: "It takes about a minute on two cores.",
		tags: "no_btrfs,no_devmapper,no_zfs",
		components: []component{
			{"containerd", module + "/cmd/containerd"},
			{"containerd-shim-runc-v2", module + "/cmd/containerd-shim-runc-v2"},
			{"ctr", module + "/cmd/ctr"},
		},
	}
}

// Find returns the executables. If the variable KUBEBUILDER_ASSETS names a
// directory they are that directory's, and it is an error if one is missing.
// Otherwise they come from a cache outside the checkout, keyed by everything
// their content depends on, and are built from source if they are not there:
// that takes minutes, tells its progress to log (nil means discard), and happens
// once however many processes ask at the same time.
func Find(ctx context.Context, log io.Writer) (Binaries, error) {
	dir, err := find(ctx, controlPlane(), log)
	if err != nil {
		return Binaries{}, err
	}
	names := controlPlane().components
	return Binaries{
		Etcd:              filepath.Join(dir, names[0].name),
		APIServer:         filepath.Join(dir, names[1].name),
		ControllerManager: filepath.Join(dir, names[2].name),
	}, nil
}

// FindForNodes returns what real nodes need besides, in the way of Find. containerd
// is always built: no KUBEBUILDER_ASSETS has it.
func FindForNodes(ctx context.Context, log io.Writer) (NodeBinaries, error) {
	dir, err := find(ctx, nodeParts(), log)
	if err != nil {
		return NodeBinaries{}, err
	}
	runtime, err := build(ctx, containerd(), log)
	if err != nil {
		return NodeBinaries{}, err
	}
	names := nodeParts().components
	return NodeBinaries{
		Scheduler:  filepath.Join(dir, names[0].name),
		Kubelet:    filepath.Join(dir, names[1].name),
		KubeProxy:  filepath.Join(dir, names[2].name),
		Kubectl:    filepath.Join(dir, names[3].name),
		Containerd: runtime,
	}, nil
}

// find returns the directory that has the set's executables.
func find(ctx context.Context, s set, log io.Writer) (string, error) {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		return assets(dir, s)
	}
	return build(ctx, s, log)
}

// build returns the directory of the cache that has the set's executables.
func build(ctx context.Context, s set, log io.Writer) (string, error) {
	b, err := newBuilder(ctx, s, log)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", s.what, err)
	}
	if err := b.ensure(ctx); err != nil {
		return "", fmt.Errorf("build %s: %w", s.what, err)
	}
	return b.target, nil
}

func assets(dir string, s set) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("KUBEBUILDER_ASSETS: %w", err)
	}
	absent := s.missing(dir)
	if len(absent) == 0 {
		return dir, nil
	}
	var names []string
	for _, c := range absent {
		names = append(names, c.name)
	}
	return "", fmt.Errorf("KUBEBUILDER_ASSETS=%s lacks an executable %s; "+
		"put it there, or unset the variable to have all of them built from source", dir, strings.Join(names, ", "))
}

// missing returns the components that a directory holds no executable file of.
func (s set) missing(dir string) []component {
	var absent []component
	for _, c := range s.components {
		info, err := os.Stat(filepath.Join(dir, c.name))
		if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
			absent = append(absent, c)
		}
	}
	return absent
}
