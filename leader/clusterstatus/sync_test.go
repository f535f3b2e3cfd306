package clusterstatus

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/chandler-k8s/chandler/leader"
	"github.com/chandler-k8s/chandler/test/expect"
)

// answers is a CloudWatch that counts the calls and answers all alike.
type answers struct {
	calls int
	err   error
}

func (a *answers) PutMetricData(context.Context, *cloudwatch.PutMetricDataInput, ...func(*cloudwatch.Options)) (*cloudwatch.PutMetricDataOutput, error) {
	a.calls++
	return &cloudwatch.PutMetricDataOutput{}, a.err
}

// refusal is an answer as the SDK returns it, of the service that was asked within the
// call to CloudWatch.
func refusal(service, code string, status int) error {
	answer := &smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}}, Err: &smithy.GenericAPIError{Code: code, Message: "no"},
	}
	inner := &smithy.OperationError{ServiceID: service, OperationName: "X", Err: answer}
	return &smithy.OperationError{ServiceID: "CloudWatch", OperationName: "PutMetricData", Err: inner}
}

func renewedNow() (time.Time, bool) { return time.Now(), true }

// TestDenialIsNotRepeatedEachTick: each tick without a datum counts, few make a call,
// and the log says what to do.
func TestDenialIsNotRepeatedEachTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, log := &answers{err: refusal("CloudWatch", "AccessDenied", http.StatusForbidden)}, &expect.Log{}
		p := newPlayer(t, leader.Term{Renewed: renewedNow, Log: slog.New(slog.NewTextHandler(log, nil))}, api, 10*time.Second)
		defer p.stop()
		p.play(t, time.Hour, func() {})
		// 360 ticks; twice as many as pauses of five minutes, and those that grow to it.
		if api.calls > 40 {
			t.Errorf("got %d calls in an hour, want few", api.calls)
		}
		if gaps, _ := expect.Metric(t, p.registry, "chandler_clusterstatus_gaps_total", "reason=denied"); gaps < 358 {
			t.Errorf("got %v gaps, want one for each of 360 ticks", gaps)
		}
		if puts, _ := expect.Metric(t, p.registry, "chandler_clusterstatus_puts_total"); int(puts) != api.calls {
			t.Errorf("got %v calls counted, want %d", puts, api.calls)
		}
		if text := log.String(); !strings.Contains(text, "chandler alarm") || strings.Count(text, "publish to CloudWatch") > 7 {
			t.Errorf("want the remedy, and not more often than every ten minutes; got:\n%s", text)
		}
		api.err = nil
		p.play(t, longestRest+10*time.Second, func() {})
		before := api.calls
		p.play(t, time.Minute, func() {})
		if got := api.calls - before; got < 5 || got > 7 {
			t.Errorf("got %d calls in the minute after it was mended, want one a tick", got)
		}
	})
}

func TestRemedies(t *testing.T) {
	for _, test := range []struct{ service, code, want string }{
		{"CloudWatch", "AccessDenied", "IAM policy"},
		{"CloudWatch", "AccessDeniedException", "IAM policy"},
		{"STS", "AccessDenied", "trust policy"},
		{"CloudWatch", "InvalidParameterValue", "leader.clusterStatus.metric"},
		{"CloudWatch", "ExpiredToken", "clock of the node"},
		{"STS", "InvalidIdentityToken", "clock of the node"},
	} {
		if got := remedy(refusal(test.service, test.code, http.StatusForbidden)); !strings.Contains(got, test.want) {
			t.Errorf("%s of %s: got %q, want it to name the %s", test.code, test.service, got, test.want)
		}
	}
}

// before returns at as it had been read before the clock was set back by so much: its
// wall clock's reading is ahead, its monotonic one is not.
func before(t *testing.T, at time.Time, setBack time.Duration) time.Time {
	t.Helper()
	was := at
	// Bits 30 to 62 of the first word are the seconds: see the source of package time.
	*(*uint64)(unsafe.Pointer(&at)) += uint64(setBack/time.Second) << 30 // two's complement for one set forward
	if at.Sub(was) != 0 || at.Round(0).Sub(was.Round(0)) != setBack {
		t.Fatal("package time keeps its readings in another way")
	}
	return at
}

// TestClockSetBack: neither a renewal nor a sign of a watch is the fresher for it. It
// runs outside of a bubble, whose times have no monotonic reading.
func TestClockSetBack(t *testing.T) {
	const setBack = 10 * time.Minute
	for _, test := range []struct {
		name    string
		renewed func() (time.Time, bool)
		watch   func(*stream)
		want    string // the gap; empty if a datum is published
	}{
		{"not at all", renewedNow, func(*stream) {}, ""},
		{"since the renewal", func() (time.Time, bool) { return before(t, time.Now(), setBack), true }, func(*stream) {}, gapUnvouched},
		{"set forward since the renewal", func() (time.Time, bool) { return before(t, time.Now(), -setBack), true }, func(*stream) {}, gapUnvouched},
		{"since the watch fell silent", renewedNow, func(s *stream) {
			s.marks, s.heard = true, before(t, time.Now().Add(-silence-time.Second), setBack)
		}, gapUnknown},
		{"set forward since the last sign of the watch", renewedNow, func(s *stream) {
			s.marks, s.heard = true, before(t, time.Now(), -setBack)
		}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			api := &answers{}
			p := newPlayer(t, leader.Term{Renewed: test.renewed}, api, time.Hour)
			defer p.stop()
			watched := p.task.sources[0]
			expect.Done(t, time.Minute, func() (bool, string) { return watched.informer.HasSynced(), "nothing is listed" })
			watched.stream.mu.Lock()
			test.watch(&watched.stream)
			watched.stream.mu.Unlock()
			if _, err := p.task.Sync(p.ctx, theKey); err != nil {
				t.Fatal(err)
			}
			if published := api.calls > 0; published != (test.want == "") || test.want != "" && p.task.gap != test.want {
				t.Errorf("got %d calls and gap %q, want gap %q", api.calls, p.task.gap, test.want)
			}
		})
	}
}

// TestConfigurationThatCannotBeLoaded is a gap, until it can be.
func TestConfigurationThatCannotBeLoaded(t *testing.T) {
	p := newPublisher(Options{Region: "eu-west-1", AWS: func(context.Context) (aws.Config, error) {
		return aws.Config{}, errors.New("AWS_MAX_ATTEMPTS=many")
	}}, slog.New(slog.DiscardHandler))
	if got := p.put(t.Context(), nil); got != putFailed || p.rests() {
		t.Errorf("got %s, resting %v; want %s, and to be tried again", got, p.rests(), putFailed)
	}
}
