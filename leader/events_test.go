package leader

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// TestEventsAreCreatedAlone: what says something else is an Event of its own, what
// repeats is one every 45 minutes, and none is ever patched.
func TestEventsAreCreatedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		var notes []string
		client.PrependReactor("*", "events", func(action clienttesting.Action) (bool, runtime.Object, error) {
			created, ok := action.(clienttesting.CreateActionImpl)
			if !ok {
				t.Errorf("got %s, want creates alone", action.GetVerb())
				return true, nil, nil
			}
			event, ok := created.Object.(*eventsv1.Event)
			if !ok || event.Namespace != "team-a" || event.ReportingController != FieldManager || event.ReportingInstance != "pod-0" {
				t.Errorf("got %v, want it in the namespace of what it is about, from us", created.Object)
			} else {
				notes = append(notes, event.Note)
			}
			return true, event, nil
		})
		dropped := 0
		recorder, stop := NewRecorder(context.Background(), client.EventsV1(), "pod-0", func() { dropped++ }, slog.New(slog.DiscardHandler))
		about := &corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Name: "team-a", Namespace: "team-a"}
		tell := func(note string) { recorder.Eventf(about, nil, corev1.EventTypeWarning, "Failed", "Renew", "%s", note) }
		for range 10 {
			tell("one registry")
			tell("another registry")
			idle(time.Minute)
		}
		idle(repeatInterval)
		tell("one registry")
		idle(time.Second)
		if want := []string{"one registry", "another registry", "one registry"}; !slices.Equal(notes, want) {
			t.Errorf("got %q, want %q", notes, want)
		}
		for n := range 100 {
			tell(string(rune('a' + n)))
		}
		stop()
		stop()
		tell("after the end")
		if len(notes) != 3+eventBurst || dropped != 100-eventBurst {
			t.Errorf("got %d written and %d dropped, want a burst of %d", len(notes)-3, dropped, eventBurst)
		}
	})
}
