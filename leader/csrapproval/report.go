package csrapproval

import (
	"time"

	certsv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/chandler-k8s/chandler/leader/scrapercsr"
)

const (
	reasonUnissued = "ScraperCertificateNotIssued"
	eventAction    = "AwaitScraperCertificate"
)

// await returns how long to wait for the signer. Once its time is over, it tells so
// once for the request.
func (t *Task) await(request *certsv1.CertificateSigningRequest) time.Duration {
	if left := timeLeft(request, time.Now()); left > 0 {
		return left
	}
	t.mu.Lock()
	news := !t.told[request.Name]
	t.told[request.Name] = true
	t.mu.Unlock()
	if news {
		remedy := remedyFor(t.rules.SignerName)
		t.log.Warn("scraper certificate approved and never issued", "name", request.Name, "signer", t.rules.SignerName, "remedy", remedy)
		t.events.Eventf(agentPod(request, t.rules.Namespace), requestReference(request), corev1.EventTypeWarning, reasonUnissued, eventAction,
			"%s approved a minute ago; signer %s has issued no certificate. %s", request.Name, t.rules.SignerName, remedy)
	}
	return 0
}

// remedyFor says what to do about a signer that stays silent.
func remedyFor(signer string) string {
	if signer == scrapercsr.OwnSigner {
		return "The leader signs these itself: see the errors of its task csrsigning."
	}
	return "This control plane may not sign client certificates, as that of EKS: set scraper.signerName: " + scrapercsr.OwnSigner + "."
}

// forget drops a request that needs no more attention.
func (t *Task) forget(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.told, name)
}

func agentPod(request *certsv1.CertificateSigningRequest, namespace string) *corev1.ObjectReference {
	pod := &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: namespace}
	for key, field := range map[string]*string{scrapercsr.PodNameKey: &pod.Name, scrapercsr.PodUIDKey: (*string)(&pod.UID)} {
		if values := request.Spec.Extra[key]; len(values) == 1 {
			*field = values[0]
		}
	}
	return pod
}

func requestReference(request *certsv1.CertificateSigningRequest) *corev1.ObjectReference {
	return &corev1.ObjectReference{
		APIVersion: certsv1.SchemeGroupVersion.String(), Kind: "CertificateSigningRequest", Name: request.Name, UID: request.UID,
	}
}
