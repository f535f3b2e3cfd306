package podlogs_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/test/expect"
)

// TestThief holds the leader's token, as deploy/base equips it, and tries what the
// task never does.
func TestThief(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane")
	}
	s := newWorld(t).newScene(t)
	pod := s.addPod(t, "secretive", "secretive", false, nil)
	client := kubernetesClient(s.leader(t))
	t.Run("what no right is for", func(t *testing.T) { thiefWithoutRight(t, s, client, pod.Name) })
	t.Run("Roles", func(t *testing.T) { thiefRoles(t, s, client) })
	t.Run("Role of the most and longest names", func(t *testing.T) { largestRole(t, s, client) })
	t.Run("RoleBindings", func(t *testing.T) { thiefBindings(t, s, client) })
	t.Run("what is known to be possible", func(t *testing.T) { thiefAllowed(t, s, client) })
	t.Run("ServiceAccounts", func(t *testing.T) { thiefAccounts(t, s, client) })
	t.Run("what others made", func(t *testing.T) { thiefForeign(t, s, client) })
	t.Run("what we made", func(t *testing.T) { thiefOurs(t, s, client) })
}

func thiefWithoutRight(t *testing.T, s *scene, client kubernetes.Interface, pod string) {
	own := home + ":" + account
	for name, try := range map[string]func() error{
		"log of a pod": func() error {
			return client.CoreV1().Pods(s.namespace).GetLogs(pod, &corev1.PodLogOptions{}).Do(t.Context()).Error()
		},
		"token of a ServiceAccount": func() error {
			_, err := client.CoreV1().ServiceAccounts(s.namespace).CreateToken(t.Context(), "default", nil, metav1.CreateOptions{})
			return err
		},
		"pod that runs as one": func() error {
			_, err := client.CoreV1().Pods(s.namespace).Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
			return err
		},
		"label of a pod": func() error {
			_, err := client.CoreV1().Pods(s.namespace).Patch(t.Context(), pod, types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})
			return err
		},
		"ClusterRole": func() error {
			_, err := client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "podlogreader-x"}}, metav1.CreateOptions{})
			return err
		},
		"ClusterRoleBinding": func() error {
			_, err := client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: "podlogreader-x"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
				Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "system:serviceaccount:" + own}},
			}, metav1.CreateOptions{})
			return err
		},
		"patch of a Role": func() error {
			_, err := client.RbacV1().Roles(home).Patch(t.Context(), account, types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})
			return err
		},
		"all Roles of a namespace": func() error {
			return client.RbacV1().Roles(s.namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{})
		},
		"update of a RoleBinding": func() error {
			_, err := client.RbacV1().RoleBindings(home).Update(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.UpdateOptions{})
			return err
		},
		"update of a ServiceAccount": func() error {
			_, err := client.CoreV1().ServiceAccounts(home).Update(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.UpdateOptions{})
			return err
		},
	} {
		if err := try(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want it forbidden", name, err)
		}
	}
}

// meta is that of a good object.
func (s *scene) meta(app string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: "podlogreader-" + app, Namespace: s.namespace, Labels: map[string]string{"chandler.dev/task": "podlogs"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: app, UID: "1-2-3"}},
	}
}

// realMeta is one of an owner that exists, so that the object stays.
func (s *scene) realMeta(t testing.TB, app string) metav1.ObjectMeta {
	t.Helper()
	meta := s.meta(app)
	meta.OwnerReferences[0].UID = s.addDeployment(t, app, 0, false).UID
	return meta
}

// badMeta has what may be wrong with the metadata of anything.
func badMeta() map[string]func(*metav1.ObjectMeta) {
	yes := true
	return map[string]func(*metav1.ObjectMeta){
		"another name":       func(m *metav1.ObjectMeta) { m.Name = "admin" },
		"a generated name":   func(m *metav1.ObjectMeta) { m.Name, m.GenerateName = "", "podlogreader-" },
		"no label":           func(m *metav1.ObjectMeta) { m.Labels = nil },
		"another label":      func(m *metav1.ObjectMeta) { m.Labels["x"] = "y" },
		"another task":       func(m *metav1.ObjectMeta) { m.Labels["chandler.dev/task"] = "pullsecrets" },
		"an annotation":      func(m *metav1.ObjectMeta) { m.Annotations = map[string]string{"eks.amazonaws.com/role-arn": "x"} },
		"a finalizer":        func(m *metav1.ObjectMeta) { m.Finalizers = []string{"example.com/stay"} },
		"no owner":           func(m *metav1.ObjectMeta) { m.OwnerReferences = nil },
		"another's owner":    func(m *metav1.ObjectMeta) { m.OwnerReferences[0].Name = "other" },
		"an owner of a kind": func(m *metav1.ObjectMeta) { m.OwnerReferences[0].Kind = "ReplicaSet" },
		"a blocking owner":   func(m *metav1.ObjectMeta) { m.OwnerReferences[0].BlockOwnerDeletion = &yes },
		"a controller":       func(m *metav1.ObjectMeta) { m.OwnerReferences[0].Controller = &yes },
		"two owners": func(m *metav1.ObjectMeta) {
			second := m.OwnerReferences[0]
			second.UID = "4-5-6"
			m.OwnerReferences = append(m.OwnerReferences, second)
		},
	}
}

