package scrapercsr

import "fmt"

// Reason names a rule of this package in CamelCase. It is the reason of the
// condition that a refused request gets, and a metric's label.
type Reason string

// The reasons for which a request is refused.
const (
	// Of the request's specification.
	WrongSigner        Reason = "WrongSigner"
	NotAnAgent         Reason = "NotAnAgent"
	WrongUsages        Reason = "WrongUsages"
	NoExpiration       Reason = "NoExpiration"
	ExpirationTooShort Reason = "ExpirationTooShort"
	ExpirationTooLong  Reason = "ExpirationTooLong"
	UnboundToken       Reason = "UnboundToken"

	// Of the PEM around the request.
	NotPEM         Reason = "NotPEM"
	TextBeforePEM  Reason = "TextBeforePEM"
	WrongPEMType   Reason = "WrongPEMType"
	PEMHeaders     Reason = "PEMHeaders"
	SecondPEMBlock Reason = "SecondPEMBlock"
	TextAfterPEM   Reason = "TextAfterPEM"
	UnusualPEM     Reason = "UnusualPEM"

	// Of the certificate request itself.
	MalformedRequest        Reason = "MalformedRequest"
	NoCommonName            Reason = "NoCommonName"
	SeveralCommonNames      Reason = "SeveralCommonNames"
	WrongCommonName         Reason = "WrongCommonName"
	WrongStringType         Reason = "WrongStringType"
	OrganizationInSubject   Reason = "OrganizationInSubject"
	ExtraSubjectAttribute   Reason = "ExtraSubjectAttribute"
	MultiValuedName         Reason = "MultiValuedName"
	WrongKeyType            Reason = "WrongKeyType"
	WrongCurve              Reason = "WrongCurve"
	WrongSignatureAlgorithm Reason = "WrongSignatureAlgorithm"
	BadSignature            Reason = "BadSignature"
	ExtraAttribute          Reason = "ExtraAttribute"
	CertificateAuthority    Reason = "CertificateAuthority"
	ExtraExtension          Reason = "ExtraExtension"
	NoNodeName              Reason = "NoNodeName"
	SeveralNames            Reason = "SeveralNames"
	WrongNameType           Reason = "WrongNameType"
	WrongNodeName           Reason = "WrongNodeName"
	UnusualEncoding         Reason = "UnusualEncoding"

	// Of the pod whose token made the request.
	PodGone           Reason = "PodGone"
	PodReplaced       Reason = "PodReplaced"
	PodOnAnotherNode  Reason = "PodOnAnotherNode"
	PodOfOtherAccount Reason = "PodOfOtherAccount"
	PodTerminating    Reason = "PodTerminating"
	PodFinished       Reason = "PodFinished"
)

// Reasons lists every reason, for metrics that show zeros.
func Reasons() []Reason {
	return []Reason{
		WrongSigner, NotAnAgent, WrongUsages, NoExpiration, ExpirationTooShort, ExpirationTooLong, UnboundToken,
		NotPEM, TextBeforePEM, WrongPEMType, PEMHeaders, SecondPEMBlock, TextAfterPEM, UnusualPEM,
		MalformedRequest, NoCommonName, SeveralCommonNames, WrongCommonName, WrongStringType,
		OrganizationInSubject, ExtraSubjectAttribute, MultiValuedName, WrongKeyType, WrongCurve,
		WrongSignatureAlgorithm, BadSignature, ExtraAttribute, CertificateAuthority, ExtraExtension,
		NoNodeName, SeveralNames, WrongNameType, WrongNodeName, UnusualEncoding,
		PodGone, PodReplaced, PodOnAnotherNode, PodOfOtherAccount, PodTerminating, PodFinished,
	}
}

// Violation is a proven breach of a rule. It is an error that no retry mends.
type Violation struct {
	Reason Reason
	// Message says what is wrong and how it is put right, in one line. What it
	// quotes of the request is escaped and short.
	Message string
}

// Error implements error.
func (v *Violation) Error() string { return string(v.Reason) + ": " + v.Message }

// maxQuoted bounds what a message repeats of a request, in bytes.
const maxQuoted = 128

// breach makes a Violation. Texts of the request must be passed through quote.
func breach(reason Reason, format string, args ...any) *Violation {
	return &Violation{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// quote makes a text that anybody may have written fit for a message.
func quote(text string) string {
	if len(text) > maxQuoted {
		return fmt.Sprintf("%+q and %d bytes more", text[:maxQuoted], len(text)-maxQuoted)
	}
	return fmt.Sprintf("%+q", text)
}
