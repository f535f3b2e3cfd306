package csrapproval

import (
	"time"

	certsv1 "k8s.io/api/certificates/v1"

	"github.com/chandler-k8s/chandler/leader/scrapercsr"
)

// answer is what there is to do with a request.
type answer string

const (
	leaveAlone answer = "leave alone"
	judge      answer = "judge"
	await      answer = "await" // approved by us: watch that it is signed
)

// reasonApproved is the reason of the condition by which we know our approvals.
const reasonApproved = "ChandlerScraperApproved"

// decide looks at a request without judging its content.
func decide(request *certsv1.CertificateSigningRequest, rules scrapercsr.Rules) answer {
	switch {
	case request.Spec.SignerName != rules.SignerName, request.Spec.Username != rules.AgentUser(),
		request.DeletionTimestamp != nil, len(request.Status.Certificate) > 0:
		return leaveAlone
	}
	do := judge
	for _, condition := range request.Status.Conditions {
		switch condition.Type {
		case certsv1.CertificateDenied, certsv1.CertificateFailed:
			return leaveAlone
		case certsv1.CertificateApproved:
			if condition.Reason != reasonApproved {
				return leaveAlone
			}
			do = await
		}
	}
	return do
}

// signingTime is how long a signer may take. Control planes that sign do it within
// a second.
const signingTime = time.Minute

// timeLeft returns how long the signer still has, zero or less if it has had its
// time. An API server's clock that is ahead of ours costs one signingTime at most.
func timeLeft(request *certsv1.CertificateSigningRequest, now time.Time) time.Duration {
	for _, condition := range request.Status.Conditions {
		if condition.Type == certsv1.CertificateApproved {
			return min(condition.LastUpdateTime.Add(signingTime).Sub(now), signingTime)
		}
	}
	return signingTime
}
