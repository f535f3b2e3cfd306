package podlogs

import (
	"context"
	"errors"
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

// carryOut writes those resources of a plan that are due.
func (t *Task) carryOut(ctx context.Context, key string, f found, s *state, p plan, due []string) (again time.Duration, err error) {
	if p.owner == (workload{}) {
		return t.remove(ctx, key, f, due)
	}
	for _, resource := range due {
		var wait time.Duration
		if resource == roles && f.role != nil {
			wait, err = t.updateRole(ctx, f.role, t.role(f.role.Namespace, p))
		} else {
			wait, err = t.make(ctx, key, resource, s, p)
		}
		again = max(again, wait)
		if err != nil || s.traces[roles].taken {
			break
		}
	}
	return again, err
}

// make makes a resource for a workload with pods, unless there is one of its name.
func (t *Task) make(ctx context.Context, key, resource string, s *state, p plan) (time.Duration, error) {
	if err := t.guards[resource].Check(ctx); err != nil {
		return 0, err
	}
	namespace, _, _ := strings.Cut(key, "/")
	err := t.create(ctx, resource, t.role(namespace, p))
	switch now := time.Now(); {
	case apierrors.IsAlreadyExists(err):
		return t.taken(ctx, key, resource, s, p.owner, now)
	case leader.NamespaceEnding(err):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("make %s %s/%s: %w", resource, namespace, prefix+p.owner.name, err)
	default:
		s.traces[resource] = trace{owner: p.owner, until: now.Add(echo)}
	}
	t.opts.Metrics.wrote(resource, opCreate)
	if resource == roles {
		t.log.Info("role for pod logs made", "namespace", namespace, "name", prefix+p.owner.name, "pods", len(p.names))
	}
	return echo, nil
}

// create makes a Role, or what goes with it and has the same metadata.
func (t *Task) create(ctx context.Context, resource string, role *rbacv1.Role) (err error) {
	namespace, options := role.Namespace, metav1.CreateOptions{FieldManager: leader.FieldManager}
	switch resource {
	case roles:
		_, err = t.client.RbacV1().Roles(namespace).Create(ctx, role, options)
	case bindings:
		_, err = t.client.RbacV1().RoleBindings(namespace).Create(ctx, roleBinding(role.ObjectMeta), options)
	case accounts:
		_, err = t.client.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: role.ObjectMeta}, options)
	}
	return err
}

// taken decides what an object is that exists and that the watch does not show: our
// own or another leader's, which it will show in a moment, or else somebody else's.
// One that is not shown in a moment is asked for: the watch may be late.
func (t *Task) taken(ctx context.Context, key, resource string, s *state, owner workload, now time.Time) (time.Duration, error) {
	namespace, _, _ := strings.Cut(key, "/")
	after := trace{taken: true, until: now.Add(echo)}
	if s.traces[resource].taken {
		ours, err := t.isOurs(ctx, resource, namespace, prefix+owner.name)
		if err != nil {
			return 0, err
		}
		if after.theirs = !ours; ours {
			after.until = now.Add(lateRetry)
		}
	}
	if resource == roles && after.theirs {
		after.until = now.Add(foreignRetry)
		t.setStatus(key, stateForeign)
		t.report.warn("foreign "+key, reference(namespace, owner), reasonForeign,
			"Role "+prefix+owner.name+" exists and is left alone: chandler did not make it. Delete it, or hand it over with the label "+leader.TaskLabel+"="+Name)
	}
	s.traces[resource] = after
	return after.until.Sub(now), nil
}

// shrink takes from a Role the names of pods that are gone, all if it has no owner.
func (t *Task) shrink(ctx context.Context, f found) error {
	owner, owned := f.recorded()
	if f.role == nil || !owned && len(f.members) > 0 {
		return nil
	}
	if !owned {
		_, err := t.empty(ctx, f.role)
		return err
	}
	want := narrowed(f.role, t.role(f.role.Namespace, plan{owner: owner, names: f.members[owner]}))
	if sameRole(f.role, want) {
		return nil
	}
	_, err := t.updateRole(ctx, f.role, want)
	return err
}

// empty takes all rules from a Role, and leaves it to whom it belongs.
func (t *Task) empty(ctx context.Context, role *rbacv1.Role) (time.Duration, error) {
	if len(role.Rules) == 0 {
		return 0, nil
	}
	empty := role.DeepCopy()
	empty.Rules = nil
	return t.updateRole(ctx, role, empty)
}

// updateRole sets one of ours right. What widens it waits for the proof that the
// policy is in force; what narrows it does not.
func (t *Task) updateRole(ctx context.Context, old, want *rbacv1.Role) (time.Duration, error) {
	var unproved error
	if less := narrowed(old, want); !sameRole(less, want) {
		if unproved = t.guards[roles].Check(ctx); unproved != nil {
			if sameRole(old, less) {
				return 0, unproved
			}
			want = less
		}
	}
	changed := old.DeepCopy()
	changed.Rules, changed.OwnerReferences = want.Rules, want.OwnerReferences
	_, err := t.client.RbacV1().Roles(old.Namespace).Update(ctx, changed, metav1.UpdateOptions{FieldManager: leader.FieldManager})
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return retry, unproved
	case err != nil:
		return 0, errors.Join(fmt.Errorf("update role %s/%s: %w", old.Namespace, old.Name, err), unproved)
	}
	t.opts.Metrics.wrote(roles, opUpdate)
	t.log.Info("role for pod logs updated", "namespace", old.Namespace, "name", old.Name)
	return 0, unproved
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
func (t *Task) remove(ctx context.Context, key string, f found, due []string) (again time.Duration, err error) {
	for _, resource := range due {
		object := f.made()[resource]
		if resource == roles && len(f.role.Finalizers) > 0 {
			wait, emptying := t.empty(ctx, f.role)
			again, err = max(again, wait), errors.Join(err, emptying)
		}
		if object.GetDeletionTimestamp() == nil {
			err = errors.Join(err, t.deleteOne(ctx, resource, object))
		}
	}
	if err == nil {
		t.setStatus(key, "")
		t.log.Info("access to pod logs removed", "key", key)
	}
	return again, err
}

func (t *Task) deleteOne(ctx context.Context, resource string, object metav1.Object) (err error) {
	uid, namespace, name := object.GetUID(), object.GetNamespace(), object.GetName()
	options := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}
	switch resource {
	case roles:
		err = t.client.RbacV1().Roles(namespace).Delete(ctx, name, options)
	case bindings:
		err = t.client.RbacV1().RoleBindings(namespace).Delete(ctx, name, options)
	case accounts:
		err = t.client.CoreV1().ServiceAccounts(namespace).Delete(ctx, name, options)
	}
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return nil
	case err != nil:
		return fmt.Errorf("remove %s %s/%s: %w", resource, namespace, name, err)
	}
	t.opts.Metrics.wrote(resource, opDelete)
	return nil
}
