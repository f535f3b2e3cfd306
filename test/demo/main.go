// Command demo is `make run`: a real control plane, three nodes as their platforms
// shape them, and an agent of ours for each, under the rights that deploy/ ships.
// Nothing outlives it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/fakeaws"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

func main() {
	binary := flag.String("binary", "bin/chandler", "the program to run")
	runFor := flag.Duration("for", 0, "end after this long (0: at Ctrl-C)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binary, *runFor, os.Stdout); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary string, runFor time.Duration, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "chandler-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	say(out, "starting etcd, kube-apiserver and kube-controller-manager")
	c, err := cluster.Start(ctx, cluster.Options{Log: out})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	aws, err := fakeaws.Listen(fakeaws.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, aws.Close()) }()
	say(out, "control plane ready; in another terminal: export KUBECONFIG=%s", c.Kubeconfig())
	say(out, "applying deploy/")
	if err := fixtures.Deploy(ctx, c); err != nil {
		return err
	}
	d := &demo{cluster: c, aws: aws, binary: binary, dir: dir, out: newLines(out)}
	ctx, cancel := context.WithCancel(ctx)
	defer func() { cancel(); d.stop() }()
	if err := d.start(ctx); err != nil {
		return err
	}
	if runFor > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, runFor)
		defer cancel()
	}
	if err := d.follow(ctx); ctx.Err() == nil {
		return err
	}
	return nil // whatever failed did so because the time was up
}

// demo is everything that runs.
type demo struct {
	cluster *cluster.Cluster
	aws     *fakeaws.Server
	binary  string
	dir     string
	out     *lines
	env     map[string]string // further variables of every agent
	nodes   []*node
	playing sync.WaitGroup
}

// start brings up one node after the other. OpenShift's objects come last: they
// speak for the whole cluster, so they would outrank what the other two go by.
func (d *demo) start(ctx context.Context) error {
	secret := &mountedSecret{cluster: d.cluster, volumes: filepath.Join(d.dir, "volumes")}
	if err := secret.rotate(ctx); err != nil {
		return err
	}
	d.playing.Go(func() { secret.play(ctx, d.out) })
	if err := d.prepareStatus(ctx); err != nil {
		return err
	}
	for _, n := range []struct {
		name, manifest string
		instance       fakeaws.Instance
		before         func(context.Context, *cluster.Cluster) error
	}{
		{fixtures.KubeadmNode, "kubeadm", fakeaws.Instance{Region: "us-west-2", Zone: "us-west-2-lax-1a", ID: "i-0123456789abcdef0", Type: "c7g.large"}, nil},
		{fixtures.EKSNode, "eks", fakeaws.Instance{Region: "eu-west-1", Zone: "eu-west-1b", ID: "i-0a1b2c3d4e5f60718", Type: "m7i.large"}, nil},
		{fixtures.OpenShiftNode, "openshift", fakeaws.Instance{Region: "us-east-2", Zone: "us-east-2a", ID: "i-0f9e8d7c6b5a43210", Type: "m6i.xlarge"}, fixtures.OpenShift},
	} {
		if n.before != nil {
			if err := n.before(ctx, d.cluster); err != nil {
				return err
			}
		}
		if err := fixtures.Apply(ctx, d.cluster, n.manifest); err != nil {
			return err
		}
		say(d.out, "a node of %s: %s", n.manifest, n.name)
		metadata, err := d.aws.AddInstance(n.instance)
		if err != nil {
			return err
		}
		node, err := startNode(ctx, d, n.name, secret.dir(), metadata.Env())
		if err != nil {
			return err
		}
		d.nodes = append(d.nodes, node)
		if err := node.await(ctx); err != nil {
			return err
		}
		node.show(d.out)
	}
	return nil
}

// follow rotates the Secret once, shows what became of it, and then lets the logs
// run until ctx ends.
func (d *demo) follow(ctx context.Context) error {
	const quiet = 3 * time.Second
	select {
	case <-ctx.Done():
	case <-time.After(quiet):
		say(d.out, "rotating the Secret chandler/aws-default; the agents should follow by themselves")
		secret := &mountedSecret{cluster: d.cluster}
		if err := secret.rotate(ctx); err != nil {
			return err
		}
		for _, n := range d.nodes {
			if err := n.awaitChange(ctx); err != nil {
				return err
			}
			n.showFile(d.out, "aws/credentials.ini")
		}
		for _, show := range []func(context.Context) error{d.scrape, d.status, d.lead, d.podLogs} {
			if err := show(ctx); err != nil {
				return err
			}
		}
		say(d.out, "following the logs; Ctrl-C ends everything")
	}
	<-ctx.Done()
	return nil
}

func (d *demo) stop() {
	say(d.out, "stopping")
	for _, n := range d.nodes {
		n.stop()
	}
	d.playing.Wait()
}

func say(out io.Writer, format string, args ...any) {
	fmt.Fprintf(out, "\n== "+format+"\n", args...) //nolint:errcheck // a closed terminal ends us by signal
}
