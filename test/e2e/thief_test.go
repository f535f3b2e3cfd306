//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	agentLabels  = "app.kubernetes.io/name=chandler"
	agentUser    = "system:serviceaccount:" + home + ":chandler-agent"
	leaderUser   = "system:serviceaccount:" + home + ":chandler-leader"
	nodeOfHolder = "chandler.dev/node" // annotation of the Lease
)

// attempt is something that a thief tries, just as a program would that is allowed to.
type attempt struct {
	name string
	// refused is a part of what the policy says that refuses it, or the rule of RBAC
	// against escalation. Empty means that there is no right to it, and no policy is asked.
	refused string
	try     func(context.Context) error
}

// wantRefused makes the attempts, and looks at who refuses each.
func wantRefused(t *testing.T, attempts []attempt) {
	t.Helper()
	for _, a := range attempts {
		err := unlessConflict(t.Context(), a.try)
		want := cmp.Or(a.refused, " cannot ")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want it refused, saying %q", a.name, err, want)
		} else if a.refused == "" && (!apierrors.IsForbidden(err) || strings.Contains(err.Error(), "ValidatingAdmissionPolicy")) {
			t.Errorf("%s: got %v, want it refused by RBAC", a.name, err)
		}
	}
}

// unlessConflict tries again what came in between of somebody else's write.
func unlessConflict(ctx context.Context, try func(context.Context) error) error {
	for {
		if err := try(ctx); !apierrors.IsConflict(err) {
			return err
		}
	}
}

// bearer returns a client with a token, which is never to be logged. Nor is any other
// that the API server has signed: all begin alike.
func (p *product) bearer(t *testing.T, token, user string) kubernetes.Interface {
	t.Helper()
	header, _, _ := strings.Cut(token, ".")
	p.secrets = append(p.secrets, token, header)
	admin, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(admin)
	config.BearerToken, config.QPS = token, -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	who, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || who.Status.UserInfo.Username != user {
		t.Fatalf("the stolen token: got %v, %v, want %s", who, err, user)
	}
	return client
}

// stolen returns a client with the token that lies on a node, and the agent's pod.
func (p *product) stolen(t *testing.T, node string) (kubernetes.Interface, *corev1.Pod) {
	t.Helper()
	pod := p.podOn(t, home, agentLabels, node)
	var token string
	if p.roots != nil {
		token = p.cluster(t, "exec", node, "cat", "/var/lib/kubelet/pods/"+string(pod.UID)+"/volumes/kubernetes.io~projected/token/token")
	} else { // one like it
		token = strings.TrimSpace(p.kubectl(t, "--namespace", home, "create", "token", "chandler-agent",
			"--bound-object-kind", "Pod", "--bound-object-name", pod.Name, "--bound-object-uid", string(pod.UID)))
	}
	return p.bearer(t, token, agentUser), pod
}

// leadersToken asks for the leader's token as an agent on the node does.
func leadersToken(ctx context.Context, client kubernetes.Interface, node string, dryRun ...string) (string, error) {
	seconds := int64(600)
	answer, err := client.CoreV1().ServiceAccounts(home).CreateToken(ctx, "chandler-leader", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{
			ExpirationSeconds: &seconds,
			BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Node", APIVersion: "v1", Name: node},
		},
	}, metav1.CreateOptions{DryRun: dryRun})
	return answer.Status.Token, err
}

// thief tries with a node's token what an agent that does not lead may not do, and then
// with the leader's what even that may not.
func (p *product) thief(t *testing.T) {
	leader := p.holder(t, "")
	node := p.nodes[0]
	if node == leader.Spec.NodeName {
		node = p.nodes[1]
	}
	client, pod := p.stolen(t, node)
	t.Run("agent's rights", func(t *testing.T) { wantRefused(t, p.beyondAgents(t, client, pod, leader)) })
	t.Run("leader's token", func(t *testing.T) { wantRefused(t, tokenAttempts(client, pod, leader)) })
	t.Run("Lease", func(t *testing.T) { wantRefused(t, leaseAttempts(client, pod)) })
	t.Run("certificates", func(t *testing.T) { wantRefused(t, certificateAttempts(t, client, pod, leader)) })
	t.Run("certificate in another node's name", func(t *testing.T) { p.anothersName(t, client, pod, leader.Spec.NodeName) })
	t.Run("leader's node", func(t *testing.T) { p.thiefOfLeader(t, leader) })
}

