package podlogs

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/leader"
)

// Resources that are written.
const (
	roles    = "roles"
	bindings = "rolebindings"
	accounts = "serviceaccounts"
)

// retry is for an object that others write at the same time; usually the news of
// their write comes first.
const retry = time.Second

// supply writes what is missing or differs.
func (t *Task) supply(ctx context.Context, key string, f found, s *state, p plan) (time.Duration, error) {
	if again, err := t.writeRole(ctx, key, f, s, p); again > 0 || err != nil {
		return again, err
	}
	if len(p.names) == 0 {
		return 0, nil
	}
	there := f.made()
	for _, resource := range t.wanted() {
		if _, ok := there[resource]; ok || s.tried[resource] || resource == roles {
			continue
		}
		if err := t.makeOnce(ctx, key, resource, s, p.owner); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// writeRole makes a Role for a workload with pods, or sets one of ours right.
func (t *Task) writeRole(ctx context.Context, key string, f found, s *state, p plan) (again time.Duration, err error) {
	namespace, _, _ := strings.Cut(key, "/")
	want := t.role(namespace, p)
	switch {
	case f.role != nil && sameRole(f.role, want):
		return 0, nil
	case f.role == nil && len(p.names) == 0:
		return 0, nil
	}
	if err := t.guards[roles].Check(ctx); err != nil {
		return 0, err
	}
	if f.role == nil {
		again, err = t.createRole(ctx, key, s, p, want)
	} else {
		again, err = t.updateRole(ctx, f.role, s, want)
	}
	if err != nil {
		return 0, fmt.Errorf("write role %s/%s: %w", namespace, want.Name, err)
	}
	return again, nil
}

func (t *Task) createRole(ctx context.Context, key string, s *state, p plan, want *rbacv1.Role) (time.Duration, error) {
	_, err := t.client.RbacV1().Roles(want.Namespace).Create(ctx, want, metav1.CreateOptions{FieldManager: leader.FieldManager})
	now := time.Now()
	switch {
	case apierrors.IsAlreadyExists(err):
		return t.taken(key, s, p.owner, now), nil
	case leader.NamespaceEnding(err):
		return 0, nil
	case err != nil:
		return 0, err
	}
	t.opts.Metrics.wrote(roles, opCreate)
	s.known[roles], s.made, s.taken = p.owner.uid, now, time.Time{}
	s.pace.wrote(now)
	t.log.Info("role for pod logs made", "namespace", want.Namespace, "name", want.Name, "pods", len(p.names))
	return 0, nil
}

// taken decides what a Role is that exists and that the watch does not show: our
// own or another leader's, which it will show in a moment, or else somebody else's.
func (t *Task) taken(key string, s *state, owner workload, now time.Time) time.Duration {
	if s.taken.IsZero() {
		s.taken = now
	}
	if wait := s.taken.Add(echo).Sub(now); wait > 0 {
		return wait
	}
	namespace, _, _ := strings.Cut(key, "/")
	s.foreign = now
	t.setStatus(key, stateForeign)
	t.report.warn("foreign "+key, reference(namespace, owner), reasonForeign,
		"Role "+prefix+owner.name+" exists and is left alone: chandler did not make it. Delete it, or hand it over with the label "+leader.TaskLabel+"="+Name)
	return foreignRetry
}

func (t *Task) updateRole(ctx context.Context, old *rbacv1.Role, s *state, want *rbacv1.Role) (time.Duration, error) {
	changed := old.DeepCopy()
	changed.Rules, changed.OwnerReferences = want.Rules, want.OwnerReferences
	_, err := t.client.RbacV1().Roles(old.Namespace).Update(ctx, changed, metav1.UpdateOptions{FieldManager: leader.FieldManager})
	now := time.Now()
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return retry, nil
	case err != nil:
		return 0, err
	}
	t.opts.Metrics.wrote(roles, opUpdate)
	s.pace.wrote(now)
	t.log.Info("role for pod logs updated", "namespace", old.Namespace, "name", old.Name)
	return 0, nil
}

// makeOnce makes a ServiceAccount or RoleBinding unless there is one of its name,
// whoever made that.
func (t *Task) makeOnce(ctx context.Context, key, resource string, s *state, owner workload) error {
	if err := t.guards[resource].Check(ctx); err != nil {
		return err
	}
	namespace, _, _ := strings.Cut(key, "/")
	meta := objectMeta(namespace, owner)
	options := metav1.CreateOptions{FieldManager: leader.FieldManager}
	var err error
	if resource == accounts {
		_, err = t.client.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, options)
	} else {
		_, err = t.client.RbacV1().RoleBindings(namespace).Create(ctx, roleBinding(meta), options)
	}
	switch {
	case err == nil:
		t.opts.Metrics.wrote(resource, opCreate)
	case leader.NamespaceEnding(err):
		return nil
	case !apierrors.IsAlreadyExists(err):
		return fmt.Errorf("make %s %s/%s: %w", resource, namespace, meta.Name, err)
	}
	s.tried[resource] = true
	return nil
}

// roleBinding binds the Role to the ServiceAccount of the same name.
func roleBinding(meta metav1.ObjectMeta) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: meta.Name, Namespace: meta.Namespace}},
	}
}

// remove deletes what we made.
func (t *Task) remove(ctx context.Context, key string, f found) error {
	for resource, object := range f.made() {
		if err := t.guards[resource].Check(ctx); err != nil {
			return err
		}
		uid, namespace := object.GetUID(), object.GetNamespace()
		options := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}
		var err error
		switch resource {
		case roles:
			err = t.client.RbacV1().Roles(namespace).Delete(ctx, object.GetName(), options)
		case bindings:
			err = t.client.RbacV1().RoleBindings(namespace).Delete(ctx, object.GetName(), options)
		case accounts:
			err = t.client.CoreV1().ServiceAccounts(namespace).Delete(ctx, object.GetName(), options)
		}
		switch {
		case err == nil:
			t.opts.Metrics.wrote(resource, opDelete)
		case !apierrors.IsNotFound(err) && !apierrors.IsConflict(err):
			return fmt.Errorf("remove %s %s/%s: %w", resource, namespace, object.GetName(), err)
		}
	}
	t.setStatus(key, "")
	t.log.Info("access to pod logs removed", "key", key)
	return nil
}
