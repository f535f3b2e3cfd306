package scrapercert

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"time"

	certsv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// namePrefix begins the names of our requests.
	namePrefix = "chandler-scraper-"
	// LabelNode is on each request: the name of its node, where that is a valid label
	// value. It helps to find requests and proves nothing.
	LabelNode = "chandler.dev/node"
	// claimNode is how the API server records the node of the requester's token.
	claimNode = "authentication.kubernetes.io/node-name"
	// callPatience bounds one call to the API server.
	callPatience = 10 * time.Second
	// pageSize bounds one answer where requests of all nodes have to be listed.
	pageSize = 500
)

// request is a key and the PKCS#10 text that was signed with it, and once the API
// server has it, the object.
type request struct {
	keyPEM []byte
	pkcs10 []byte
	object *certsv1.CertificateSigningRequest // nil until it is known to be made
}

func newRequest(commonName, nodeName string) (*request, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: commonName}, DNSNames: []string{nodeName},
	}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return &request{
		keyPEM: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
		pkcs10: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
	}, nil
}

// submit makes the object of the open request, unless an answer was lost and it is
// there already. It blocks while a request of an earlier run is undecided.
func (r *Renewer) submit(ctx context.Context) error {
	for {
		listed, err := r.list(ctx)
		if err != nil {
			return apiError("list certificate requests of this node", err)
		}
		orphan, err := r.orphan(ctx, listed)
		if err != nil {
			return err
		}
		if r.open.object != nil {
			return nil
		}
		if orphan == nil {
			break
		}
		r.report(fmt.Errorf("certificate request %s: %w; it is waited for, or deny it", orphan.Name, ErrPending))
		if _, err := r.follow(ctx, orphan, decided); err != nil && !isVanished(err) {
			return err
		}
	}
	made, err := r.create(ctx)
	if err != nil {
		return apiError("make certificate request", err)
	}
	r.open.object = made
	return nil
}

func (r *Renewer) create(ctx context.Context) (*certsv1.CertificateSigningRequest, error) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	seconds := int32(r.Duration / time.Second)
	return r.requests().Create(ctx, &certsv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: namePrefix, Labels: r.labels()},
		Spec: certsv1.CertificateSigningRequestSpec{
			Request: r.open.pkcs10, SignerName: r.SignerName, ExpirationSeconds: &seconds,
			Usages: []certsv1.KeyUsage{certsv1.UsageDigitalSignature, certsv1.UsageClientAuth},
		},
	}, metav1.CreateOptions{})
}

// labels is empty for a node whose name is too long for one.
func (r *Renewer) labels() map[string]string {
	if len(validation.IsValidLabelValue(r.NodeName)) > 0 {
		return nil
	}
	return map[string]string{LabelNode: r.NodeName}
}

// list returns the undecided requests for our signer that may be this node's.
func (r *Renewer) list(ctx context.Context) ([]certsv1.CertificateSigningRequest, error) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	options := metav1.ListOptions{
		LabelSelector: labels.Set(r.labels()).String(),
		FieldSelector: fields.OneTermEqualSelector("spec.signerName", r.SignerName).String(),
		Limit:         pageSize,
	}
	var open []certsv1.CertificateSigningRequest
	for {
		page, err := r.requests().List(ctx, options)
		if err != nil {
			return nil, err
		}
		for _, c := range page.Items {
			if c.Spec.SignerName == r.SignerName && (!decided(&c) || bytes.Equal(c.Spec.Request, r.open.pkcs10)) {
				open = append(open, c)
			}
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return open, nil
		}
	}
}

// orphan finds an undecided request of this node for the same common name, whose
// key we do not have; nil when there is none. The open request, if it is among those
// listed, is recognized.
func (r *Renewer) orphan(ctx context.Context, listed []certsv1.CertificateSigningRequest) (*certsv1.CertificateSigningRequest, error) {
	for i, c := range listed {
		if bytes.Equal(c.Spec.Request, r.open.pkcs10) {
			r.open.object = &listed[i]
			return nil, nil
		}
	}
	for i, c := range listed {
		if commonNameOf(c.Spec.Request) != r.CommonName {
			continue
		}
		own, err := r.isOwn(ctx, &c)
		if err != nil {
			return nil, err
		}
		if own {
			return &listed[i], nil
		}
	}
	return nil, nil
}

// isOwn reports whether this account made the request from this node. Anybody may
// set the label; the API server alone sets who a requester is. It asks who we are
// only when that matters, and once.
func (r *Renewer) isOwn(ctx context.Context, c *certsv1.CertificateSigningRequest) (bool, error) {
	if r.self == nil {
		self, err := r.whoAmI(ctx)
		if err != nil {
			return false, err
		}
		r.self = self
	}
	return *r.self == requester{c.Spec.Username, claim(c.Spec.Extra[claimNode])}, nil
}

func claim[T ~[]string](values T) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

func commonNameOf(pkcs10 []byte) string {
	block, _ := pem.Decode(pkcs10)
	if block == nil {
		return ""
	}
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return ""
	}
	return parsed.Subject.CommonName
}
