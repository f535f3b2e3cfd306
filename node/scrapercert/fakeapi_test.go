package scrapercert

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	certsv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/chandler-k8s/chandler/test/expect"
)

const (
	testCN   = "system:serviceaccount:monitoring:prometheus"
	testNode = "worker-3"
	testUser = "system:serviceaccount:chandler:chandler-agent"
)

// answer is what becomes of a request, some time after it was made. nil leaves it
// undecided.
type answer func(f *fakeAPI, c *certsv1.CertificateSigningRequest) *certsv1.CertificateSigningRequest

// fakeAPI is an API server with an approver and a signer.
type fakeAPI struct {
	*fake.Clientset
	t  *testing.T
	ca *testCA

	answering sync.WaitGroup

	mu     sync.Mutex // guards what follows
	answer answer
	down   error // what every request fails with
	lose   bool  // the answer to the next creation
	made   int
	lists  int
}

var requestsGVR = certsv1.SchemeGroupVersion.WithResource("certificatesigningrequests")

// newFakeAPI is to be made inside of a bubble.
func newFakeAPI(t *testing.T, a answer) *fakeAPI {
	t.Helper()
	f := &fakeAPI{Clientset: fake.NewClientset(), t: t, ca: newCA(t), answer: a}
	f.PrependReactor("create", "certificatesigningrequests", f.create)
	f.PrependReactor("create", "selfsubjectreviews", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &authenticationv1.SelfSubjectReview{Status: authenticationv1.SelfSubjectReviewStatus{
			UserInfo: authenticationv1.UserInfo{Username: testUser, Extra: map[string]authenticationv1.ExtraValue{claimNode: {testNode}}},
		}}, nil
	})
	f.PrependReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if action.GetVerb() == "list" {
			f.lists++
		}
		return f.down != nil, nil, f.down
	})
	return f
}

func (f *fakeAPI) create(action clienttesting.Action) (bool, runtime.Object, error) {
	made := action.(clienttesting.CreateAction).GetObject().DeepCopyObject().(*certsv1.CertificateSigningRequest)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made++
	made.Name = fmt.Sprint(made.GenerateName, f.made)
	made.UID = types.UID(made.Name)
	made.Spec.Username, made.Spec.Extra = testUser, map[string]certsv1.ExtraValue{claimNode: {testNode}}
	if err := f.Tracker().Create(requestsGVR, made, ""); err != nil {
		return true, nil, err
	}
	// The fake's watches begin with every object there is, up to a hundred.
	if old := fmt.Sprint(made.GenerateName, f.made-10); f.made > 10 {
		if err := f.Tracker().Delete(requestsGVR, "", old); err != nil {
			return true, nil, err
		}
	}
	a := f.answer
	f.answering.Go(func() {
		time.Sleep(50 * time.Millisecond)
		if changed := a(f, made.DeepCopy()); changed != nil {
			f.update(changed)
		}
	})
	if f.lose {
		f.lose = false
		return true, nil, context.DeadlineExceeded
	}
	return true, made, nil
}

func (f *fakeAPI) update(c *certsv1.CertificateSigningRequest) {
	if err := f.Tracker().Update(requestsGVR, c, ""); err != nil {
		f.t.Errorf("update %s: %v", c.Name, err)
	}
}

func (f *fakeAPI) set(change func(*fakeAPI)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeAPI) counts() (made, lists int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.made, f.lists
}

func undecided(*fakeAPI, *certsv1.CertificateSigningRequest) *certsv1.CertificateSigningRequest {
	return nil
}

func verdict(t certsv1.RequestConditionType) answer {
	return func(_ *fakeAPI, c *certsv1.CertificateSigningRequest) *certsv1.CertificateSigningRequest {
		c.Status.Conditions = append(c.Status.Conditions, certsv1.CertificateSigningRequestCondition{
			Type: t, Status: corev1.ConditionTrue, Reason: "Because", Message: "so",
		})
		return c
	}
}

// issue signs for a life that begins so long before now and ends so long after.
func issue(before, after time.Duration, changes ...func(*x509.Certificate)) answer {
	return func(f *fakeAPI, c *certsv1.CertificateSigningRequest) *certsv1.CertificateSigningRequest {
		c = verdict(certsv1.CertificateApproved)(f, c)
		block, _ := pem.Decode(c.Spec.Request)
		request, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			f.t.Error(err)
			return nil
		}
		c.Status.Certificate = f.ca.sign(f.t, &x509.Certificate{
			Subject: request.Subject, DNSNames: request.DNSNames, PublicKey: request.PublicKey,
			NotBefore: time.Now().Add(-before), NotAfter: time.Now().Add(after),
		}, changes...)
		return c
	}
}

type testCA struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newCA(t *testing.T) *testCA {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &testCA{certificate, key, pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: der})}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign completes a template, which has at least its PublicKey, to a client
// certificate.
func (ca *testCA) sign(t *testing.T, template *x509.Certificate, changes ...func(*x509.Certificate)) []byte {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Error(err)
	}
	template.SerialNumber = serial
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for _, change := range changes {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, template.PublicKey, ca.key)
	if err != nil {
		t.Error(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: der})
}

// run starts a Renewer on a fake API; stop ends it and waits. To be called inside
// of a bubble.
func run(t *testing.T, f *fakeAPI, change ...func(*Options)) (r *Renewer, logs *expect.Log, stop func()) {
	t.Helper()
	r, logs = newTestRenewer(f, change...)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, func() {}) }()
	return r, logs, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		f.answering.Wait()
	}
}

func newTestRenewer(f *fakeAPI, change ...func(*Options)) (*Renewer, *expect.Log) {
	logs := &expect.Log{}
	o := Options{
		Client: f, NodeName: testNode, CommonName: testCN, SignerName: certsv1.KubeAPIServerClientSignerName,
		OwnSigner: "chandler.dev/scraper-client", Duration: time.Hour, Trust: Trust{ClusterCA: f.ca.pem},
		Mode: 0o440, UID: -1, GID: -1, Log: slog.New(slog.NewTextHandler(logs, nil)), Metrics: prometheus.NewRegistry(),
	}
	for _, c := range change {
		c(&o)
	}
	return New(o), logs
}

// orphanOf is an undecided request as another run would have left it.
func orphanOf(t *testing.T, name, commonName, signer, user, node string) *certsv1.CertificateSigningRequest {
	t.Helper()
	made, err := newRequest(commonName, testNode)
	if err != nil {
		t.Fatal(err)
	}
	return &certsv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{LabelNode: testNode}},
		Spec: certsv1.CertificateSigningRequestSpec{
			Request: made.pkcs10, SignerName: signer, Username: user, Extra: map[string]certsv1.ExtraValue{claimNode: {node}},
		},
	}
}
