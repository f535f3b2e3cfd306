package csrapproval_test

import (
	"fmt"
	"testing"

	certsv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
)

// testTypeCheck: the API server finds no fault with any expression.
func testTypeCheck(t *testing.T, w *world) {
	for _, name := range []string{"chandler-scraper-requests", "chandler-scraper-approvals"} {
		eventually(t, func() error {
			policy, err := w.admin.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if policy.Status.TypeChecking == nil {
				return fmt.Errorf("%s: not yet checked", name)
			}
			for _, warning := range policy.Status.TypeChecking.ExpressionWarnings {
				t.Errorf("%s: %s: %s", name, warning.FieldRef, warning.Warning)
			}
			return nil
		})
	}
}

// testAgents holds an agent's token and tries what the agent never does.
func testAgents(t *testing.T, w *world) {
	agent := w.agent(t, node)
	for _, forgery := range fixtures.Forgeries() {
		if forgery.Admitted {
			continue
		}
		t.Run(forgery.Name, func(t *testing.T) {
			request, _, err := fixtures.ScraperRequest(node, forgery.Change)
			expect.OK(t, err)
			wantRefused(t, tryCreate(t, agent, request))
		})
	}
	for name, change := range map[string]func(*metav1.ObjectMeta){
		"label of another's": func(m *metav1.ObjectMeta) { m.Labels["metrics.openshift.io/csr.subject"] = "prometheus" },
		"another node":       func(m *metav1.ObjectMeta) { m.Labels["chandler.dev/node"] = "node-b" },
		"annotation":         func(m *metav1.ObjectMeta) { m.Annotations = map[string]string{"a": "b"} },
		"finalizer":          func(m *metav1.ObjectMeta) { m.Finalizers = []string{"example.com/stay"} },
		"owner": func(m *metav1.ObjectMeta) {
			m.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n", UID: "u"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			request := honest(t, node)
			change(&request.ObjectMeta)
			wantRefused(t, tryCreate(t, agent, request))
		})
	}
	t.Run("unbound token", func(t *testing.T) {
		config, err := w.AsServiceAccount(t.Context(), fixtures.Namespace, fixtures.ServiceAccount)
		expect.OK(t, err)
		wantRefused(t, tryCreate(t, kubernetes.NewForConfigOrDie(config), honest(t, node)))
	})
	t.Run("without a label", func(t *testing.T) {
		request := honest(t, node)
		request.Labels = nil
		expect.OK(t, tryCreate(t, agent, request))
	})
	t.Run("other verbs", func(t *testing.T) { testAgentsVerbs(t, w, agent) })
}

func testAgentsVerbs(t *testing.T, w *world, agent kubernetes.Interface) {
	own := create(t, agent, honest(t, node))
	requests := agent.CertificatesV1().CertificateSigningRequests()
	for name, attempt := range map[string]func() error{
		"approve": func() error {
			_, err := requests.UpdateApproval(t.Context(), own.Name, decided(own, certsv1.CertificateApproved), metav1.UpdateOptions{})
			return err
		},
		"sign": func() error {
			_, err := requests.UpdateStatus(t.Context(), own, metav1.UpdateOptions{})
			return err
		},
		"update": func() error {
			_, err := requests.Update(t.Context(), own, metav1.UpdateOptions{})
			return err
		},
		"delete": func() error { return requests.Delete(t.Context(), own.Name, metav1.DeleteOptions{}) },
	} {
		if err := attempt(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want it forbidden", name, err)
		}
	}
	for name, attempt := range map[string]func() error{
		"get": func() error {
			_, err := requests.Get(t.Context(), own.Name, metav1.GetOptions{})
			return err
		},
		"list": func() error {
			_, err := requests.List(t.Context(), metav1.ListOptions{LabelSelector: "chandler.dev/node=" + node})
			return err
		},
	} {
		if err := attempt(); err != nil {
			t.Errorf("%s: got %v, want it allowed", name, err)
		}
	}
	expect.OK(t, w.admin.CertificatesV1().CertificateSigningRequests().Delete(t.Context(), own.Name, metav1.DeleteOptions{}))
}

// testThief holds a leader's token. The policy on what agents may create is out of
// force meanwhile, so that there is something to approve. It returns what is left
// for the leader to deny, and the reason for each.
func testThief(t *testing.T, w *world) map[string]string {
	forged := map[string]string{}
	agent, thief := w.agent(t, node), w.thief(t)
	bindings := w.admin.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	binding, err := bindings.Get(t.Context(), "chandler-scraper-requests", metav1.GetOptions{})
	expect.OK(t, err)
	expect.OK(t, bindings.Delete(t.Context(), binding.Name, metav1.DeleteOptions{}))
	organization := func(d *fixtures.Draft) { d.Template.Subject.Organization = []string{"system:nodes"} }
	eventually(t, func() error {
		request, _, err := fixtures.ScraperRequest(node, organization)
		expect.OK(t, err)
		return tryCreate(t, agent, request)
	})
	for _, forgery := range fixtures.Forgeries() {
		t.Run(forgery.Name, func(t *testing.T) {
			request, _, err := fixtures.ScraperRequest(node, forgery.Change)
			expect.OK(t, err)
			stored, err := agent.CertificatesV1().CertificateSigningRequests().Create(t.Context(), request, metav1.CreateOptions{})
			if apierrors.IsInvalid(err) {
				return // the API server itself does not take it
			}
			expect.OK(t, err)
			if stored.Spec.SignerName == fixtures.ScraperSigner {
				forged[stored.Name] = forgery.Reason
			}
			err = tryApproval(t, thief, decided(stored, certsv1.CertificateApproved))
			if !forgery.Admitted {
				wantRefused(t, err)
			} else if err != nil {
				t.Errorf("got %v; if the policy refuses it, say so in the table", err)
			}
		})
	}
	t.Run("others' requests", func(t *testing.T) { thiefOthers(t, w, thief) })
	t.Run("alterations", func(t *testing.T) { thiefAlters(t, w, thief) })
	binding.ResourceVersion = ""
	_, err = bindings.Create(t.Context(), binding, metav1.CreateOptions{})
	expect.OK(t, err)
	eventually(t, func() error {
		request, _, err := fixtures.ScraperRequest(node, organization)
		expect.OK(t, err)
		if err := tryCreate(t, agent, request); !apierrors.IsForbidden(err) {
			return fmt.Errorf("got %w, want it forbidden again", err)
		}
		return nil
	})
	return forged
}

