package clusterstatus

import (
	"context"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/chandler-k8s/chandler/leader"
)

// scripted is an API whose watches a test plays. It never lists: client-go lists by
// watch where it can.
type scripted struct {
	asked chan metav1.ListOptions
	give  chan *watch.FakeWatcher
}

func (s *scripted) List(context.Context, metav1.ListOptions) (*appsv1.DeploymentList, error) {
	panic("not by a list")
}

func (s *scripted) Watch(_ context.Context, o metav1.ListOptions) (watch.Interface, error) {
	s.asked <- o
	return <-s.give, nil
}

func deployed(ready int32, version string) *appsv1.Deployment {
	three := int32(3)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u", Generation: 1, ResourceVersion: version},
		Spec:       appsv1.DeploymentSpec{Replicas: &three},
		Status:     appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: 3, UpdatedReplicas: 3, ReadyReplicas: ready},
	}
}

// listEnd is the bookmark behind the last object of a list by watch.
func listEnd(version string) *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
		ResourceVersion: version, Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
	}}
}

// TestListingAnewIsDoubt: after a watch has expired, what the list before has shown
// means nothing until the next is complete.
func TestListingAnewIsDoubt(t *testing.T) {
	a := &scripted{asked: make(chan metav1.ListOptions, 1), give: make(chan *watch.FakeWatcher)}
	s := &source{}
	s.informer = cache.NewSharedIndexInformer(followed(&s.stream, api[*appsv1.DeploymentList](a), leader.Selection{}), &appsv1.Deployment{}, 0,
		cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	if err := s.informer.SetTransform(trim); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { defer close(ended); s.informer.RunWithContext(ctx) }()
	defer func() { cancel(); <-ended }()
	target := Target{Kind: deployment, Namespace: "shop", Name: "web", Mode: AllOfThem}
	judged := func() verdict {
		found, why := s.find(target, time.Now())
		if why != nil {
			return *why
		}
		return target.judge(found, nil, time.Now())
	}
	await := func(want state) {
		t.Helper()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(time.Minute); judged().state != want; <-tick.C {
			if time.Now().After(end) {
				t.Fatalf("got %+v, want %v", judged(), want)
			}
		}
	}

	<-a.asked
	first := watch.NewFake()
	a.give <- first
	first.Add(deployed(3, "10"))
	first.Action(watch.Bookmark, listEnd("11"))
	await(healthy)
	first.Error(&metav1.Status{Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired, Message: "too old"})
	first.Stop()
	<-a.asked
	if got := judged(); got.state != unknown {
		t.Errorf("expired: got %+v, want nothing known", got)
	}
	second := watch.NewFake()
	a.give <- second
	second.Add(deployed(0, "20")) // taken by the time that this returns
	if got := judged(); got.state != unknown {
		t.Errorf("half listed: got %+v, want nothing known", got)
	}
	second.Action(watch.Bookmark, listEnd("21"))
	await(noneReady)
}
