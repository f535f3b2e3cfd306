package chart_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authzv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// canary is a right that is given last. Who sees it sees all that was given before.
const canary = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: canary}
rules: [{apiGroups: [canary.example], resources: [clusters], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: canary}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: canary}
subjects: [{kind: Group, apiGroup: rbac.authorization.k8s.io, name: "system:serviceaccounts"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: canary, namespace: chandler}
rules: [{apiGroups: [canary.example], resources: [namespaces], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: canary, namespace: chandler}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: canary}
subjects: [{kind: Group, apiGroup: rbac.authorization.k8s.io, name: "system:serviceaccounts"}]
`

// checkRights compares what the two accounts may do, as `kubectl auth can-i --list`
// shows it, with a checked-in list.
func (w *world) checkRights(t *testing.T, variant string) {
	t.Helper()
	expect.OK(t, w.Apply(t.Context(), []byte(canary)))
	var got strings.Builder
	for _, account := range []string{"chandler-agent", "chandler-leader"} {
		fmt.Fprintf(&got, "%s\n", account)
		everywhere := w.rights(t, account, "default")
		for _, right := range everywhere {
			fmt.Fprintf(&got, "  %-20s %s\n", "*", right)
		}
		for _, namespace := range []string{"chandler", "chandler-registries", "kube-system"} {
			for _, right := range w.rights(t, account, namespace) {
				if !slices.Contains(everywhere, right) {
					fmt.Fprintf(&got, "  %-20s %s\n", namespace, right)
				}
			}
		}
	}
	file := "testdata/rights-" + variant + ".txt"
	if *update {
		expect.OK(t, os.WriteFile(file, []byte(got.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	expect.OK(t, err)
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("rights are not those of %s, run make golden if they are meant (-checked in +got):\n%s", file, diff)
	}
}

// rights lists what an account may do in a namespace beyond what every account may.
func (w *world) rights(t *testing.T, account, namespace string) []string {
	t.Helper()
	all := w.review(t, account, namespace)
	common := w.review(t, "default", namespace)
	return slices.DeleteFunc(all, func(right string) bool { return slices.Contains(common, right) })
}

// review asks the API server as the account, once the canary is there.
func (w *world) review(t *testing.T, account, namespace string) []string {
	t.Helper()
	const home = fixtures.Namespace
	config := rest.CopyConfig(w.Admin())
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + home + ":" + account,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + home, "system:authenticated"},
	}
	client := kubernetes.NewForConfigOrDie(config)
	var rights []string
	expect.Within(t, patience, func() error {
		answer, err := client.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(),
			&authzv1.SelfSubjectRulesReview{Spec: authzv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		rights = nil
		for _, rule := range answer.Status.ResourceRules {
			rights = append(rights, resourceRight(rule)...)
		}
		for _, rule := range answer.Status.NonResourceRules {
			rights = append(rights, fmt.Sprintf("%s: %s", strings.Join(rule.NonResourceURLs, " "), strings.Join(rule.Verbs, " ")))
		}
		if !slices.Contains(rights, "clusters.canary.example: get") ||
			namespace == fixtures.Namespace && !slices.Contains(rights, "namespaces.canary.example: get") {
			return errors.New("the API server does not know of all rights yet")
		}
		return nil
	})
	slices.Sort(rights)
	return slices.Compact(rights)
}

// resourceRight has a line for each resource of a rule, and for each name.
func resourceRight(rule authzv1.ResourceRule) []string {
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	var rights []string
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			for _, name := range names {
				right := resource
				if group != "" {
					right += "." + group
				}
				if name != "" {
					right += " " + name
				}
				rights = append(rights, right+": "+strings.Join(rule.Verbs, " "))
			}
		}
	}
	return rights
}