// thiefOfLeader has the token of the leader's node, and with it gets the leader's.
func (p *product) thiefOfLeader(t *testing.T, leader *corev1.Pod) {
	agent, pod := p.stolen(t, leader.Spec.NodeName)
	token, err := leadersToken(t.Context(), agent, pod.Spec.NodeName)
	if err != nil {
		t.Fatal(err)
	}
	client := p.bearer(t, token, leaderUser)
	t.Run("leader's rights", func(t *testing.T) { wantRefused(t, beyondLeaders(client, pod)) })
	t.Run("shapes", func(t *testing.T) { wantRefused(t, p.shapeAttempts(t, client)) })
	writes := p.leadersWrites(client)
	for _, w := range writes {
		if err := unlessConflict(t.Context(), w.try); err != nil {
			t.Errorf("%s while the node leads: %v", w.name, err)
		}
	}
	p.secretsUnlogged(t) // logs go with their pods
	for after := leader; after.Spec.NodeName == leader.Spec.NodeName; after = p.holder(t, after.Name) {
		p.kubectl(t, "--namespace", home, "delete", "pod", after.Name)
	}
	eventually(t, "end of the token's writes", func(ctx context.Context) error {
		if err := writes[0].try(ctx); err == nil {
			return errors.New("it still writes")
		}
		return nil
	})
	wantRefused(t, writes)
	p.rollout(t, home, agents)
	p.untorn(t)
}

// leadersWrites are some that the leader makes, and nobody with its token once the Lease
// is on another node.
func (p *product) leadersWrites(client kubernetes.Interface) []attempt {
	const moved = "the Lease has moved to another node than this token is bound to"
	return []attempt{
		{"Event", moved, func(ctx context.Context) error {
			_, err := client.EventsV1().Events(readers).Create(ctx, &eventsv1.Event{
				ObjectMeta: metav1.ObjectMeta{GenerateName: "told-"}, EventTime: metav1.NowMicro(),
				ReportingController: "chandler", ReportingInstance: "pod", Action: "Tell", Reason: "Told", Type: corev1.EventTypeNormal,
				Regarding: corev1.ObjectReference{Kind: "Namespace", Namespace: readers, Name: readers},
			}, metav1.CreateOptions{})
			return err
		}},
		{"Role as it is", moved, func(ctx context.Context) error {
			role, err := p.client.RbacV1().Roles(readers).Get(ctx, "podlogreader-web", metav1.GetOptions{})
			if err != nil {
				return err
			}
			_, err = client.RbacV1().Roles(readers).Update(ctx, role, metav1.UpdateOptions{})
			return err
		}},
	}
}

// requests are attempts of the form "GET /api/v1/secrets", that RBAC refuses.
func requests(client kubernetes.Interface, lines ...string) []attempt {
	var all []attempt
	for _, line := range lines {
		method, uri, _ := strings.Cut(line, " ")
		all = append(all, attempt{name: line, try: func(ctx context.Context) error {
			request := client.CoreV1().RESTClient().Verb(method).RequestURI(uri)
			switch method {
			case http.MethodGet:
			case http.MethodPatch:
				request.Body([]byte("{}")).SetHeader("Content-Type", string(types.MergePatchType))
			default:
				request.Body([]byte("{}")).SetHeader("Content-Type", "application/json")
			}
			return request.Do(ctx).Error()
		}})
	}
	return all
}

// beyondAgents: what is none of an agent's business.
func (p *product) beyondAgents(t *testing.T, client kubernetes.Interface, pod, leader *corev1.Pod) []attempt {
	t.Helper()
	all, err := p.client.CertificatesV1().CertificateSigningRequests().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(all.Items) == 0 {
		t.Fatalf("requests: got %v, %v", all, err)
	}
	const core, rbac, admission = "/api/v1/", "/apis/rbac.authorization.k8s.io/v1/", "/apis/admissionregistration.k8s.io/v1/"
	const ours, theirs = core + "namespaces/" + home + "/", core + "namespaces/" + readers + "/"
	const leases = "/apis/coordination.k8s.io/v1/namespaces/"
	csr := "/apis/certificates.k8s.io/v1/certificatesigningrequests/" + all.Items[0].Name
	attempts := requests(client,
		"GET "+core+"secrets", "GET "+core+"secrets?watch=true", "GET "+core+"namespaces/"+keysIn+"/secrets", "GET "+ours+"secrets/chandler-aws-default",
		"GET "+theirs+"secrets/"+registry, "POST "+theirs+"secrets", "PATCH "+theirs+"secrets/"+registry, "DELETE "+theirs+"secrets/"+registry,
		"GET "+core+"namespaces", "GET "+core+"nodes", "GET "+core+"pods", "GET "+ours+"configmaps", "PATCH "+ours+"configmaps/chandler",
		"POST "+ours+"pods", "DELETE "+ours+"pods/"+leader.Name, "POST "+ours+"pods/"+leader.Name+"/eviction", "GET "+ours+"pods/"+leader.Name+"/log",
		"POST "+ours+"pods/"+leader.Name+"/exec?command=x", "PUT "+ours+"pods/"+pod.Name+"/status", "PATCH "+ours+"pods/"+pod.Name+"/status",
		"PATCH "+core+"nodes/"+pod.Spec.NodeName, "PUT "+core+"nodes/"+leader.Spec.NodeName+"/status", "GET "+core+"nodes/"+leader.Spec.NodeName+"/proxy/pods",
		"PATCH /apis/apps/v1/namespaces/"+home+"/daemonsets/chandler",
		"POST "+theirs+"events", "POST /apis/events.k8s.io/v1/namespaces/"+home+"/events", "PATCH /apis/events.k8s.io/v1/namespaces/"+home+"/events/x",
		"POST "+ours+"serviceaccounts/chandler-agent/token", "POST "+theirs+"serviceaccounts/default/token",
		"POST "+rbac+"namespaces/"+readers+"/roles", "POST "+rbac+"namespaces/"+readers+"/rolebindings", "POST "+rbac+"clusterrolebindings",
		"GET "+leases+home+"/leases", "DELETE "+leases+home+"/leases/chandler", "PATCH "+leases+home+"/leases/chandler", "POST "+leases+readers+"/leases",
		"PUT "+leases+"kube-node-lease/leases/"+leader.Spec.NodeName,
		"GET "+admission+"validatingadmissionpolicies/chandler-lease", "DELETE "+admission+"validatingadmissionpolicybindings/chandler-lease",
		"PUT "+csr, "DELETE "+csr, "PUT "+csr+"/approval", "PUT "+csr+"/status",
	)
	return append(attempts, attempt{name: "act as an administrator", try: func(ctx context.Context) error {
		return client.CoreV1().RESTClient().Get().RequestURI("/api/v1/secrets").SetHeader("Impersonate-User", "kubernetes-admin").Do(ctx).Error()
	}})
}