func wantRefused(t *testing.T, name string, err error) {
	t.Helper()
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy") {
		t.Errorf("%s: got %v, want it refused by the policy", name, err)
	}
}

func thiefRoles(t *testing.T, s *scene, client kubernetes.Interface) {
	create := func(change func(*rbacv1.Role)) error {
		role := &rbacv1.Role{ObjectMeta: s.meta("thief"), Rules: wantRules("a", "b")}
		change(role)
		_, err := client.RbacV1().Roles(s.namespace).Create(t.Context(), role, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	for name, change := range map[string]func(*rbacv1.Role){
		"as it should be":     func(*rbacv1.Role) {},
		"without list":        func(r *rbacv1.Role) { r.Rules = r.Rules[1:] },
		"without pods":        func(r *rbacv1.Role) { r.Rules = r.Rules[:1] },
		"without rules":       func(r *rbacv1.Role) { r.Rules = nil },
		"with an empty array": func(r *rbacv1.Role) { r.Rules = []rbacv1.PolicyRule{} },
		"of a CronJob": func(r *rbacv1.Role) {
			r.OwnerReferences[0].APIVersion, r.OwnerReferences[0].Kind = "batch/v1", "CronJob"
		},
	} {
		if err := create(change); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	rule := func(change func(*rbacv1.PolicyRule)) func(*rbacv1.Role) {
		return func(r *rbacv1.Role) { change(&r.Rules[1]) }
	}
	bad := map[string]func(*rbacv1.Role){
		"every pod":          rule(func(r *rbacv1.PolicyRule) { r.ResourceNames = nil }),
		"no pod":             rule(func(r *rbacv1.PolicyRule) { r.ResourceNames = []string{} }),
		"a pod without name": rule(func(r *rbacv1.PolicyRule) { r.ResourceNames = []string{"a", ""} }),
		"a pod named *":      rule(func(r *rbacv1.PolicyRule) { r.ResourceNames = []string{"*"} }),
		"a path":             rule(func(r *rbacv1.PolicyRule) { r.ResourceNames = []string{"a", "b/log"} }),
		"two rules on logs":  func(r *rbacv1.Role) { r.Rules[0] = *r.Rules[1].DeepCopy() },
		"any resource":       rule(func(r *rbacv1.PolicyRule) { r.Resources = []string{"*"} }),
		"any subresource":    rule(func(r *rbacv1.PolicyRule) { r.Resources = []string{"pods/*"} }),
		"logs and exec":      rule(func(r *rbacv1.PolicyRule) { r.Resources = []string{"pods/log", "pods/exec"} }),
		"secrets":            rule(func(r *rbacv1.PolicyRule) { r.Resources = []string{"secrets"} }),
		"any verb":           rule(func(r *rbacv1.PolicyRule) { r.Verbs = []string{"*"} }),
		"one verb more":      rule(func(r *rbacv1.PolicyRule) { r.Verbs = append(r.Verbs, "create") }),
		"any group":          rule(func(r *rbacv1.PolicyRule) { r.APIGroups = []string{"*"} }),
		"another group":      rule(func(r *rbacv1.PolicyRule) { r.APIGroups = []string{"", "apps"} }),
		"get of pods":        func(r *rbacv1.Role) { r.Rules[0].Verbs = []string{"get"} },
		"list and watch":     func(r *rbacv1.Role) { r.Rules[0].Verbs = []string{"list", "watch"} },
		"list of named pods": func(r *rbacv1.Role) { r.Rules[0].ResourceNames = []string{"a"} },
		"three rules":        func(r *rbacv1.Role) { r.Rules = append(r.Rules, r.Rules[0]) },
		"a rule of all rules": func(r *rbacv1.Role) {
			r.Rules[1] = rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}
		},
	}
	for name, change := range badMeta() {
		bad[name] = func(r *rbacv1.Role) { change(&r.ObjectMeta) }
	}
	for name, change := range bad {
		wantRefused(t, name, create(change))
	}
	// A PUT creates, too.
	_, err := client.RbacV1().Roles(s.namespace).Update(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "admin"}}, metav1.UpdateOptions{})
	wantRefused(t, "PUT of a new Role", err)
}

