package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// await asks until the answer is nil, a component ends, or ctx does. What is
// waited for is named in the error, with the last answer and the ends of the
// logs.
func (c *Cluster) await(ctx context.Context, what string, ask func(context.Context) error) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		answer := ask(attempt)
		cancel()
		if answer == nil {
			return nil
		}
		c.mu.Lock()
		dead := c.ended()
		c.mu.Unlock()
		if dead != nil {
			return dead
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; last answer: %w\n%s", what, context.Cause(ctx), answer, c.Logs(10))
		case <-ticker.C:
		}
	}
}

// ended names the components that have ended without having been stopped. The
// caller holds mu.
func (c *Cluster) ended() error {
	var errs []error
	for _, p := range []*process{c.etcd, c.apiServer, c.controllerManager, c.scheduler} {
		if p != nil {
			errs = append(errs, p.ended())
		}
	}
	return errors.Join(errs...)
}

// Logs returns the last lines of each component's log under its name, for the
// message of a failure.
func (c *Cluster) Logs(lines int) string {
	var b strings.Builder
	components := []command{c.etcdCommand(), c.apiServerCommand(), c.controllerManagerCommand()}
	if c.schedulerPath != "" {
		components = append(components, c.schedulerCommand())
	}
	for _, component := range components {
		fmt.Fprintf(&b, "--- %s\n%s\n", component.name, tail(component.logPath(), lines))
	}
	return b.String()
}

func (c *Cluster) livez(ctx context.Context) error { return c.get(ctx, "/livez") }

// readyz includes the bootstrap of RBAC and of the system namespaces.
func (c *Cluster) readyz(ctx context.Context) error { return c.get(ctx, "/readyz") }

func (c *Cluster) get(ctx context.Context, path string) error {
	return c.client.Discovery().RESTClient().Get().AbsPath(path).Do(ctx).Error()
}

// bootstrapped asks for what a pod needs before it can be created: that takes the
// API server and the controllers both.
func (c *Cluster) bootstrapped(ctx context.Context) error {
	_, err := c.client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return errors.New("not created yet")
	}
	return err
}