// beyondLeaders: what not even the leader may do.
func beyondLeaders(client kubernetes.Interface, pod *corev1.Pod) []attempt {
	const theirs, rbac = "/api/v1/namespaces/" + readers + "/", "/apis/rbac.authorization.k8s.io/v1/"
	const ours = "/api/v1/namespaces/" + home + "/"
	return requests(client,
		"GET /api/v1/secrets", "GET /api/v1/secrets?watch=true", "GET "+ours+"secrets", "GET "+theirs+"secrets/"+registry, "PATCH "+theirs+"secrets/"+registry,
		"PATCH "+theirs+"pods/x", "POST "+theirs+"pods", "GET "+ours+"pods/"+pod.Name+"/log", "POST "+ours+"pods/"+pod.Name+"/exec?command=x",
		"POST "+ours+"serviceaccounts/chandler-leader/token", "POST "+ours+"serviceaccounts/chandler-agent/token",
		"PUT /apis/coordination.k8s.io/v1/namespaces/"+home+"/leases/chandler", "POST /apis/certificates.k8s.io/v1/certificatesigningrequests",
		"POST "+rbac+"clusterroles", "POST "+rbac+"clusterrolebindings", "PATCH "+rbac+"namespaces/"+readers+"/roles/podlogreader-web",
		"DELETE /apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/chandler-leader-node", "PATCH /apis/events.k8s.io/v1/namespaces/"+home+"/events/x",
	)
}

// tokenAttempts: a dry run is answered with a token that is good.
func tokenAttempts(client kubernetes.Interface, pod, leader *corev1.Pod) []attempt {
	const holder = "only the pod that holds the Lease may act as leader"
	ask := func(node string, dryRun ...string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := leadersToken(ctx, client, node, dryRun...)
			return err
		}
	}
	return []attempt{
		{"as the agent that leads asks", holder, ask(pod.Spec.NodeName)},
		{"by a dry run", holder, ask(pod.Spec.NodeName, metav1.DryRunAll)},
		{"in the name of the leader's node", holder, ask(leader.Spec.NodeName)},
	}
}

// anothersName: no policy sees into a request as far as its node's name, so the leader
// denies it.
func (p *product) anothersName(t *testing.T, client kubernetes.Interface, pod *corev1.Pod, node string) {
	request := scraperRequest(t, pod.Spec.NodeName)
	request.Spec.Request = encoded(t, pkix.Name{CommonName: scrapers}, node)
	made, err := client.CertificatesV1().CertificateSigningRequests().Create(t.Context(), request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "decision on the request", func(ctx context.Context) error {
		found, err := p.client.CertificatesV1().CertificateSigningRequests().Get(ctx, made.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(found.Status.Conditions) == 0 {
			return errors.New("there is none")
		}
		if got := found.Status.Conditions[0]; len(found.Status.Conditions) != 1 || got.Type != "Denied" || got.Reason != "WrongNodeName" || len(found.Status.Certificate) > 0 {
			t.Errorf("got %v, want it denied for the wrong node's name", found.Status)
		}
		return nil
	})
}
