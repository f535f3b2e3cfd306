//go:build e2e

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	certsv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// leaseAttempts: another holds the Lease, and renews it.
func leaseAttempts(client kubernetes.Interface, pod *corev1.Pod) []attempt {
	leases := client.CoordinationV1().Leases(home)
	write := func(manager string, change func(*coordinationv1.Lease)) func(context.Context) error {
		return func(ctx context.Context) error {
			lease, err := leases.Get(ctx, "chandler", metav1.GetOptions{})
			if err != nil {
				return err
			}
			was := *lease.Spec.RenewTime
			lease.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
			change(lease)
			if lease.Spec.RenewTime == nil {
				lease.Spec.RenewTime = &was
			}
			_, err = leases.Update(ctx, lease, metav1.UpdateOptions{FieldManager: manager})
			return err
		}
	}
	seize := func(lease *coordinationv1.Lease) {
		lease.Spec.HolderIdentity = &pod.Name
		metav1.SetMetaDataAnnotation(&lease.ObjectMeta, nodeOfHolder, pod.Spec.NodeName)
	}
	const unexpired, honest, own = "the Lease has not expired", "by Update as field manager chandler, each time with a new renewTime", "a pod writes its own name into the Lease"
	return []attempt{
		{"seized", unexpired, write("chandler", seize)},
		{"seized with stamps of an hour ago", unexpired, write("chandler", func(lease *coordinationv1.Lease) {
			seize(lease)
			for i := range lease.ManagedFields {
				lease.ManagedFields[i].Time = &metav1.Time{Time: time.Now().Add(-time.Hour)}
			}
		})},
		{"seized with stamps wiped", honest, write("chandler", func(lease *coordinationv1.Lease) {
			seize(lease)
			lease.ManagedFields = []metav1.ManagedFieldsEntry{{}}
		})},
		{"seized by another field manager", honest, write("thief", seize)},
		{"seized without renewal", honest, write("chandler", func(lease *coordinationv1.Lease) {
			seize(lease)
			lease.Spec.RenewTime = nil // as it was
		})},
		{"emptied, to be seized then", own, write("chandler", func(lease *coordinationv1.Lease) { lease.Spec.HolderIdentity = new(string) })},
		{"renewed in the holder's name", own, write("chandler", func(*coordinationv1.Lease) {})},
		{"another one", "chandler writes no other Lease than its own", func(ctx context.Context) error {
			seconds := int32(15)
			lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "thief"}}
			seize(lease)
			lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &seconds, &metav1.MicroTime{Time: time.Now()}
			_, err := leases.Create(ctx, lease, metav1.CreateOptions{FieldManager: "chandler"})
			return err
		}},
	}
}

// scraperRequest is what the agent of a node asks for.
func scraperRequest(t *testing.T, node string) *certsv1.CertificateSigningRequest {
	t.Helper()
	seconds := int32(720 * 3600)
	return &certsv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "chandler-scraper-", Labels: map[string]string{"chandler.dev/node": node}},
		Spec: certsv1.CertificateSigningRequestSpec{
			Request:    encoded(t, pkix.Name{CommonName: scrapers}, node),
			SignerName: certsv1.KubeAPIServerClientSignerName, ExpirationSeconds: &seconds,
			Usages: []certsv1.KeyUsage{certsv1.UsageDigitalSignature, certsv1.UsageClientAuth},
		},
	}
}

func encoded(t *testing.T, subject pkix.Name, names ...string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject, DNSNames: names}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request})
}

// certificateAttempts differ from what an agent asks for in one thing each.
func certificateAttempts(t *testing.T, client kubernetes.Interface, pod, leader *corev1.Pod) []attempt {
	t.Helper()
	node := pod.Spec.NodeName
	ask := func(change func(*certsv1.CertificateSigningRequest)) func(context.Context) error {
		return func(ctx context.Context) error {
			request := scraperRequest(t, node)
			change(request)
			_, err := client.CertificatesV1().CertificateSigningRequests().Create(ctx, request, metav1.CreateOptions{})
			return err
		}
	}
	as := func(name string, organizations ...string) func(context.Context) error {
		return ask(func(r *certsv1.CertificateSigningRequest) {
			r.Spec.Request = encoded(t, pkix.Name{CommonName: name, Organization: organizations}, node)
		})
	}
	const subject, labels = "agents ask only for the common name " + scrapers + " as the whole subject", "requests carry the label chandler.dev/node"
	return []attempt{
		{"an administrator's", subject, as("kubernetes-admin", "kubeadm:cluster-admins")},
		{"a node's", subject, as("system:node:"+node, "system:nodes")},
		{"ours, with a group", subject, as(scrapers, "system:nodes")},
		{"of another signer", "agents ask no other signer", ask(func(r *certsv1.CertificateSigningRequest) { r.Spec.SignerName = "chandler.dev/scraper-client" })},
		{"for a server", "the usages are", ask(func(r *certsv1.CertificateSigningRequest) {
			r.Spec.Usages = []certsv1.KeyUsage{certsv1.UsageDigitalSignature, certsv1.UsageServerAuth}
		})},
		{"for longer", "expirationSeconds is", ask(func(r *certsv1.CertificateSigningRequest) { *r.Spec.ExpirationSeconds++ })},
		{"for many names", "the request is longer", ask(func(r *certsv1.CertificateSigningRequest) {
			r.Spec.Request = encoded(t, pkix.Name{CommonName: scrapers}, strings.Fields(strings.Repeat("name-of-another-node ", 60))...)
		})},
		{"with another behind it", "one PEM block with nothing around it", ask(func(r *certsv1.CertificateSigningRequest) {
			r.Spec.Request = append(r.Spec.Request, encoded(t, pkix.Name{CommonName: "kubernetes-admin"})...)
		})},
		{"labelled as another node's", labels, ask(func(r *certsv1.CertificateSigningRequest) { r.Labels["chandler.dev/node"] = leader.Spec.NodeName })},
		{"that stays", labels, ask(func(r *certsv1.CertificateSigningRequest) { r.Finalizers = []string{"chandler.dev/stay"} })},
	}
}

