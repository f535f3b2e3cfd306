package scrapercsr

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	certsv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Keys of spec.extra that the API server fills in from a token that is bound to a
// pod. It drops what a client sends there.
const (
	PodNameKey  = "authentication.kubernetes.io/pod-name"
	PodUIDKey   = "authentication.kubernetes.io/pod-uid"
	nodeNameKey = "authentication.kubernetes.io/node-name"
)

const (
	agentAccount = "chandler-agent"
	// ShortestLife is the least that the API lets a request ask for.
	ShortestLife = 10 * time.Minute
)

// Rules is what a request must satisfy. All fields are required.
type Rules struct {
	// Namespace is that of the agents, e.g. "chandler".
	Namespace string
	// CommonName is the whole subject, e.g.
	// "system:serviceaccount:openshift-monitoring:prometheus-k8s". Source:
	// scraper.commonName, whose rules it satisfies.
	CommonName string
	// SignerName is the signer asked for, e.g.
	// "kubernetes.io/kube-apiserver-client". Source: scraper.signerName.
	SignerName string
	// LongestLife is the most that a request may ask for, in whole seconds.
	// Source: scraper.duration.
	LongestLife time.Duration
}

// Pods reads pods of the agents' namespace. corev1client.PodInterface is one.
type Pods interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (*corev1.Pod, error)
}

// AgentUser is the user name of the agents' account.
func (r Rules) AgentUser() string {
	return "system:serviceaccount:" + r.Namespace + ":" + agentAccount
}

// Check holds a request to every rule, and reads its pod if all others are
// satisfied. The error is a *Violation if one is broken; any other error means
// that the pod could not be looked up, which proves nothing. It writes nothing and
// is safe to repeat.
func (r Rules) Check(ctx context.Context, pods Pods, request *certsv1.CertificateSigningRequest) (*x509.CertificateRequest, error) {
	claims, violation := r.checkSpec(&request.Spec)
	if violation != nil {
		return nil, violation
	}
	decoded, violation := r.decode(request.Spec.Request, claims.node)
	if violation != nil {
		return nil, violation
	}
	if err := r.checkPod(ctx, pods, claims); err != nil {
		return nil, err
	}
	return decoded, nil
}

// claims is what the API server says of the token that made a request.
type claims struct{ pod, uid, node string }

func (r Rules) checkSpec(spec *certsv1.CertificateSigningRequestSpec) (claims, *Violation) {
	if spec.SignerName != r.SignerName {
		return claims{}, breach(WrongSigner, "spec.signerName is %s, want %q: scraper.signerName must be the same on nodes and leader", quote(spec.SignerName), r.SignerName)
	}
	if spec.Username != r.AgentUser() {
		return claims{}, breach(NotAnAgent, "made by %s, want %q: only agents get scraper certificates", quote(spec.Username), r.AgentUser())
	}
	if !rightUsages(spec.Usages) {
		return claims{}, breach(WrongUsages, "spec.usages must be exactly %q and %q", certsv1.UsageDigitalSignature, certsv1.UsageClientAuth)
	}
	if v := r.checkExpiration(spec.ExpirationSeconds); v != nil {
		return claims{}, v
	}
	return claimsOf(spec.Extra)
}

func rightUsages(usages []certsv1.KeyUsage) bool {
	return len(usages) == 2 &&
		slices.Contains(usages, certsv1.UsageDigitalSignature) && slices.Contains(usages, certsv1.UsageClientAuth)
}

func (r Rules) checkExpiration(seconds *int32) *Violation {
	if seconds == nil {
		return breach(NoExpiration, "spec.expirationSeconds is absent, want at most %d: an unbounded certificate cannot be revoked", r.longestSeconds())
	}
	switch life := time.Duration(*seconds) * time.Second; {
	case life < ShortestLife:
		return breach(ExpirationTooShort, "spec.expirationSeconds is %d, want at least %d", *seconds, ShortestLife/time.Second)
	case life > r.LongestLife:
		return breach(ExpirationTooLong, "spec.expirationSeconds is %d, want at most %d: scraper.duration must be the same on nodes and leader", *seconds, r.longestSeconds())
	}
	return nil
}

func (r Rules) longestSeconds() int64 { return int64(r.LongestLife / time.Second) }

func claimsOf(extra map[string]certsv1.ExtraValue) (claims, *Violation) {
	var c claims
	for key, value := range map[string]*string{PodNameKey: &c.pod, PodUIDKey: &c.uid, nodeNameKey: &c.node} {
		if values := extra[key]; len(values) == 1 {
			*value = values[0]
		}
	}
	if c.pod == "" || c.uid == "" || c.node == "" {
		return claims{}, breach(UnboundToken, "made with a token that is not bound to a pod on a node: use the token that kubelet mounts into the agent's pod")
	}
	return c, nil
}

// checkPod reads the pod from the API server, not from a cache: that it is gone
// must be certain.
func (r Rules) checkPod(ctx context.Context, pods Pods, c claims) error {
	pod, err := pods.Get(ctx, c.pod, metav1.GetOptions{})
	if gone(err) {
		return breach(PodGone, "pod %s/%s, whose token made the request, no longer exists", r.Namespace, c.pod)
	}
	if err != nil {
		return fmt.Errorf("look up pod %s/%s of the request: %w", r.Namespace, c.pod, err)
	}
	if v := r.judgePod(c, pod); v != nil {
		return v
	}
	return nil
}

// gone tells the API server's own NotFound from a proxy's page of that status.
func gone(err error) bool {
	return apierrors.IsNotFound(err) && !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

func (r Rules) judgePod(c claims, pod *corev1.Pod) *Violation {
	name := pod.Namespace + "/" + pod.Name
	switch {
	case string(pod.UID) != c.uid:
		return breach(PodReplaced, "pod %s, whose token made the request, was replaced by another of its name", name)
	case pod.Spec.NodeName != c.node:
		return breach(PodOnAnotherNode, "pod %s is on node %q and not on node %q, which the token names", name, pod.Spec.NodeName, c.node)
	case pod.Spec.ServiceAccountName != agentAccount:
		return breach(PodOfOtherAccount, "pod %s runs as ServiceAccount %q and not as %q", name, pod.Spec.ServiceAccountName, agentAccount)
	case pod.DeletionTimestamp != nil:
		return breach(PodTerminating, "pod %s is being deleted: its successor makes a request of its own", name)
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return breach(PodFinished, "pod %s has ended (phase %s)", name, pod.Status.Phase)
	}
	return nil
}
