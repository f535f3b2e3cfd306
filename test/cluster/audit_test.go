package cluster

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRequestsOfLog(t *testing.T) {
	const (
		watch = `{"verb":"watch","requestURI":"/api/v1/pods?watch=1","user":{"username":"ann"},"objectRef":{"resource":"pods"}}`
		token = `{"verb":"create","user":{"username":"system:serviceaccount:a:b","extra":{"authentication.kubernetes.io/pod-name":["p"]}},` +
			`"objectRef":{"resource":"serviceaccounts","namespace":"a","name":"b","subresource":"token"}}`
		lease = `{"verb":"get","user":{"username":"ann"},"objectRef":{"resource":"leases","namespace":"a","apiGroup":"coordination.k8s.io"}}`
		path  = `{"verb":"get","requestURI":"/readyz?verbose","user":{"username":"ann"}}`
	)
	cases := []struct {
		name string
		log  string
		want []Request
	}{
		{"empty", "", nil},
		{"cluster-wide watch", watch + "\n", []Request{{User: "ann", Verb: "watch", Resource: "pods"}}},
		{"subresource by a pod", token + "\n", []Request{{User: "system:serviceaccount:a:b", Pod: "p", Verb: "create", Resource: "serviceaccounts/token", Namespace: "a"}}},
		{"group", lease + "\n", []Request{{User: "ann", Verb: "get", Group: "coordination.k8s.io", Resource: "leases", Namespace: "a"}}},
		{"path", path + "\n", []Request{{User: "ann", Verb: "get", Path: "/readyz"}}},
		{"line being written", path + "\n" + watch[:20], []Request{{User: "ann", Verb: "get", Path: "/readyz"}}},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			var got []Request
			for request, err := range requests(strings.NewReader(test.log)) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, request)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("damaged", func(t *testing.T) {
		for _, err := range requests(strings.NewReader("{]\n")) {
			if err == nil {
				t.Error("got no error")
			}
		}
	})
}