// largestRole is one with as many names as the task lists, all of the greatest
// length: etcd must take it.
func largestRole(t *testing.T, s *scene, client kubernetes.Interface) {
	names := make([]string, 5000)
	for i := range names {
		names[i] = fmt.Sprintf("%s%05d", strings.Repeat("x", 248), i)
	}
	role := &rbacv1.Role{ObjectMeta: s.realMeta(t, "large"), Rules: wantRules(names...)}
	made, err := client.RbacV1().Roles(s.namespace).Create(t.Context(), role, metav1.CreateOptions{})
	expect.OK(t, err)
	made.Rules[1].ResourceNames[4999] = strings.Repeat("z", 253)
	_, err = client.RbacV1().Roles(s.namespace).Update(t.Context(), made, metav1.UpdateOptions{})
	expect.OK(t, err)
}

func thiefBindings(t *testing.T, s *scene, client kubernetes.Interface) {
	create := func(change func(*rbacv1.RoleBinding)) error {
		name := "podlogreader-thief"
		binding := &rbacv1.RoleBinding{
			ObjectMeta: s.meta("thief"), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: name, Namespace: s.namespace}},
		}
		change(binding)
		_, err := client.RbacV1().RoleBindings(s.namespace).Create(t.Context(), binding, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	if err := create(func(*rbacv1.RoleBinding) {}); err != nil {
		t.Errorf("as it should be: %v", err)
	}
	bad := map[string]func(*rbacv1.RoleBinding){
		"another Role":      func(b *rbacv1.RoleBinding) { b.RoleRef.Name = "podlogreader-other" },
		"another account":   func(b *rbacv1.RoleBinding) { b.Subjects[0].Name = "default" },
		"another namespace": func(b *rbacv1.RoleBinding) { b.Subjects[0].Namespace = home },
		"a user": func(b *rbacv1.RoleBinding) {
			b.Subjects[0] = rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: b.Name}
		},
		"a group": func(b *rbacv1.RoleBinding) {
			b.Subjects[0] = rbacv1.Subject{Kind: "Group", APIGroup: rbacv1.GroupName, Name: "system:authenticated"}
		},
		"nobody": func(b *rbacv1.RoleBinding) { b.Subjects = nil },
		"one more subject": func(b *rbacv1.RoleBinding) {
			b.Subjects = append(b.Subjects, rbacv1.Subject{Kind: "ServiceAccount", Name: account, Namespace: home})
		},
	}
	for name, change := range badMeta() {
		bad[name] = func(b *rbacv1.RoleBinding) { change(&b.ObjectMeta) }
	}
	for name, change := range bad {
		wantRefused(t, name, create(change))
	}
	// What binds a ClusterRole is refused by RBAC, before any policy.
	if err := create(func(b *rbacv1.RoleBinding) { b.RoleRef.Kind, b.RoleRef.Name = "ClusterRole", "cluster-admin" }); !apierrors.IsForbidden(err) {
		t.Errorf("a ClusterRole: got %v, want it forbidden", err)
	}
}

// thiefAllowed is what the limits in docs/podlogs.md admit: a policy cannot look at the
// Role that is bound. Should it be refused one day, the docs can promise more.
func thiefAllowed(t *testing.T, s *scene, client kubernetes.Interface) {
	name := "podlogreader-wide"
	_, err := s.admin.RbacV1().Roles(s.namespace).Create(t.Context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"list"}}},
	}, metav1.CreateOptions{})
	expect.OK(t, err)
	meta := s.realMeta(t, "wide")
	_, err = client.CoreV1().ServiceAccounts(s.namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{})
	expect.OK(t, err)
	_, err = client.RbacV1().RoleBindings(s.namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: name, Namespace: s.namespace}},
	}, metav1.CreateOptions{})
	expect.OK(t, err)
	bound := s.reader(t, "wide")
	eventually(t, func() error { return bound.try(t, "list", "secrets", "") })
	// The thief himself gains nothing by it.
	_, err = client.CoreV1().ServiceAccounts(s.namespace).CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("token of the bound ServiceAccount: got %v, want it forbidden", err)
	}
	if _, err := client.CoreV1().Secrets(s.namespace).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("list of Secrets: got %v, want it forbidden", err)
	}
}

