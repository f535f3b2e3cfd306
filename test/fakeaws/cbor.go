package fakeaws

import (
	"net/http"

	"github.com/fxamacker/cbor/v2"
)

const protocolCBOR = "rpc-v2-cbor"

// cborCodec is Smithy RPC v2 CBOR of a service that once spoke awsQuery: the code
// of an error is that of awsQuery, in a header.
type cborCodec struct{}

func (cborCodec) reply(w http.ResponseWriter, _, _ string, result any) {
	writeCBOR(w, http.StatusOK, result)
}

func (cborCodec) refuse(w http.ResponseWriter, _ string, e *apiError) {
	fault := "Sender"
	if e.status >= http.StatusInternalServerError {
		fault = "Receiver"
	}
	w.Header().Set("X-Amzn-Query-Error", e.code+";"+fault)
	writeCBOR(w, e.status, map[string]string{"__type": "com.amazonaws.cloudwatch#" + e.code, "message": e.message})
}

func writeCBOR(w http.ResponseWriter, status int, v any) {
	// Times are tag 1 with seconds since 1970, as the protocol has them.
	mode, err := cbor.EncOptions{Time: cbor.TimeUnixMicro, TimeTag: cbor.EncTagRequired}.EncMode()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	data, err := mode.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/cbor")
	w.Header().Set("Smithy-Protocol", protocolCBOR)
	w.WriteHeader(status)
	_, _ = w.Write(data) // the client went away
}

func (cborCodec) wording(k Kind, c Call) *apiError { return queryCodec{}.wording(k, c) }

func (cborCodec) unknownOperation(name string) *apiError {
	return &apiError{http.StatusBadRequest, "UnknownOperationException", "no operation " + name}
}
