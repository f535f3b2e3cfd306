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
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const (
	// longestPut covers the SDK's three attempts and its pauses of up to 6 s.
	longestPut  = 25 * time.Second
	shortestPut = time.Second

	firstRetry  = time.Second
	lastRetry   = 15 * time.Second
	deniedRetry = 5 * time.Minute // what only a person can mend

	complainAgain = 10 * time.Minute // the same failure is logged once in this time
	maxMessage    = 300              // bytes of a message of AWS
)

// The dimensions of a single target.
const (
	dimensionKind      = "Kind"
	dimensionNamespace = "Namespace"
	dimensionName      = "Name"
	ratioSuffix        = "Ratio"
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
	if !p.opts.PerTarget {
		return list
	}
	for i, t := range targets {
		v := found.verdicts[i]
		if v.state == unknown {
			continue
		}
		of := dimensions(append([]Dimension{
			{dimensionKind, t.Kind}, {dimensionNamespace, t.Namespace}, {dimensionName, t.label()},
		}, p.opts.Metric.Dimensions...))
		value := 0.0
		if v.state == healthy {
			value = 1
		}
		list = append(list, p.datum("", value, at, of))
		if p.opts.Ratio {
			list = append(list, p.datum(ratioSuffix, v.ratio, at, of))
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
	p.report(err)
	return outcome(err)
}

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
		return deniedRetry/2 + rand.N(deniedRetry/2)
	}
	delay := min(firstRetry<<min(failures-1, 6), lastRetry)
	return delay/2 + rand.N(delay/2)
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
	result := outcome(err)
	if result == p.complaint && time.Now().Before(p.complain) {
		return
	}
	p.complaint, p.complain = result, time.Now().Add(complainAgain)
	p.log.Error("publish to CloudWatch", "result", result, "err", describe(err))
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
