package clusterstatus

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const (
	// longestPut covers the SDK's three attempts and its pauses of up to 6 s.
	longestPut  = 25 * time.Second
	shortestPut = time.Second
	// lastMoment is how long a call may outlive its term. It ends before the Lease can
	// be another's, whatever its duration.
	lastMoment = 750 * time.Millisecond

	firstRetry = time.Second
	lastRetry  = 15 * time.Second

	// What only a person can mend is not tried at every tick.
	firstRest   = 5 * time.Second
	longestRest = 5 * time.Minute

	complainAgain = 10 * time.Minute // the same failure is logged once in this time
	maxMessage    = 300              // bytes of a message of AWS
)

var errNoRegion = errors.New("no AWS region known yet: set leader.clusterStatus.region or AWS_REGION")

type metricAPI interface {
	PutMetricData(context.Context, *cloudwatch.PutMetricDataInput, ...func(*cloudwatch.Options)) (*cloudwatch.PutMetricDataOutput, error)
}

// publisher turns findings into calls of PutMetricData.
type publisher struct {
	opts   Options
	log    *slog.Logger
	client metricAPI // nil until there is a region

	denials int       // in a row
	rest    time.Time // no call before this

	complaint string // the failure that was logged last; empty after a success
	complain  time.Time
}

func newPublisher(opts Options, log *slog.Logger) *publisher {
	return &publisher{opts: opts, log: log}
}

// data lists what one call publishes, all with one timestamp. Single targets that
// are unknown have none.
func (p *publisher) data(targets []Target, found finding, at time.Time) []types.MetricDatum {
	own := dimensions(p.opts.Metric.Dimensions)
	list := []types.MetricDatum{p.datum("", found.value, at, own)}
	single := p.opts.PerTarget
	if single == nil {
		return list
	}
	for i, t := range targets {
		v := found.verdicts[i]
		if v.state == unknown {
			continue
		}
		of := dimensions(append([]Dimension{
			{single.Kind, t.Kind}, {single.Namespace, t.Namespace}, {single.Name, t.label()},
		}, p.opts.Metric.Dimensions...))
		value := 0.0
		if v.state == healthy {
			value = 1
		}
		list = append(list, p.datum("", value, at, of))
		if single.Ratio != "" {
			list = append(list, p.datum(single.Ratio, v.ratio, at, of))
		}
	}
	return list
}

func (p *publisher) datum(suffix string, value float64, at time.Time, of []types.Dimension) types.MetricDatum {
	return types.MetricDatum{
		MetricName: aws.String(p.opts.Metric.Name + suffix), Value: aws.Float64(value),
		Timestamp: aws.Time(at), Dimensions: of, Unit: types.StandardUnitNone,
	}
}

func dimensions(list []Dimension) []types.Dimension {
	var out []types.Dimension
	for _, d := range list {
		out = append(out, types.Dimension{Name: aws.String(d.Name), Value: aws.String(d.Value)})
	}
	return out
}

// put makes one call and returns how it ended, as one of the values of the label
// result.
func (p *publisher) put(ctx context.Context, data []types.MetricDatum) string {
	err := p.dial(ctx)
	if err == nil {
		_, err = p.client.PutMetricData(ctx, &cloudwatch.PutMetricDataInput{
			Namespace: aws.String(p.opts.Metric.Namespace), MetricData: data,
		})
	}
	result := outcome(err)
	p.denials++
	if result != putDenied {
		p.denials = 0
	}
	p.rest = time.Now().Add(jitter(rest(p.denials)))
	p.report(err)
	return result
}

// rests reports whether the last calls were denied and the next is not yet due.
func (p *publisher) rests() bool { return time.Now().Before(p.rest) }

func rest(denials int) time.Duration {
	if denials == 0 {
		return 0
	}
	return min(firstRest<<min(denials-1, 6), longestRest)
}

func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// dial makes the client once, since it learns of a wrong clock from every answer.
func (p *publisher) dial(ctx context.Context) error {
	if p.client != nil {
		return nil
	}
	config, err := p.opts.AWS(ctx)
	if err != nil {
		return err
	}
	config.Region = cmp.Or(p.opts.Region, config.Region)
	if config.Region == "" && p.opts.NodeRegion != nil {
		config.Region = p.opts.NodeRegion()
	}
	if config.Region == "" {
		return errNoRegion
	}
	p.client = cloudwatch.NewFromConfig(config)
	return nil
}

// pause is the time until the next attempt of the same tick.
func (p *publisher) pause(outcome string, failures int) time.Duration {
	if outcome == putDenied {
		return time.Until(p.rest)
	}
	return jitter(min(firstRetry<<min(failures-1, 6), lastRetry))
}

func outcome(err error) string {
	if err == nil {
		return putAccepted
	}
	refused, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return putFailed
	}
	if _, throttled := retry.DefaultThrottleErrorCodes[refused.ErrorCode()]; throttled {
		return putThrottled
	}
	answer, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if ok && answer.HTTPStatusCode() < http.StatusInternalServerError {
		return putDenied
	}
	return putFailed
}

// report logs a failure when it is new, and now and then while it lasts, and its
// end.
func (p *publisher) report(err error) {
	if errors.Is(err, context.Canceled) {
		return // the end of the term
	}
	if err == nil {
		if p.complaint != "" {
			p.log.Info("publishing again")
		}
		p.complaint = ""
		return
	}
	result, told := outcome(err), []any{"err", describe(err)}
	complaint := result
	if result == putDenied {
		told = append(told, "remedy", remedy(err))
		complaint = remedy(err)
	}
	if complaint == p.complaint && time.Now().Before(p.complain) {
		return
	}
	p.complaint, p.complain = complaint, time.Now().Add(complainAgain)
	p.log.Error("publish to CloudWatch", append([]any{"result", result}, told...)...)
}

// remedy says what to do about a call that was denied.
func remedy(err error) string {
	refused, _ := errors.AsType[smithy.APIError](err)
	service := "" // the call that failed may be the one for credentials
	for failed, ok := errors.AsType[*smithy.OperationError](err); ok; failed, ok = errors.AsType[*smithy.OperationError](failed.Err) {
		service = failed.ServiceID
	}
	switch code := refused.ErrorCode(); {
	case strings.HasPrefix(code, "AccessDenied") && service == sts.ServiceID:
		return "let the pods' ServiceAccount assume the role: see the role's trust policy"
	case strings.HasPrefix(code, "AccessDenied"):
		return "attach the IAM policy that `chandler alarm` prints to the AWS identity of the pods"
	case strings.HasPrefix(code, "InvalidParameter"), strings.HasPrefix(code, "MissingParameter"):
		return "check leader.clusterStatus.metric"
	}
	return "check the AWS keys or the role of the pods, and the clock of the node"
}

// describe puts an error of AWS in words that are safe to log: the answer to a
// wrong signature quotes the request with its session token.
func describe(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	message := err.Error()
	if refused, ok := errors.AsType[smithy.APIError](err); ok {
		message = refused.ErrorCode()
		if !strings.Contains(message, "Signature") {
			message += ": " + refused.ErrorMessage()
		}
	}
	message, _, _ = strings.Cut(message, "\n")
	return strings.ToValidUTF8(message[:min(len(message), maxMessage)], "")
}
