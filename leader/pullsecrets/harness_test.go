package pullsecrets_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fakeaws"
)

const (
	home    = "chandler"
	account = "chandler-leader"
	host    = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	prefix  = "eatr-aws-credentials"
	keysIn  = "ci-cd"
	patient = 90 * time.Second // a refused watch is tried again after up to a minute
)

var leaderUser = cluster.ServiceAccountUser(home, account)

// world is a control plane with exactly the manifests of deploy/base.
type world struct {
	*cluster.Cluster
	admin  kubernetes.Interface
	scenes int
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{Cluster: cluster.ForTest(t, cluster.Options{})}
	w.admin = kubernetes.NewForConfigOrDie(w.Admin())
	w.addNamespace(t, keysIn, nil)
	for _, file := range []string{"00-namespace", "serviceaccounts", "rbac", "policies", "pullsecrets"} {
		w.apply(t, "base/"+file+".yaml")
	}
	// The policy of the leader's token denies everybody while there is no Lease.
	_, err := w.admin.CoordinationV1().Leases(home).Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: home}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.awaitPolicy(t)
	return w
}

func (w *world) apply(t testing.TB, file string) {
	t.Helper()
	// Also called after the test, when its own context has ended.
	if err := w.ApplyFiles(context.Background(), filepath.Join("..", "..", "deploy", file)); err != nil {
		t.Fatal(err)
	}
}

// leader returns a configuration with a leader's token, as an elected replica has.
func (w *world) leader(t testing.TB) *rest.Config {
	t.Helper()
	var config *rest.Config
	eventually(t, func() (err error) {
		config, err = w.AsServiceAccount(t.Context(), home, account)
		return err
	})
	config.QPS = -1
	return config
}

// awaitPolicy waits until the API server enforces the policies, of which it learns
// one by one.
func (w *world) awaitPolicy(t testing.TB) {
	t.Helper()
	core := kubernetes.NewForConfigOrDie(w.leader(t)).CoreV1()
	stray, dryRun := metav1.ObjectMeta{Name: "stray"}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	eventually(t, func() error {
		_, err := core.Secrets(home).Create(t.Context(), &corev1.Secret{ObjectMeta: stray}, dryRun)
		if !apierrors.IsInvalid(err) {
			return fmt.Errorf("a stray Secret: got %w, want it refused", err)
		}
		_, err = core.ConfigMaps(home).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: stray}, dryRun)
		if !apierrors.IsForbidden(err) {
			return fmt.Errorf("a stray ConfigMap: got %w, want it refused", err)
		}
		return nil
	})
}

// awaitNoPolicy waits until the API server no longer enforces it.
func (w *world) awaitNoPolicy(t testing.TB, as *rest.Config) {
	t.Helper()
	secrets := kubernetes.NewForConfigOrDie(as).CoreV1().Secrets(home)
	stray := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "stray"}}
	eventually(t, func() error {
		_, err := secrets.Create(t.Context(), stray, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	})
}

func (s *scene) addNamespace(t testing.TB, name string, labels map[string]string) {
	t.Helper()
	s.world.addNamespace(t, s.real(name), labels)
}

