package leader_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/test/expect"
)

// tokenRequest asks for what an honest agent on the node asks for.
func tokenRequest(node string) *authenticationv1.TokenRequest {
	seconds := int64(600)
	return &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Node", APIVersion: "v1", Name: node},
	}}
}

func (w *world) leaderToken(t *testing.T, client kubernetes.Interface, request *authenticationv1.TokenRequest) (string, error) {
	t.Helper()
	answer, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), leading, request, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return answer.Status.Token, nil
}

// settled waits until the API server's policy knows who holds the Lease.
func (w *world) settled(t *testing.T, holder string, client kubernetes.Interface) {
	t.Helper()
	expect.Within(t, 5*time.Second, func() error {
		_, err := w.leaderToken(t, client, tokenRequest(nodeName(holder)))
		return err
	})
}

func (w *world) testLeaderToken(t *testing.T) {
	a, b := w.client(t, "a"), w.client(t, "b")
	unboundConfig, err := w.AsServiceAccount(t.Context(), namespace, agent)
	if err != nil {
		t.Fatal(err)
	}
	unbound := kubernetes.NewForConfigOrDie(unboundConfig)

	t.Run("no Lease, no leader's token", func(t *testing.T) {
		w.vacate(t)
		for name, client := range map[string]kubernetes.Interface{"a": a, "unbound": unbound} {
			if _, err := w.leaderToken(t, client, tokenRequest(nodeName("a"))); !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
				t.Errorf("%s: got %v, want it refused", name, err)
			}
		}
	})
	t.Run("no Lease, every other token", func(t *testing.T) { w.testOtherTokens(t) })

	w.vacate(t)
	if err := create(t.Context(), a, leaseOf(podName("a"))); err != nil {
		t.Fatal(err)
	}
	w.settled(t, "a", a)
	t.Run("the holder's token", func(t *testing.T) { w.testHoldersToken(t, a) })
	t.Run("others", func(t *testing.T) {
		for name, client := range map[string]kubernetes.Interface{"b": b, "unbound": unbound} {
			for _, request := range []*authenticationv1.TokenRequest{tokenRequest(nodeName("a")), tokenRequest(nodeName("b")), {}} {
				if _, err := w.leaderToken(t, client, request); !apierrors.IsForbidden(err) {
					t.Errorf("%s: got %v, want it forbidden", name, err)
				}
			}
		}
	})
	t.Run("what the holder may not ask", func(t *testing.T) { w.testTokenShapes(t, a) })
	t.Run("after a change of the Lease", func(t *testing.T) { w.testChange(t, a, b) })
	t.Run("a holder whose token names no node", func(t *testing.T) { w.testNodeless(t) })
}

// testNodeless: API servers that put no node into a pod's token exist.
func (w *world) testNodeless(t *testing.T) {
	w.addPod(t, "floating", "")
	holder := w.client(t, "floating")
	w.vacate(t)
	if err := create(t.Context(), holder, leaseOf(podName("floating"))); err != nil {
		t.Fatal(err)
	}
	seconds := int64(600)
	unbound := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	expect.Within(t, 5*time.Second, func() error {
		_, err := w.leaderToken(t, holder, unbound)
		return err
	})
	if _, err := w.leaderToken(t, holder, tokenRequest(nodeName("a"))); !apierrors.IsForbidden(err) {
		t.Errorf("bound to another's node: got %v, want it forbidden", err)
	}
}

// testOtherTokens: a policy whose parameter is missing must not stop kubelets and
// administrators from getting tokens, not even of the agents.
func (w *world) testOtherTokens(t *testing.T) {
	for _, account := range []types.NamespacedName{
		{Namespace: "default", Name: "default"},
		{Namespace: namespace, Name: agent},
		{Namespace: namespace, Name: "default"},
	} {
		_, err := w.admin.CoreV1().ServiceAccounts(account.Namespace).
			CreateToken(t.Context(), account.Name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			t.Errorf("%s: got %v, want a token", account, err)
		}
	}
}

