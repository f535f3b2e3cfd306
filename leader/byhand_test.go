package leader_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/test/expect"
)

// testMadeByHand: the API server stamps no write to a Lease that was made without a
// field, so nobody can take it; the log tells what helps.
func (w *world) testMadeByHand(t *testing.T) {
	_, err := w.admin.CoordinationV1().Leases(namespace).Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: lease}}, metav1.CreateOptions{})
	expect.OK(t, err)
	logs := &expect.Log{}
	w.start(t, "a", func(o *leader.Options) { o.Log = slog.New(slog.NewTextHandler(logs, nil)) })
	expect.Within(t, 30*time.Second, func() error {
		if !strings.Contains(logs.String(), "kubectl delete lease --namespace chandler chandler") {
			return errors.New("the log does not name the remedy:\n" + logs.String())
		}
		return nil
	})
	w.vacate(t)
	w.awaitHolder(t, "a")
}
