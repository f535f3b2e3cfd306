package nodes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/chandler-k8s/chandler/test/cluster"
)

// patience is for a machine that has other things to do.
const patience = 3 * time.Minute

// boot starts those nodes that do not run, side by side, and waits for all to be
// Ready.
func (s *set) boot(ctx context.Context, nodes []*node, log io.Writer) error {
	programs, err := findPrograms(ctx, log)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if n.alive() {
			if err := ip(ctx, "link", "set", n.link(), "up"); err != nil { // it may have been cut off
				return err
			}
			continue
		}
		if err := n.begin(ctx, programs); err != nil {
			return errors.Join(fmt.Errorf("boot %s: %w", n.Name, err), n.kill(context.WithoutCancel(ctx)))
		}
	}
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		err := retry(ctx, patience, func() error { return n.ready(ctx, client) })
		if err != nil {
			return fmt.Errorf("wait for %s: %w\n%s", n.Name, err, n.logs(15))
		}
	}
	return nil
}

// begin starts the node's processes, of which containerd is up when it returns.
func (n *node) begin(ctx context.Context, p paths) error {
	// A node that was not stopped but ended may have left its link.
	if err := n.unplug(ctx); err != nil {
		return err
	}
	if err := n.startInit(p.pause); err != nil {
		return err
	}
	if err := n.enterCgroups(); err != nil {
		return err
	}
	if err := n.plug(ctx); err != nil {
		return err
	}
	args := append(n.nsenter("--uts", "--net"), "sh", p.script, n.root(), n.Name, p.kubernetes, p.containerd, p.debian)
	if err := run(exec.CommandContext(ctx, "nsenter", args...)); err != nil {
		return fmt.Errorf("mount its file system: %w", err)
	}
	if err := n.service(ctx, "containerd", "/opt/node/containerd/containerd --config /etc/containerd/config.toml"); err != nil {
		return err
	}
	if err := n.importPause(ctx, p.pauseImage); err != nil {
		return err
	}
	kubelet := "/opt/node/kubernetes/kubelet --config /etc/kubernetes/kubelet.yaml --kubeconfig /etc/kubernetes/kubelet.kubeconfig" +
		" --hostname-override " + n.Name + " --node-ip " + n.address()
	if err := n.service(ctx, "kubelet", kubelet); err != nil {
		return err
	}
	return n.service(ctx, "kube-proxy", "/opt/node/kubernetes/kube-proxy --config /etc/kubernetes/kube-proxy.yaml")
}

// startInit starts the process that holds the node's namespaces, and lets it go on
// once it is recorded: until then it ends with us.
func (n *node) startInit(path string) error {
	log, err := n.log("init")
	if err != nil {
		return err
	}
	defer log.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(read.Close(), write.Close()) }() // it has what it is to have
	command := exec.Command(path, "node")                           //nolint:noctx // it outlives us
	command.Dir = "/"
	command.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	command.Stdin, command.Stdout, command.Stderr = read, log, log
	command.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start its first process: %w", err)
	}
	// Where it ends before we do, it is not to stay as a zombie.
	go func() { _ = command.Wait() }()
	id, err := cluster.Identify(command.Process.Pid)
	if err != nil {
		return err
	}
	id.Name = n.Name
	n.Init = id
	if err := n.set.write(); err != nil {
		return err
	}
	_, err = write.Write([]byte{1})
	return err
}

// nsenter returns arguments that lead into the node's mounts and processes, and what
// else is named.
func (n *node) nsenter(more ...string) []string {
	args := []string{"--target", strconv.Itoa(n.Init.PID), "--mount", "--pid"}
	return append(append(args, more...), "--")
}

// inside prepares a command of the node, in all of its namespaces.
func (n *node) inside(ctx context.Context, argv ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, "nsenter", append(n.nsenter("--uts", "--net", "--ipc"), argv...)...)
	command.Dir = "/"
	command.Env = []string{
		"HOME=/root",
		"PATH=/opt/node/containerd:/opt/node/debian/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LD_LIBRARY_PATH=/opt/node/debian/usr/lib/" + multiarch(),
	}
	return command
}

// multiarch is Debian's name of this machine's architecture.
func multiarch() string {
	return map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH] + "-linux-gnu"
}

// service runs a command line in the node's cgroups until the node stops, again
// whenever it ends.
func (n *node) service(ctx context.Context, name, line string) error {
	log, err := n.log(name)
	if err != nil {
		return err
	}
	defer log.Close()
	// To a cgroup, 0 means who writes it.
	script := "for dir in /sys/fs/cgroup/*/" + n.cgroup() + "; do echo 0 >$dir/cgroup.procs || exit 1; done; " +
		"while :; do " + line + "; echo \"ended: $?\"; sleep 1; done"
	command := n.inside(ctx, "setsid", "--fork", "sh", "-c", script)
	command.Stdout, command.Stderr = log, log
	if err := command.Run(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	return nil
}

func (n *node) log(name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(n.dir(), name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// logs returns the last lines of each log.
func (n *node) logs(lines int) string {
	var b strings.Builder
	for _, name := range []string{"init", "containerd", "kubelet", "kube-proxy"} {
		data, err := os.ReadFile(filepath.Join(n.dir(), name+".log"))
		if err != nil {
			continue // it was not reached
		}
		all := strings.Split(strings.TrimSpace(string(data)), "\n")
		fmt.Fprintf(&b, "--- %s %s\n%s\n", n.Name, name, strings.Join(all[max(0, len(all)-lines):], "\n"))
	}
	return b.String()
}

// kill ends the node's first process and with it every other.
func (n *node) kill(ctx context.Context) error {
	if n.Init.PID == 0 {
		return nil
	}
	// The kernel ends it after all others, of which there may be many.
	if err := retry(ctx, time.Minute, n.Init.End); err != nil {
		return err
	}
	// It would go by itself, some time after its namespace.
	if err := n.unplug(ctx); err != nil {
		return err
	}
	n.Init = cluster.Identity{}
	return n.set.write()
}

// client is an administrator.
func (s *set) client(ctx context.Context) (kubernetes.Interface, error) {
	dir, _, err := cluster.Standing(ctx)
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "kubeconfig"))
	if err != nil {
		return nil, err
	}
	config.Timeout = 20 * time.Second
	return kubernetes.NewForConfig(config)
}

// ready asks whether kubelet of this very boot says that it is.
func (n *node) ready(ctx context.Context, client kubernetes.Interface) error {
	// A directory of the node's own namespace, which is seen through its process.
	boot, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/run/boot_id", n.Init.PID))
	if err != nil {
		return err
	}
	object, err := client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if object.Status.NodeInfo.BootID != strings.TrimSpace(string(boot)) {
		return errors.New("kubelet has not reported since it was started")
	}
	for _, condition := range object.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			if condition.Status == corev1.ConditionTrue {
				return nil
			}
			return fmt.Errorf("not Ready: %s", condition.Message)
		}
	}
	return errors.New("no condition Ready")
}