func (w *world) testHoldersToken(t *testing.T, holder kubernetes.Interface) {
	token, err := w.leaderToken(t, holder, tokenRequest(nodeName("a")))
	if err != nil {
		t.Fatal(err)
	}
	review, err := w.bearer(token).AuthenticationV1().SelfSubjectReviews().
		Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := review.Status.UserInfo.Username, "system:serviceaccount:chandler:chandler-leader"; got != want {
		t.Errorf("got user %s, want %s", got, want)
	}
	if got := fmt.Sprint(review.Status.UserInfo.Extra["authentication.kubernetes.io/node-name"]); got != "[node-a]" {
		t.Errorf("got node %s, want the one of the pod that asked", got)
	}
	if got := review.Status.UserInfo.Extra["authentication.kubernetes.io/pod-name"]; got != nil {
		t.Errorf("got pod %s, want none: it would pass for an agent", got)
	}
	if _, err := w.bearer(token).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("list namespaces as leader: got %v, want it to pass", err)
	}
	// Without a pod's name, and without the rights, it touches neither Lease nor tokens.
	if err := update(t.Context(), w.bearer(token), leaseOf(podName("a"))); !apierrors.IsForbidden(err) {
		t.Errorf("write the Lease as leader: got %v, want it forbidden", err)
	}
	if _, err := w.leaderToken(t, w.bearer(token), tokenRequest(nodeName("a"))); !apierrors.IsForbidden(err) {
		t.Errorf("renew the token by itself: got %v, want it forbidden", err)
	}
}

