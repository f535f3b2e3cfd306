package leader

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

func TestOnChange(t *testing.T) {
	object := func(name string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name}}
	}
	for _, test := range []struct {
		name string
		call func(cache.ResourceEventHandler)
		want []string
	}{
		{"added", func(h cache.ResourceEventHandler) { h.OnAdd(object("a"), true) }, []string{"a"}},
		{"updated", func(h cache.ResourceEventHandler) { h.OnUpdate(object("a"), object("b")) }, []string{"a", "b"}},
		{"deleted", func(h cache.ResourceEventHandler) { h.OnDelete(object("a")) }, []string{"a"}},
		{"deleted unseen", func(h cache.ResourceEventHandler) {
			h.OnDelete(cache.DeletedFinalStateUnknown{Key: "ns/a", Obj: object("a")})
		}, []string{"a"}},
		{"no object", func(h cache.ResourceEventHandler) { h.OnDelete(cache.DeletedFinalStateUnknown{Key: "a"}) }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			test.call(OnChange(func(obj metav1.Object) { got = append(got, obj.GetName()) }))
			if !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestStripMetadata(t *testing.T) {
	full := func() *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Annotations:   map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}", "chandler.dev/x": "y"},
			Labels:        map[string]string{"l": "m"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "x"}},
		}}
	}
	for _, test := range []struct {
		name        string
		strip       func(any) (any, error)
		annotations int
	}{
		{"metadata", stripMetadata, 1},
		{"typed", stripManagedFields, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.strip(full())
			if err != nil {
				t.Fatal(err)
			}
			object := got.(*metav1.PartialObjectMetadata)
			if len(object.Annotations) != test.annotations || len(object.Labels) != 1 || object.ManagedFields != nil {
				t.Errorf("got %+v, want %d annotations, the label and no managed fields", object.ObjectMeta, test.annotations)
			}
			if got, err := test.strip("tombstone"); got != "tombstone" || err != nil {
				t.Errorf("of something else: got %v and error %v, want it unchanged", got, err)
			}
		})
	}
}
