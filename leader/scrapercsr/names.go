package scrapercsr

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
)

const sanDNSName = 2 // GeneralName's tag of dNSName, RFC 5280 section 4.2.1.6

func commonNameOID() asn1.ObjectIdentifier       { return asn1.ObjectIdentifier{2, 5, 4, 3} }
func organizationOID() asn1.ObjectIdentifier     { return asn1.ObjectIdentifier{2, 5, 4, 10} }
func sanOID() asn1.ObjectIdentifier              { return asn1.ObjectIdentifier{2, 5, 29, 17} }
func basicConstraintsOID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 19} }
func extensionRequestOID() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
}

// attributeTypeAndValue keeps the type of the string, unlike package pkix.
type attributeTypeAndValue struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type relativeNameSET []attributeTypeAndValue

// subjectOf returns the one encoding of a subject with this common name alone.
func subjectOf(commonName string) ([]byte, error) {
	return asn1.Marshal(pkix.Name{CommonName: commonName}.ToRDNSequence())
}

// checkSubject demands the common name and nothing else.
func checkSubject(subject []byte, commonName string) *Violation {
	want, err := subjectOf(commonName)
	if err == nil && bytes.Equal(subject, want) {
		return nil
	}
	var parts []relativeNameSET
	if rest, err := asn1.Unmarshal(subject, &parts); err != nil || len(rest) > 0 {
		return breach(MalformedRequest, "the subject is not a name")
	}
	var names []asn1.RawValue
	for _, part := range parts {
		if len(part) > 1 {
			return breach(MultiValuedName, "the subject has several values in one name: want the common name alone")
		}
		for _, attribute := range part {
			switch {
			case attribute.Type.Equal(commonNameOID()):
				names = append(names, attribute.Value)
			case attribute.Type.Equal(organizationOID()):
				return breach(OrganizationInSubject, "the subject has an organization, which would be a group: want the common name alone")
			default:
				return breach(ExtraSubjectAttribute, "the subject has attribute %s: want the common name alone", quote(attribute.Type.String()))
			}
		}
	}
	switch {
	case len(names) == 0:
		return breach(NoCommonName, "the subject has no common name, want %q", commonName)
	case len(names) > 1:
		return breach(SeveralCommonNames, "the subject has %d common names, want one", len(names))
	}
	return checkCommonName(names[0], commonName)
}

// checkCommonName tells why the encoding of a common name is not the right one.
func checkCommonName(value asn1.RawValue, want string) *Violation {
	usual := value.Class == asn1.ClassUniversal && (value.Tag == asn1.TagPrintableString || value.Tag == asn1.TagUTF8String)
	if usual && string(value.Bytes) != want {
		return breach(WrongCommonName, "the common name is %s, want %q: scraper.commonName must be the same on nodes and leader", quote(string(value.Bytes)), want)
	}
	return breach(WrongStringType, "the common name is an ASN.1 string of type %d: want the one that crypto/x509 uses", value.Tag)
}

// checkAttributes demands a request for one extension: the SAN with the node's
// name and nothing else.
func checkAttributes(attributes []asn1.RawValue, node string) *Violation {
	want, err := nodeNameAttribute(node)
	if err == nil && len(attributes) == 1 && bytes.Equal(attributes[0].FullBytes, want) {
		return nil
	}
	if len(attributes) == 0 {
		return breach(NoNodeName, "the request has no SAN, want the node's name %q", node)
	}
	var extensions []pkix.Extension
	for _, raw := range attributes {
		var attribute struct {
			Type   asn1.ObjectIdentifier
			Values [][]pkix.Extension `asn1:"set"`
		}
		rest, err := asn1.Unmarshal(raw.FullBytes, &attribute)
		if err != nil || len(rest) > 0 || !attribute.Type.Equal(extensionRequestOID()) || len(attribute.Values) != 1 {
			return breach(ExtraAttribute, "the request has an attribute other than its extensions: want none")
		}
		extensions = append(extensions, attribute.Values[0]...)
	}
	return checkExtensions(extensions, node)
}

func checkExtensions(extensions []pkix.Extension, node string) *Violation {
	var found *pkix.Extension
	for i, extension := range extensions {
		switch {
		case extension.Id.Equal(basicConstraintsOID()):
			return breach(CertificateAuthority, "the request has basic constraints, as a certificate authority's: want no extension but the SAN")
		case !extension.Id.Equal(sanOID()) || found != nil:
			return breach(ExtraExtension, "the request has extension %s: want the SAN alone, once", quote(extension.Id.String()))
		}
		found = &extensions[i]
	}
	if found == nil {
		return breach(NoNodeName, "the request has no SAN, want the node's name %q", node)
	}
	return checkSAN(found.Value, node)
}

func checkSAN(value []byte, node string) *Violation {
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(value, &names); err != nil || len(rest) > 0 {
		return breach(MalformedRequest, "the SAN is not a list of names")
	}
	for _, name := range names {
		if name.Class != asn1.ClassContextSpecific || name.Tag != sanDNSName {
			return breach(WrongNameType, "the SAN has a name of type %d, such as an address or URI: want the node's name as a DNS name", name.Tag)
		}
	}
	switch {
	case len(names) == 0:
		return breach(NoNodeName, "the SAN is empty, want the node's name %q", node)
	case len(names) > 1:
		return breach(SeveralNames, "the SAN has %d names, want the node's name alone", len(names))
	case string(names[0].Bytes) != node:
		return breach(WrongNodeName, "the SAN is %s, want %q, the node of the pod that made the request", quote(string(names[0].Bytes)), node)
	}
	return nil // encoded in an unusual way, which checkEncoding refuses
}

// nodeNameAttribute returns the one encoding of the attribute that asks for this
// SAN and for no other extension.
func nodeNameAttribute(node string) ([]byte, error) {
	for _, c := range []byte(node) {
		if c <= ' ' || c > '~' {
			return nil, fmt.Errorf("encode node name %q: not printable ASCII", node)
		}
	}
	names, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: sanDNSName, Bytes: []byte(node)}})
	if err != nil {
		return nil, fmt.Errorf("encode node name %q: %w", node, err)
	}
	return asn1.Marshal(struct {
		Type   asn1.ObjectIdentifier
		Values [][]pkix.Extension `asn1:"set"`
	}{extensionRequestOID(), [][]pkix.Extension{{{Id: sanOID(), Value: names}}}})
}