func thiefAccounts(t *testing.T, s *scene, client kubernetes.Interface) {
	create := func(change func(*corev1.ServiceAccount)) error {
		account := &corev1.ServiceAccount{ObjectMeta: s.meta("thief")}
		change(account)
		_, err := client.CoreV1().ServiceAccounts(s.namespace).Create(t.Context(), account, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	if err := create(func(*corev1.ServiceAccount) {}); err != nil {
		t.Errorf("as it should be: %v", err)
	}
	no := false
	bad := map[string]func(*corev1.ServiceAccount){
		"secrets":           func(a *corev1.ServiceAccount) { a.Secrets = []corev1.ObjectReference{{Name: "x"}} },
		"image pull secret": func(a *corev1.ServiceAccount) { a.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "x"}} },
		"automount":         func(a *corev1.ServiceAccount) { a.AutomountServiceAccountToken = &no },
	}
	for name, change := range badMeta() {
		bad[name] = func(a *corev1.ServiceAccount) { change(&a.ObjectMeta) }
	}
	for name, change := range bad {
		wantRefused(t, name, create(change))
	}
}

// thiefForeign tries what others made, under names of ours and not.
func thiefForeign(t *testing.T, s *scene, client kubernetes.Interface) {
	s.addForeign(t, "theirs")
	before := s.versions(t, "theirs")
	attempts := map[string]error{}
	role, err := s.role(t, "theirs")
	expect.OK(t, err)
	role.Labels, role.OwnerReferences = s.meta("theirs").Labels, s.meta("theirs").OwnerReferences
	role.ResourceVersion, role.UID = "", ""
	_, attempts["update of a Role"] = client.RbacV1().Roles(s.namespace).Update(t.Context(), role, metav1.UpdateOptions{})
	attempts["deletion of a Role"] = client.RbacV1().Roles(s.namespace).Delete(t.Context(), role.Name, metav1.DeleteOptions{})
	attempts["deletion of a RoleBinding"] = client.RbacV1().RoleBindings(s.namespace).Delete(t.Context(), role.Name, metav1.DeleteOptions{})
	attempts["deletion of a ServiceAccount"] = client.CoreV1().ServiceAccounts(s.namespace).Delete(t.Context(), role.Name, metav1.DeleteOptions{})
	attempts["deletion of its own Role"] = client.RbacV1().Roles(home).Delete(t.Context(), account, metav1.DeleteOptions{})
	attempts["deletion of its own RoleBinding"] = client.RbacV1().RoleBindings(home).Delete(t.Context(), account, metav1.DeleteOptions{})
	attempts["deletion of the agents' account"] = client.CoreV1().ServiceAccounts(home).Delete(t.Context(), "chandler-agent", metav1.DeleteOptions{})
	for name, err := range attempts {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want it forbidden", name, err)
		}
	}
	if after := s.versions(t, "theirs"); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("foreign objects changed: %v, then %v", before, after)
	}
}

// thiefOurs may change nothing of a Role of ours but its rules and owner.
func thiefOurs(t *testing.T, s *scene, client kubernetes.Interface) {
	roles := client.RbacV1().Roles(s.namespace)
	made, err := roles.Create(t.Context(), &rbacv1.Role{ObjectMeta: s.realMeta(t, "ours"), Rules: wantRules("a")}, metav1.CreateOptions{})
	expect.OK(t, err)
	for name, change := range badMeta() {
		if strings.HasSuffix(name, " name") {
			continue // is no update
		}
		role := made.DeepCopy()
		change(&role.ObjectMeta)
		_, err := roles.Update(t.Context(), role, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		wantRefused(t, name, err)
	}
	empty := made.DeepCopy()
	empty.Rules, empty.OwnerReferences = nil, nil
	_, err = roles.Update(t.Context(), empty, metav1.UpdateOptions{})
	wantRefused(t, "no rules and no owner", err)
	wide := made.DeepCopy()
	wide.Rules[1].ResourceNames = nil
	_, err = roles.Update(t.Context(), wide, metav1.UpdateOptions{})
	wantRefused(t, "every pod", err)
	// Others' metadata is no obstacle, as long as it stays.
	patch(t, made.Name, `{"metadata":{"labels":{"team":"a"},"annotations":{"note":"b"}}}`, s.admin.RbacV1().Roles(s.namespace).Patch)
	now, err := s.role(t, "ours")
	expect.OK(t, err)
	want := maps.Clone(now.Labels)
	now.Rules = wantRules("a", "b")
	now, err = roles.Update(t.Context(), now, metav1.UpdateOptions{})
	expect.OK(t, err)
	if !maps.Equal(now.Labels, want) {
		t.Errorf("got labels %v, want %v", now.Labels, want)
	}
	expect.OK(t, roles.Delete(t.Context(), made.Name, metav1.DeleteOptions{}))
}
