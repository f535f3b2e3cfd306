package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	sigsyaml "sigs.k8s.io/yaml"
)

// fieldManager owns the fields that Apply sets.
const fieldManager = "chandler-test"

// establishing bounds the wait for a CustomResourceDefinition to be served.
const establishing = 30 * time.Second

// errNotServed says that a kind is defined but not served yet.
var errNotServed = errors.New("the kind is defined but not served yet")

// ApplyFiles applies the manifests of files; see Apply.
func (c *Cluster) ApplyFiles(ctx context.Context, paths ...string) error {
	for _, path := range paths {
		manifest, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("apply: %w", err)
		}
		if err := c.Apply(ctx, manifest); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// Apply applies every YAML or JSON document of the manifests in their order, by
// server-side apply as the administrator, taking over fields that others own. A
// List stands for its items, an object without a namespace goes to "default".
// Objects of a kind whose CustomResourceDefinition was made just before are
// retried until it is served. Unknown fields are errors.
func (c *Cluster) Apply(ctx context.Context, manifests ...[]byte) error {
	for _, manifest := range manifests {
		objects, err := decode(manifest)
		if err != nil {
			return fmt.Errorf("apply: %w", err)
		}
		for _, object := range objects {
			if err := c.applyServed(ctx, object); err != nil {
				return fmt.Errorf("apply %s %s: %w", object.GetKind(), qualified(object), err)
			}
		}
	}
	return nil
}

func qualified(object *unstructured.Unstructured) string {
	if namespace := object.GetNamespace(); namespace != "" {
		return namespace + "/" + object.GetName()
	}
	return object.GetName()
}

func decode(manifest []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifest)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		data, err := sigsyaml.YAMLToJSONStrict(document)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(data, []byte("null")) {
			continue
		}
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(data); err != nil {
			return nil, err
		}
		if !object.IsList() {
			objects = append(objects, object)
			continue
		}
		list, err := object.ToList()
		if err != nil {
			return nil, err
		}
		for i := range list.Items {
			objects = append(objects, &list.Items[i])
		}
	}
}

// applyServed applies one object, waiting for its kind to be served.
func (c *Cluster) applyServed(ctx context.Context, object *unstructured.Unstructured) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, establishing, true, func(ctx context.Context) (bool, error) {
		last = c.applyOne(ctx, object)
		if errors.Is(last, errNotServed) {
			return false, nil
		}
		return true, last
	})
	if wait.Interrupted(err) {
		return errors.Join(err, last)
	}
	return err
}

func (c *Cluster) applyOne(ctx context.Context, object *unstructured.Unstructured) error {
	resource, err := c.resource(ctx, object)
	if err != nil {
		return err
	}
	// The typed options of Apply have no field validation, which is what refuses
	// unknown fields.
	data, err := object.MarshalJSON()
	if err != nil {
		return err
	}
	force := true
	_, err = resource.Patch(ctx, object.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{
		FieldManager: fieldManager, Force: &force, FieldValidation: metav1.FieldValidationStrict,
	})
	if apierrors.IsNotFound(err) && !namespaceMissing(err) {
		// Discovery lists a new kind a little before it is served.
		return errors.Join(err, errNotServed)
	}
	return err
}

func namespaceMissing(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	return ok && status.ErrStatus.Details != nil && status.ErrStatus.Details.Kind == "namespaces"
}

// resource finds where objects of this kind are kept, or returns errNotServed.
func (c *Cluster) resource(ctx context.Context, object *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	kind := object.GroupVersionKind()
	mapping, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		c.mapper.Reset()
		defined, lookupErr := c.defined(ctx, kind.GroupKind())
		if lookupErr != nil {
			return nil, errors.Join(err, lookupErr)
		}
		if defined {
			return nil, errors.Join(err, errNotServed)
		}
	}
	if err != nil {
		return nil, err
	}
	resource := c.dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return resource, nil
	}
	if object.GetNamespace() == "" {
		object.SetNamespace(metav1.NamespaceDefault)
	}
	return resource.Namespace(object.GetNamespace()), nil
}

// defined tells whether a CustomResourceDefinition of this kind exists.
func (c *Cluster) defined(ctx context.Context, kind schema.GroupKind) (bool, error) {
	definitions, err := c.dynamic.Resource(schema.GroupVersionResource{
		Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions",
	}).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, err
	}
	for _, definition := range definitions.Items {
		group, _, _ := unstructured.NestedString(definition.Object, "spec", "group")
		name, _, _ := unstructured.NestedString(definition.Object, "spec", "names", "kind")
		if group == kind.Group && name == kind.Kind {
			return true, nil
		}
	}
	return false, nil
}
