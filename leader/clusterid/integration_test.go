package clusterid_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/leader/clusterid"
	"github.com/chandler-k8s/chandler/node/identity"
	"github.com/chandler-k8s/chandler/test/cluster"
	"github.com/chandler-k8s/chandler/test/expect"
	"github.com/chandler-k8s/chandler/test/fixtures"
	"github.com/chandler-k8s/chandler/test/term"
)

const patience = time.Minute

// TestAgainstAPIServer has a node that eksctl labelled and one that it did not, under
// the leader's rights of deploy/.
func TestAgainstAPIServer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane")
	}
	c := cluster.ForTest(t, cluster.Options{})
	expect.OK(t, fixtures.Deploy(t.Context(), c))
	expect.OK(t, fixtures.Apply(t.Context(), c, "eks", "kubeadm"))
	admin := kubernetes.NewForConfigOrDie(c.Admin())
	// The policy of the leader's token denies everybody while there is no Lease.
	_, err := admin.CoordinationV1().Leases(fixtures.Namespace).Create(t.Context(),
		&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "chandler"}}, metav1.CreateOptions{})
	expect.OK(t, err)
	var config *rest.Config
	expect.Within(t, patience, func() (err error) {
		config, err = c.AsServiceAccount(t.Context(), fixtures.Namespace, "chandler-leader")
		return err
	})
	asked := make(chan struct{}, 1)
	start := func(shared bool) *term.Term {
		return term.Run(t, config, fixtures.Namespace, func(about leader.Term) (leader.Task, error) {
			return clusterid.New(about, clusterid.Options{IDOf: identity.ByMetadata, DaemonSet: "chandler", Shared: func() (bool, bool) {
				asked <- struct{}{}
				return shared, true
			}}), nil
		})
	}
	quiet := start(true)
	<-asked
	quiet.Stop()
	if strings.Contains(quiet.Log.String(), "nodes may find") {
		t.Error("it warns although all nodes share a source")
	}
	loud := start(false)
	<-asked
	difference := "none: 1 Node(s), e.g. " + fixtures.KubeadmNode + "; payments: 1 Node(s), e.g. " + fixtures.EKSNode
	expect.Within(t, patience, func() error {
		if !strings.Contains(loud.Log.String(), difference) || !strings.Contains(loud.Log.String(), "set identity.clusterID") {
			return fmt.Errorf("the log does not say %q", difference)
		}
		return nil
	})
	expect.Within(t, patience, func() error {
		list, err := admin.EventsV1().Events(fixtures.Namespace).List(t.Context(), metav1.ListOptions{})
		for _, e := range list.Items {
			if e.Reason == "ClusterIDsMayDiffer" && e.Regarding.Name == "chandler" && strings.Contains(e.Note, difference) {
				return nil
			}
		}
		return fmt.Errorf("no Event about it: %w", err)
	})
}
