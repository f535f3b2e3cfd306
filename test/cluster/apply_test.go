package cluster_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/chandler-k8s/chandler/test/cluster"
)

const definition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: buoys.sea.example.com}
spec:
  group: sea.example.com
  scope: Namespaced
  names: {kind: Buoy, plural: buoys, singular: buoy}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {depth: {type: integer, format: int64}}
---
# A comment between two separators is no object.
---
apiVersion: sea.example.com/v1
kind: Buoy
metadata: {name: north}
spec: {depth: 9007199254740993}
`

func testApplyDefinition(t *testing.T, c *cluster.Cluster) {
	for _, round := range []string{"first", "again"} {
		if err := c.Apply(t.Context(), []byte(definition)); err != nil {
			t.Fatalf("%s: %v", round, err)
		}
	}
	client, err := dynamic.NewForConfig(c.Admin())
	if err != nil {
		t.Fatal(err)
	}
	buoys := schema.GroupVersionResource{Group: "sea.example.com", Version: "v1", Resource: "buoys"}
	buoy, err := client.Resource(buoys).Namespace("default").Get(t.Context(), "north", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spec, _ := buoy.Object["spec"].(map[string]any)
	if got, want := spec["depth"], int64(9007199254740993); got != want {
		t.Errorf("depth: got %v, want %d", got, want)
	}
}

func testApplyRefuses(t *testing.T, c *cluster.Cluster) {
	cases := map[string]string{
		"a kind that nobody defined": `{apiVersion: sea.example.com/v1, kind: Kraken, metadata: {name: a}}`,
		"an unknown field":           `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, dada: {}}`,
		"a missing namespace":        `{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: absent}}`,
		"a duplicate key":            "{apiVersion: v1, kind: ConfigMap, kind: ConfigMap, metadata: {name: a}}",
		"no kind":                    `{apiVersion: v1, metadata: {name: a}}`,
		"no name":                    `{apiVersion: v1, kind: ConfigMap, metadata: {namespace: default}}`,
	}
	for name, manifest := range cases {
		t.Run(name, func(t *testing.T) {
			if err := c.Apply(t.Context(), []byte(manifest)); err == nil {
				t.Error("got no error")
			} else {
				t.Log(err)
			}
		})
	}
}
