package fakeaws

import (
	"crypto/rand"
	"encoding/hex"
	"io"
	"net/http"
)

// maxBodyBytes is the largest request of any of these services, the 1 MB of
// CloudWatch's PutMetricData, with room.
const maxBodyBytes = 2 << 20

// service is one AWS API behind Server.URL. All share one address, so each
// tells its requests from the others' by their shape.
type service struct {
	name       string // also the service that requests must be signed for
	claim      func(r *http.Request, body []byte) (operation string, ok bool)
	operations map[string]operation
	codec      codec
}

// operation answers one request. Its result is what the service's codec
// encodes.
type operation struct {
	unsigned bool
	run      func(request) (result any, refused *apiError)
}

// request is what an operation gets to see.
type request struct {
	call     Call
	keys     Keys // of the signer; zero for unsigned operations
	body     []byte
	encoding string // Content-Encoding of body, e.g. "gzip"
}

// codec is a wire protocol: how results are written, and how each Kind is
// worded.
type codec interface {
	reply(w http.ResponseWriter, operation, requestID string, result any)
	refuse(w http.ResponseWriter, requestID string, e *apiError)
	wording(k Kind, c Call) *apiError
	unknownOperation(name string) *apiError
}

// apiError is an error as it goes over the wire.
type apiError struct {
	status  int
	code    string // e.g. "ThrottlingException"
	message string
}

func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err != nil {
		http.Error(w, "unreadable request body", http.StatusBadRequest)
		return
	}
	svc, name, ok := s.route(r, body)
	if !ok {
		http.Error(w, "no such service", http.StatusNotFound)
		return
	}
	id := requestID()
	w.Header().Set("X-Amzn-Requestid", id)
	w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
	result, refused, over := s.answer(w, r, svc, name, body)
	switch {
	case over:
	case refused != nil:
		svc.codec.refuse(w, id, refused)
	default:
		svc.codec.reply(w, name, id, result)
	}
}

func (s *Server) route(r *http.Request, body []byte) (svc service, operation string, ok bool) {
	for _, svc := range s.services {
		if operation, ok := svc.claim(r, body); ok {
			return svc, operation, true
		}
	}
	return service{}, "", false
}

// answer runs one call. It says that the call is over when there is nothing
// left to write.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, svc service, name string, body []byte) (result any, refused *apiError, over bool) {
	auth := parseAuthorization(r)
	call := Call{
		Service:   svc.name,
		Operation: name,
		Region:    auth.region,
		Caller:    auth.accessKeyID,
		Principal: s.principal(auth.accessKeyID),
	}
	kind, goOn := s.suffer(w, r, call)
	if !goOn {
		return nil, nil, true
	}
	if kind != None {
		return nil, svc.codec.wording(kind, call), false
	}
	op, ok := svc.operations[name]
	if !ok {
		return nil, svc.codec.unknownOperation(name), false
	}
	req := request{call: call, body: body, encoding: r.Header.Get("Content-Encoding")}
	if !op.unsigned {
		req.keys, refused = s.authenticate(r, body, auth, call, svc.codec)
		if refused != nil {
			return nil, refused, false
		}
	}
	result, refused = op.run(req)
	return result, refused, false
}

// requestID returns a fresh identifier in the form of AWS's.
func requestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	x := hex.EncodeToString(b[:])
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}
