package cluster

import "testing"

// ForTest starts a control plane that ends with the test and its subtests. A
// start that fails ends the test with the end of the failing component's log, and
// a test that fails gets the ends of all logs. Starting takes some four seconds,
// so let the subtests of one test share a cluster. The first start on a machine
// builds the binaries, for longer than `go test` allows a package by default;
// `go run ./test/cluster/cmd/cluster binaries` beforehand avoids that.
func ForTest(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Log == nil {
		o.Log = t.Output()
	}
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatalf("test/cluster: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("control plane logs:\n%s", c.Logs(15))
		}
		if err := c.Stop(); err != nil {
			t.Errorf("test/cluster: stop: %v", err)
		}
	})
	return c
}