func (w *world) testTokenShapes(t *testing.T, holder kubernetes.Interface) {
	long, absent := int64(601), (*int64)(nil)
	for _, test := range []struct {
		name   string
		change func(*authenticationv1.TokenRequestSpec)
	}{
		{"a longer life", func(s *authenticationv1.TokenRequestSpec) { s.ExpirationSeconds = &long }},
		{"the default life of an hour", func(s *authenticationv1.TokenRequestSpec) { s.ExpirationSeconds = absent }},
		{"bound to nothing", func(s *authenticationv1.TokenRequestSpec) { s.BoundObjectRef = nil }},
		{"bound to another node", func(s *authenticationv1.TokenRequestSpec) { s.BoundObjectRef.Name = nodeName("b") }},
		{"bound to a pod", func(s *authenticationv1.TokenRequestSpec) {
			s.BoundObjectRef.Kind, s.BoundObjectRef.Name = "Pod", podName("a")
		}},
		{"bound to a Secret of the node's name", func(s *authenticationv1.TokenRequestSpec) { s.BoundObjectRef.Kind = "Secret" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			request := tokenRequest(nodeName("a"))
			test.change(&request.Spec)
			if _, err := w.leaderToken(t, holder, request); !apierrors.IsForbidden(err) {
				t.Errorf("got %v, want it forbidden", err)
			}
		})
	}
	t.Run("of another account", func(t *testing.T) {
		_, err := holder.CoreV1().ServiceAccounts(namespace).
			CreateToken(t.Context(), agent, tokenRequest(nodeName("a")), metav1.CreateOptions{})
		if !apierrors.IsForbidden(err) {
			t.Errorf("got %v, want it forbidden", err)
		}
	})
	t.Run("by a dry run", func(t *testing.T) {
		// The API server issues a real token for a dry run, so it must be judged.
		_, err := w.client(t, "b").CoreV1().ServiceAccounts(namespace).
			CreateToken(t.Context(), leading, tokenRequest(nodeName("b")), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if !apierrors.IsForbidden(err) {
			t.Errorf("got %v, want it forbidden", err)
		}
	})
}

func (w *world) testChange(t *testing.T, a, b kubernetes.Interface) {
	if err := w.try(t, move{change: named("")}, a); err != nil {
		t.Fatal(err)
	}
	if err := w.try(t, move{change: named(podName("b"))}, b); err != nil {
		t.Fatal(err)
	}
	w.settled(t, "b", b)
	if _, err := w.leaderToken(t, a, tokenRequest(nodeName("a"))); !apierrors.IsForbidden(err) {
		t.Errorf("the old holder: got %v, want it forbidden", err)
	}
	if err := w.try(t, move{change: named("")}, b); err != nil {
		t.Fatal(err)
	}
	expect.Within(t, 5*time.Second, func() error {
		_, err := w.leaderToken(t, b, tokenRequest(nodeName("b")))
		switch {
		case err == nil:
			return errors.New("after the release: got a token")
		case !apierrors.IsForbidden(err):
			return err
		}
		return nil
	})
}

// testAgentsToken tries what a thief of one node's token would try.
func (w *world) testAgentsToken(t *testing.T) {
	ctx := t.Context()
	if err := create(ctx, w.client(t, "a"), leaseOf(podName("a"))); err != nil {
		t.Fatal(err)
	}
	for name, client := range map[string]kubernetes.Interface{"the holder's": w.client(t, "a"), "another's": w.client(t, "b")} {
		t.Run(name, func(t *testing.T) {
			for what, err := range w.theft(t, client) {
				if !apierrors.IsForbidden(err) {
					t.Errorf("%s: got %v, want it forbidden", what, err)
				}
			}
		})
	}
	t.Run("what it may", func(t *testing.T) {
		client := w.client(t, "b")
		if _, err := client.CoreV1().Nodes().Get(ctx, nodeName("b"), metav1.GetOptions{}); err != nil {
			t.Errorf("read its node: got %v", err)
		}
		if _, err := client.CoreV1().Namespaces().Get(ctx, "kube-system", metav1.GetOptions{}); err != nil {
			t.Errorf("read kube-system: got %v", err)
		}
		if _, err := client.CoordinationV1().Leases(namespace).Get(ctx, lease, metav1.GetOptions{ResourceVersion: "0"}); err != nil {
			t.Errorf("look at the Lease: got %v", err)
		}
	})
}

// theft returns the outcome of each attempt.
func (w *world) theft(t *testing.T, client kubernetes.Interface) map[string]error {
	t.Helper()
	ctx := t.Context()
	core, rbac := client.CoreV1(), client.RbacV1()
	outcome := map[string]error{}
	for _, ns := range []string{namespace, "default", "kube-system"} {
		try := func(what string, err error) { outcome[what+" in "+ns] = err }
		_, err := core.Secrets(ns).List(ctx, metav1.ListOptions{})
		try("list Secrets", err)
		_, err = core.Secrets(ns).Get(ctx, "any", metav1.GetOptions{})
		try("read a Secret", err)
		_, err = core.Secrets(ns).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
		try("create a Secret", err)
		_, err = core.Secrets(ns).Patch(ctx, "x", types.ApplyPatchType, []byte(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}`),
			metav1.PatchOptions{FieldManager: manager})
		try("apply a Secret", err)
		try("delete a Secret", core.Secrets(ns).Delete(ctx, "x", metav1.DeleteOptions{}))
		_, err = rbac.Roles(ns).List(ctx, metav1.ListOptions{})
		try("list Roles", err)
		_, err = rbac.Roles(ns).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
		try("create a Role", err)
		_, err = rbac.RoleBindings(ns).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "x"},
			RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "cluster-admin"}}, metav1.CreateOptions{})
		try("create a RoleBinding", err)
		_, err = core.ConfigMaps(ns).List(ctx, metav1.ListOptions{})
		try("list ConfigMaps", err)
		_, err = core.Pods(ns).List(ctx, metav1.ListOptions{})
		try("list pods", err)
		_, err = core.ServiceAccounts(ns).CreateToken(ctx, "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		try("get a token of another account", err)
	}
	certificates := client.CertificatesV1().CertificateSigningRequests()
	request := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
	_, outcome["approve a CSR"] = certificates.UpdateApproval(ctx, "x", request, metav1.UpdateOptions{})
	_, outcome["sign a CSR"] = certificates.UpdateStatus(ctx, request, metav1.UpdateOptions{})
	_, outcome["list namespaces"] = core.Namespaces().List(ctx, metav1.ListOptions{})
	_, outcome["list nodes"] = core.Nodes().List(ctx, metav1.ListOptions{})
	_, outcome["list Leases"] = client.CoordinationV1().Leases(namespace).List(ctx, metav1.ListOptions{})
	_, outcome["write a node's Lease"] = client.CoordinationV1().Leases("kube-node-lease").Update(ctx,
		&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: nodeName("a")}}, metav1.UpdateOptions{})
	_, outcome["relax the policy"] = client.AdmissionregistrationV1().ValidatingAdmissionPolicies().
		Get(ctx, "chandler-lease", metav1.GetOptions{})
	return outcome
}

// testTypeCheck: the API server finds no fault with any expression.
func (w *world) testTypeCheck(t *testing.T) {
	for _, name := range []string{"chandler-lease", "chandler-leader-token", "chandler-leader-node"} {
		expect.Within(t, 30*time.Second, func() error {
			policy, err := w.admin.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if policy.Status.TypeChecking == nil {
				return fmt.Errorf("%s: not yet checked", name)
			}
			var warnings []string
			for _, warning := range policy.Status.TypeChecking.ExpressionWarnings {
				warnings = append(warnings, warning.FieldRef+": "+warning.Warning)
			}
			if len(warnings) > 0 {
				t.Errorf("%s: got warnings %s", name, strings.Join(warnings, "\n"))
			}
			return nil
		})
	}
}
