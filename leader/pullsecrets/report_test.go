package pullsecrets

import (
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/events"

	"github.com/chandler-k8s/chandler/leader"
)

// TestProblemsAreToldAgain: once when they appear, every 45 minutes while they last,
// and not all at the same time.
func TestProblemsAreToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		recorder := events.NewFakeRecorder(1000)
		r := newReport(leader.Term{Events: recorder, Log: slog.New(slog.DiscardHandler)})
		warn := func(n int) {
			name := fmt.Sprintf("team-%d", n)
			r.warn("label "+name, namespaceReference(name), reasonLabel, "malformed")
		}
		told := func(during time.Duration) (count, most int) {
			for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(remindInterval) {
				before := len(recorder.Events)
				r.remind()
				most = max(most, len(recorder.Events)-before)
			}
			count = len(recorder.Events)
			for range count {
				<-recorder.Events
			}
			return count, most
		}
		for n := range 100 {
			warn(n)
			warn(n)
		}
		if got, _ := told(eventInterval - time.Minute); got != 100 {
			t.Errorf("got %d Events, want each of 100 problems told once", got)
		}
		r.clear("label team-7")
		if got, most := told(20 * time.Minute); got != 99 || most > remindMost {
			t.Errorf("got %d Events, %d at once, want 99 problems told again, %d at once", got, most, remindMost)
		}
	})
}