// shapeAttempts differ in one thing each from what the leader writes.
func (p *product) shapeAttempts(t *testing.T, client kubernetes.Interface) []attempt {
	t.Helper()
	const core, rbac = "/api/v1/namespaces/" + readers + "/", "/apis/rbac.authorization.k8s.io/v1/namespaces/" + readers + "/"
	const secret = `{"metadata":{"name":%q,"labels":{"chandler.dev/task":"pullsecrets"}},"type":%q,"stringData":{".dockerconfigjson":"{\"auths\":{}}"}}`
	const another = "999999999999.dkr.ecr.eu-west-1.amazonaws.com"
	const owned = `{"metadata":{"name":"podlogreader-thief","labels":{"chandler.dev/task":"podlogs"},"annotations":{%s},` +
		`"ownerReferences":[{"apiVersion":"apps/v1","kind":"Deployment","name":"thief","uid":"1-2-3"}]}%s}`
	const grant = `,"rules":[{"apiGroups":[""],"resources":[%q],"verbs":["get","list","watch"]}]`
	const bind = `,"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":%q,"name":%q},"subjects":[{"kind":"ServiceAccount","name":%q,"namespace":%q}]`
	const grants, binds = "grant list of pods, and pods/log of named pods, and nothing else", "the leader binds a Role only to the ServiceAccount of its name"
	var all []attempt
	for _, s := range []struct{ name, refused, uri, body string }{
		{"Secret of another name", "named as an ECR registry's host", core + "secrets", fmt.Sprintf(secret, "password", corev1.SecretTypeDockerConfigJson)},
		{"Secret of another type", "Secrets of type kubernetes.io/dockerconfigjson", core + "secrets", fmt.Sprintf(secret, another, corev1.SecretTypeOpaque)},
		{"Role to read Secrets", grants, rbac + "roles", fmt.Sprintf(owned, "", fmt.Sprintf(grant, "secrets"))},
		{"Role to read all logs", grants, rbac + "roles", fmt.Sprintf(owned, "", fmt.Sprintf(grant, "pods/log"))},
		{"RoleBinding to an administrator's rights", "attempting to grant RBAC permissions not currently held", rbac + "rolebindings",
			fmt.Sprintf(owned, "", fmt.Sprintf(bind, "ClusterRole", "cluster-admin", "podlogreader-thief", readers))},
		{"RoleBinding to another Role", binds, rbac + "rolebindings", fmt.Sprintf(owned, "", fmt.Sprintf(bind, "Role", "admin", "podlogreader-thief", readers))},
		{"RoleBinding of another account", binds, rbac + "rolebindings", fmt.Sprintf(owned, "", fmt.Sprintf(bind, "Role", "podlogreader-thief", "default", readers))},
		{"account with an AWS role", "the ServiceAccounts that the leader makes carry", core + "serviceaccounts", fmt.Sprintf(owned, `"eks.amazonaws.com/role-arn":"x"`, "")},
		{"ConfigMap", "of ConfigMaps ", "/api/v1/namespaces/" + home + "/configmaps", `{"metadata":{"name":"thief"},"data":{"a":"b"}}`},
	} {
		all = append(all, attempt{s.name, s.refused, func(ctx context.Context) error {
			return client.CoreV1().RESTClient().Post().RequestURI(s.uri).SetHeader("Content-Type", "application/json").Body([]byte(s.body)).Do(ctx).Error()
		}})
	}
	return append(all, attempt{"approval of what no agent asked for", "on requests of agents alone", func(ctx context.Context) error {
		all := p.client.CertificatesV1().CertificateSigningRequests()
		request, err := all.Create(ctx, scraperRequest(t, p.nodes[0]), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		defer all.Delete(ctx, request.Name, metav1.DeleteOptions{})
		request.Status.Conditions = []certsv1.CertificateSigningRequestCondition{{Type: certsv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Thief", Message: "mine"}}
		_, err = client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, request.Name, request, metav1.UpdateOptions{})
		return err
	}})
}