func (w *world) addNamespace(t testing.TB, name string, labels map[string]string) {
	t.Helper()
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	if _, err := w.admin.CoreV1().Namespaces().Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// label sets a label of a namespace; an empty value removes it.
func (s *scene) label(t testing.TB, namespace, key, value string) {
	t.Helper()
	s.mergeNamespace(t, namespace, "labels", key, value)
}

func (s *scene) mergeNamespace(t testing.TB, namespace, field, key, value string) {
	t.Helper()
	quoted := "null"
	if value != "" {
		quoted = fmt.Sprintf("%q", value)
	}
	patch := fmt.Sprintf(`{"metadata":{%q:{%q:%s}}}`, field, key, quoted)
	_, err := s.admin.CoreV1().Namespaces().Patch(t.Context(), s.real(namespace), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *scene) secret(t testing.TB, namespace, name string) (*corev1.Secret, error) {
	t.Helper()
	return s.admin.CoreV1().Secrets(s.real(namespace)).Get(t.Context(), name, metav1.GetOptions{})
}

// secrets are those of a namespace, as an administrator sees them.
func (s *scene) secrets(namespace string) corev1client.SecretInterface {
	return s.admin.CoreV1().Secrets(s.real(namespace))
}

// setKeys makes or replaces the Secret with AWS keys for a registry.
func (s *scene) setKeys(t testing.TB, registry string, keys fakeaws.Keys) {
	t.Helper()
	s.setKeysIn(t, keysIn, registry, keys)
}

func (s *scene) setKeysIn(t testing.TB, namespace, registry string, keys fakeaws.Keys) {
	t.Helper()
	s.setSecret(t, namespace, prefix+"-"+registry, corev1.SecretTypeOpaque, map[string]string{
		"aws_region": "eu-west-1", "aws_access_key_id": keys.AccessKeyID, "aws_secret_access_key": keys.SecretAccessKey + "\n",
	})
}

func (s *scene) setSecret(t testing.TB, namespace, name string, kind corev1.SecretType, data map[string]string) {
	t.Helper()
	object := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Type: kind, StringData: data}
	secrets := s.secrets(namespace)
	_, err := secrets.Create(t.Context(), object, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = secrets.Update(t.Context(), object, metav1.UpdateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// scene is one subtest's AWS and the cleaning up after it. A namespace of the test
// that is named "team-..." really is one of this scene alone, since deleting one
// takes some seconds: see real.
type scene struct {
	*world
	number int
	aws    *fakeaws.Server
	keys   fakeaws.Keys // of a user who may do everything
}

// newScene starts an AWS of its own and points the SDK at it.
func (w *world) newScene(t testing.TB) *scene {
	t.Helper()
	aws, err := fakeaws.Listen(fakeaws.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := aws.Close(); err != nil {
			t.Error(err)
		}
		w.clear(t)
	})
	for name, value := range aws.Env() {
		t.Setenv(name, value)
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	w.scenes++
	return &scene{world: w, number: w.scenes, aws: aws, keys: aws.NewKeys("puller")}
}

const team = "team-"

// real returns the name that a namespace of the test has in the cluster.
func (s *scene) real(name string) string {
	own := fmt.Sprintf("%s%d-", team, s.number)
	rest, ok := strings.CutPrefix(name, team)
	if !ok || strings.HasPrefix(name, own) {
		return name
	}
	return own + rest
}

// clear removes what a subtest leaves, so that the next one starts from nothing.
func (w *world) clear(t testing.TB) {
	t.Helper()
	ctx := context.Background()
	namespaces, err := w.admin.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	for i := range namespaces.Items {
		name := namespaces.Items[i].Name
		if strings.HasPrefix(name, team) {
			if err := w.admin.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				t.Error(err)
			}
		}
	}
	err = w.admin.CoreV1().Secrets(keysIn).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
	if err != nil {
		t.Error(err)
	}
	err = w.admin.CoreV1().ConfigMaps(home).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "chandler.dev/task"})
	if err != nil {
		t.Error(err)
	}
}

// event waits for an Event in a namespace.
func (s *scene) event(t testing.TB, namespace, reason, text string) {
	t.Helper()
	eventually(t, func() error {
		found, err := s.admin.EventsV1().Events(s.real(namespace)).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range found.Items {
			if found.Items[i].Reason == reason && strings.Contains(found.Items[i].Note, text) {
				return nil
			}
		}
		return fmt.Errorf("no Event %s with %q in namespace %s", reason, text, namespace)
	})
}

// requests returns those that the leader made since the mark, by verb and
// resource, without those that are not about objects.
func (s *scene) requests(t testing.TB, since cluster.Mark) map[string]int {
	t.Helper()
	all, err := s.Requests(since)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for request, count := range all.Where(cluster.User(leaderUser)) {
		if request.Resource != "" && request.Resource != "events" {
			found[request.Verb+" "+request.Resource] += count
		}
	}
	return found
}

func (s *scene) mark(t testing.TB) cluster.Mark {
	t.Helper()
	mark, err := s.Mark()
	if err != nil {
		t.Fatal(err)
	}
	return mark
}

// await waits until a namespace has the registry's pull secret with a password
// that the check accepts, nil for any, and returns the Secret.
func (s *scene) await(t testing.TB, namespace, registry string, check func(password string) error) *corev1.Secret {
	t.Helper()
	var found *corev1.Secret
	eventually(t, func() (err error) {
		found, err = s.secret(t, namespace, registry)
		if err != nil {
			return err
		}
		password, err := passwordFor(found, registry)
		if err == nil && check != nil {
			err = check(password)
		}
		return err
	})
	return found
}

func (s *scene) awaitGone(t testing.TB, namespace, registry string) {
	t.Helper()
	eventually(t, func() error {
		_, err := s.secret(t, namespace, registry)
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("Secret %s/%s: got %w, want none", namespace, registry, err)
		}
		return nil
	})
}

// newest accepts the password that AWS gave out last.
func (s *scene) newest(password string) error {
	issued := s.aws.Issued()
	if len(issued) == 0 || issued[len(issued)-1].Password != password {
		return errors.New("the password is not the newest")
	}
	return nil
}

// ledger returns the namespaces in a registry's ledger, sorted.
func (s *scene) ledger(t testing.TB, registry string) []string {
	t.Helper()
	object, err := s.admin.CoreV1().ConfigMaps(home).Get(t.Context(), "pullsecrets-"+registry, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range object.Data {
		names = append(names, strings.Replace(name, s.real(team), team, 1))
	}
	slices.Sort(names)
	return names
}

func eventually(t testing.TB, check func() error) {
	t.Helper()
	expect.Within(t, patient, check)
}