// thiefOthers tries requests that no agent made, and an agent's to another signer.
func thiefOthers(t *testing.T, w *world, thief kubernetes.Interface) {
	unbound, err := w.AsServiceAccount(t.Context(), fixtures.Namespace, fixtures.ServiceAccount)
	expect.OK(t, err)
	own := honest(t, node)
	own.Spec.SignerName = fixtures.ScraperOwnSigner
	for name, stored := range map[string]*certsv1.CertificateSigningRequest{
		"an administrator's":         create(t, w.admin, honest(t, node)),
		"of an unbound token":        create(t, kubernetes.NewForConfigOrDie(unbound), honest(t, node)),
		"to the signer not in force": create(t, w.agent(t, node), own),
	} {
		wantRefused(t, tryApproval(t, thief, decided(stored, certsv1.CertificateApproved)))
		err := tryApproval(t, thief, decided(stored, certsv1.CertificateDenied))
		if name != "of an unbound token" {
			wantRefused(t, err)
		} else if err != nil {
			t.Errorf("%s: deny: %v, want it to pass", name, err)
		}
	}
	if err := tryCreate(t, thief, honest(t, node)); !apierrors.IsForbidden(err) {
		t.Errorf("create: got %v, want it forbidden", err)
	}
}

// thiefAlters tries to do more with an honest request than decide.
func thiefAlters(t *testing.T, w *world, thief kubernetes.Interface) {
	agent := w.agent(t, node)
	add := func(kind certsv1.RequestConditionType) func(*certsv1.CertificateSigningRequest) {
		return func(r *certsv1.CertificateSigningRequest) { *r = *decided(r, kind) }
	}
	for name, change := range map[string]func(*certsv1.CertificateSigningRequest){
		"a failure":         add(certsv1.CertificateFailed),
		"another condition": add("Seen"),
		"both decisions": func(r *certsv1.CertificateSigningRequest) {
			add(certsv1.CertificateApproved)(r)
			add(certsv1.CertificateDenied)(r)
		},
		"a label": func(r *certsv1.CertificateSigningRequest) {
			add(certsv1.CertificateApproved)(r)
			r.Labels["evil"] = "yes"
		},
		"a finalizer": func(r *certsv1.CertificateSigningRequest) {
			add(certsv1.CertificateApproved)(r)
			r.Finalizers = []string{"example.com/stay"}
		},
		"nothing": func(*certsv1.CertificateSigningRequest) {},
	} {
		t.Run(name, func(t *testing.T) {
			stored := create(t, agent, honest(t, node))
			change(stored)
			wantRefused(t, tryApproval(t, thief, stored))
		})
	}
	t.Run("after the decision", func(t *testing.T) {
		for _, kind := range []certsv1.RequestConditionType{certsv1.CertificateApproved, certsv1.CertificateDenied} {
			stored := create(t, agent, honest(t, node))
			stored, err := thief.CertificatesV1().CertificateSigningRequests().
				UpdateApproval(t.Context(), stored.Name, decided(stored, kind), metav1.UpdateOptions{})
			if err != nil {
				t.Fatalf("%s: %v, want it to pass", kind, err)
			}
			stored.ResourceVersion = "" // the control plane may have signed it
			stored.Status.Conditions[0].Message = "another"
			wantRefused(t, tryApproval(t, thief, stored))
			stored.Status.Conditions = nil
			wantRefused(t, tryApproval(t, thief, stored))
		}
	})
	stored := create(t, agent, honest(t, node))
	stored.Status.Certificate = []byte("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
	_, err := thief.CertificatesV1().CertificateSigningRequests().UpdateStatus(t.Context(), stored, metav1.UpdateOptions{})
	wantRefused(t, err)
}

func decided(request *certsv1.CertificateSigningRequest, kind certsv1.RequestConditionType) *certsv1.CertificateSigningRequest {
	request = request.DeepCopy()
	request.Status.Conditions = append(request.Status.Conditions, certsv1.CertificateSigningRequestCondition{
		Type: kind, Status: corev1.ConditionTrue, Reason: "Test", Message: "x",
	})
	return request
}

func tryCreate(t *testing.T, client kubernetes.Interface, request *certsv1.CertificateSigningRequest) error {
	t.Helper()
	_, err := client.CertificatesV1().CertificateSigningRequests().Create(t.Context(), request, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

func tryApproval(t *testing.T, client kubernetes.Interface, request *certsv1.CertificateSigningRequest) error {
	t.Helper()
	_, err := client.CertificatesV1().CertificateSigningRequests().UpdateApproval(t.Context(), request.Name, request, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

func wantRefused(t *testing.T, err error) {
	t.Helper()
	if !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
		t.Errorf("got %v, want it refused", err)
	}
}
