package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/chandler-k8s/chandler/test/fakeaws"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// supply is a world with namespaces that ask for pull secrets.
type supply struct {
	*world
	scale
	aws     *fakeaws.Server
	callers map[string]string // access key ID by registry host
	secrets watch.Interface   // all pull secrets
	spent   int               // number of the tokens issued that no longer count
}

// newSupply makes registries, their key Secrets, the namespaces, and spare ones
// without a label.
func newSupply(ctx context.Context, w *world, sc scale, aws *fakeaws.Server) (*supply, error) {
	fast := w.Admin()
	fast.ContentType = "application/vnd.kubernetes.protobuf"
	var err error
	if w.admin, err = kubernetes.NewForConfig(fast); err != nil {
		return nil, err
	}
	s := &supply{world: w, scale: sc, aws: aws, callers: map[string]string{}}
	labels := map[string]string{}
	for i := range sc.registries {
		host := fmt.Sprintf("%012d.dkr.ecr.eu-west-1.amazonaws.com", 111111111111*(i+1))
		labels[host] = "true"
		if err := s.setKeys(ctx, host); err != nil {
			return nil, err
		}
	}
	if err := s.makeNamespaces(ctx, labels); err != nil {
		return nil, err
	}
	return s, s.watch(ctx)
}

// watch follows all pull secrets from now on. The API server may cut a watch that
// falls behind; this one then goes on where it was.
func (s *supply) watch(ctx context.Context) error {
	secrets := s.admin.CoreV1().Secrets("")
	now, err := secrets.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return err
	}
	s.secrets, err = watchtools.NewRetryWatcherWithContext(ctx, now.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = "type=" + string(corev1.SecretTypeDockerConfigJson)
			return secrets.Watch(ctx, options)
		},
	})
	return err
}

// setKeys makes a user of the registry's account and the Secret with its keys.
func (s *supply) setKeys(ctx context.Context, host string) error {
	keys := s.aws.NewKeys(host[:12])
	s.callers[host] = keys.AccessKeyID
	_, err := s.admin.CoreV1().Secrets(fixtures.HostNamespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "eatr-aws-credentials-" + host},
		StringData: map[string]string{
			"aws_region": "eu-west-1", "aws_access_key_id": keys.AccessKeyID, "aws_secret_access_key": keys.SecretAccessKey,
		},
	}, metav1.CreateOptions{})
	return err
}

const (
	asking = "team-"  // begins the names of labelled namespaces
	spare  = "spare-" // begins those of the others
)

func (s *supply) makeNamespaces(ctx context.Context, labels map[string]string) error {
	progress("making %s namespaces", thousands(s.namespaces))
	var making errgroup.Group
	making.SetLimit(16)
	add := func(name string, labels map[string]string) {
		making.Go(func() error {
			object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
			_, err := s.admin.CoreV1().Namespaces().Create(ctx, object, metav1.CreateOptions{})
			return err
		})
	}
	for i := range s.namespaces {
		add(fmt.Sprint(asking, i), labels)
	}
	for i := range newLabels {
		add(fmt.Sprint(spare, i), nil)
	}
	if err := making.Wait(); err != nil {
		return err
	}
	return s.awaitControllers(ctx)
}

// awaitControllers waits until the control plane has done what it does in new
// namespaces, so that we are not measured against it.
func (s *supply) awaitControllers(ctx context.Context) error {
	total := func(list metav1.ListInterface) int {
		if rest := list.GetRemainingItemCount(); rest != nil {
			return int(*rest) + 1
		}
		return 0
	}
	first := metav1.ListOptions{Limit: 1}
	for {
		accounts, err1 := s.admin.CoreV1().ServiceAccounts("").List(ctx, first)
		bundles, err2 := s.admin.CoreV1().ConfigMaps("").List(ctx, first)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if min(total(accounts), total(bundles)) > s.namespaces+newLabels {
			return pause(ctx, 2*time.Second)
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// await blocks until n different Secrets have been written with tokens that still
// count, and returns when the last of them was seen.
func (s *supply) await(ctx context.Context, n int) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	right := map[types.NamespacedName]bool{}
	for len(right) < n {
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%d of %d pull secrets: %w", len(right), n, ctx.Err())
		case event, ok := <-s.secrets.ResultChan():
			secret, isSecret := event.Object.(*corev1.Secret)
			if !ok || !isSecret {
				return time.Time{}, fmt.Errorf("%d of %d pull secrets: the watch ended: %v", len(right), n, event.Object)
			}
			good, err := s.right(secret)
			if err != nil {
				return time.Time{}, err
			}
			if good && event.Type != watch.Deleted {
				right[types.NamespacedName{Namespace: secret.Namespace, Name: secret.Name}] = true
			}
		}
	}
	return time.Now(), nil
}

// right reports whether a Secret holds a token of its registry that counts.
func (s *supply) right(secret *corev1.Secret) (bool, error) {
	var content struct {
		Auths map[string]struct{ Auth string }
	}
	if err := json.Unmarshal(secret.Data[corev1.DockerConfigJsonKey], &content); err != nil {
		return false, err
	}
	for _, issued := range s.aws.Issued()[s.spent:] {
		want := base64.StdEncoding.EncodeToString([]byte(issued.Username + ":" + issued.Password))
		if issued.Call.Caller == s.callers[secret.Name] && content.Auths[secret.Name].Auth == want {
			return true, nil
		}
	}
	return false, nil
}

// label makes a spare namespace ask for the Secret of a registry, and returns the
// time until it has it.
func (s *supply) label(ctx context.Context, i int, host string) (time.Duration, error) {
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:"true"}}}`, host)
	begin := time.Now()
	_, err := s.admin.CoreV1().Namespaces().Patch(ctx, fmt.Sprint(spare, i), types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return 0, err
	}
	seen, err := s.await(ctx, 1)
	return seen.Sub(begin), err
}
