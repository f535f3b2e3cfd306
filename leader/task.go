package leader

import (
	"context"
	"errors"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// TaskLabel is the label key that everything the leader makes carries; its
// value is the task's name, e.g. "pullsecrets".
const TaskLabel = "chandler.dev/task"

// ErrPermanent marks a failure of Sync that only a new event can help, such as
// a malformed Secret. The runner logs and counts it but does not retry the key.
var ErrPermanent = errors.New("permanent")

// Task is one cluster chore. The runner owns queueing, timeouts, retries,
// metrics, panics and logs; a Task compares and corrects. A Task belongs to one
// term: it may keep the clients of the Term that it was built with.
type Task interface {
	// Name labels metrics and logs, e.g. "pullsecrets". It is constant, not
	// empty, and no other task has it.
	Name() string

	// Watch asks in for informers and adds handlers that only call enqueue. It is
	// called once, before the informers start; workers start once the informers
	// that it asked for have synced, but for those whose Selection is Optional. It
	// neither blocks nor does I/O. An error
	// ends this task for the term, not the others.
	Watch(in Informers, enqueue func(key string)) error

	// Sync makes the thing named by key right. It must stay correct if repeated
	// and if another leader does the same for a moment. Syncs of one key never
	// overlap; those of different keys do. ctx ends with the Sync's deadline or
	// the term, whichever is first.
	//
	// again asks for another Sync after that time, zero for none; it replaces what
	// an earlier Sync of the key asked for. With an error it is ignored: the key
	// backs off, up to five minutes, unless the error wraps ErrPermanent.
	Sync(ctx context.Context, key string) (again time.Duration, err error)
}

// Permitted is implemented by a Task that names the permissions it needs. At the start of
// a term, and every ten minutes, the API server is asked for each; every
// missing one is logged and counted; the task runs regardless.
type Permitted interface {
	Permissions() []authorizationv1.ResourceAttributes
}

// OnChange returns a handler that calls changed with every object that was
// added, updated or deleted, and with both states of an updated one, since they
// may belong to different keys. It unwraps cache.DeletedFinalStateUnknown.
// Objects are shared and must not be modified.
func OnChange(changed func(obj metav1.Object)) cache.ResourceEventHandler {
	call := func(obj any) {
		if final, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = final.Obj
		}
		if object, ok := obj.(metav1.Object); ok {
			changed(object)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    call,
		UpdateFunc: func(before, after any) { call(before); call(after) },
		DeleteFunc: call,
	}
}
