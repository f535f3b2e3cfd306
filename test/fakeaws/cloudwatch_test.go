package fakeaws_test

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/google/go-cmp/cmp"

	"github.com/chandler-k8s/chandler/test/fakeaws"
)

func put(ctx context.Context, cfg aws.Config, namespace string, data ...types.MetricDatum) error {
	_, err := cloudwatch.NewFromConfig(cfg).PutMetricData(ctx, &cloudwatch.PutMetricDataInput{
		Namespace: aws.String(namespace), MetricData: data,
	})
	return err
}

func datum(name string, value float64, at time.Time, dimensions ...string) types.MetricDatum {
	d := types.MetricDatum{MetricName: aws.String(name), Value: aws.Float64(value), Timestamp: aws.Time(at)}
	for i := 0; i < len(dimensions); i += 2 {
		d.Dimensions = append(d.Dimensions, types.Dimension{Name: aws.String(dimensions[i]), Value: aws.String(dimensions[i+1])})
	}
	return d
}

func TestPutMetricDataIsReadBack(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	k := s.NewKeys("ci")
	cfg := signWith(loadConfig(t, s.Env()), k)
	minute := time.Now().UTC().Truncate(time.Minute)
	for _, d := range []types.MetricDatum{
		datum("Healthy", 1, minute.Add(time.Second), "Cluster", "a"),
		datum("Healthy", 0, minute.Add(2*time.Second), "Cluster", "a"),
		datum("Healthy", 1, minute.Add(-time.Minute), "Cluster", "a"),
		datum("Healthy", 7, minute, "Cluster", "b"),
		datum("Healthy", 8, minute),
	} {
		if err := put(t.Context(), cfg, "Kubernetes", d); err != nil {
			t.Fatal(err)
		}
	}
	call := fakeaws.Call{
		Service: fakeaws.ServiceCloudWatch, Operation: "PutMetricData", Region: "eu-west-1", Caller: k.AccessKeyID, Principal: k.ARN,
	}
	want := fakeaws.Datum{
		Call: call, Request: 1, Namespace: "Kubernetes", Name: "Healthy",
		Dimensions: map[string]string{"Cluster": "a"}, Value: 1, Timestamp: minute.Add(time.Second),
	}
	if diff := cmp.Diff(s.Data()[0], want); diff != "" {
		t.Errorf("first datum (-got +want):\n%s", diff)
	}
	out, err := cloudwatch.NewFromConfig(cfg).GetMetricStatistics(t.Context(), &cloudwatch.GetMetricStatisticsInput{
		Namespace: aws.String("Kubernetes"), MetricName: aws.String("Healthy"), Period: aws.Int32(60),
		StartTime: aws.Time(minute.Add(-time.Hour)), EndTime: aws.Time(minute.Add(time.Minute)),
		Statistics: []types.Statistic{types.StatisticMinimum, types.StatisticSampleCount},
		Dimensions: []types.Dimension{{Name: aws.String("Cluster"), Value: aws.String("a")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, p := range out.Datapoints {
		got = append(got, fmt.Sprint(p.Timestamp.Sub(minute), " ", *p.Minimum, " of ", *p.SampleCount))
	}
	if diff := cmp.Diff(got, []string{"-1m0s 1 of 1", "0s 0 of 2"}); diff != "" {
		t.Errorf("statistics (-got +want):\n%s", diff)
	}
}

// TestLargePutIsCompressed proves that a compressed body is checked as it was
// signed, and read.
func TestLargePutIsCompressed(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	cfg := signWith(loadConfig(t, s.Env()), s.NewKeys("ci"))
	seen := &encodings{}
	cfg.HTTPClient = seen
	var data []types.MetricDatum
	for i := range 1000 {
		data = append(data, datum("Healthy", float64(i), time.Now(), "Name", fmt.Sprint("target-", i)))
	}
	if err := put(t.Context(), cfg, "Kubernetes", data[0]); err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), cfg, "Kubernetes", data...); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(seen.all, []string{"", "gzip"}); diff != "" {
		t.Errorf("content encodings (-got +want):\n%s", diff)
	}
	got := s.Data()
	if len(got) != 1001 || got[1000].Value != 999 || got[1000].Request != 2 {
		t.Errorf("got %d data, the last %+v; want 1,001 and the last of request 2 with value 999", len(got), got[len(got)-1])
	}
}

type encodings struct{ all []string }

func (e *encodings) Do(r *http.Request) (*http.Response, error) {
	e.all = append(e.all, r.Header.Get("Content-Encoding"))
	return http.DefaultClient.Do(r)
}

func TestPutMetricDataRefusals(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	k := s.NewKeys("ci")
	cfg := signWith(loadConfig(t, s.Env()), k)
	wrong := k
	wrong.SecretAccessKey = "x"
	ok := datum("Healthy", 1, time.Now())
	many := make([]types.MetricDatum, 1001)
	for i := range many {
		many[i] = ok
	}
	var wide []string
	for i := range 31 {
		wide = append(wide, fmt.Sprint("d", i), "v")
	}
	for name, test := range map[string]struct {
		cfg       aws.Config
		namespace string
		data      []types.MetricDatum
		fault     fakeaws.Kind
		want      string
	}{
		"nothing wrong":        {namespace: "K", data: []types.MetricDatum{ok}},
		"no data":              {namespace: "K", want: "MissingParameter"},
		"reserved namespace":   {namespace: "AWS/X", data: []types.MetricDatum{ok}, want: "InvalidParameterValue"},
		"namespace with colon": {namespace: ":K", data: []types.MetricDatum{ok}, want: "InvalidParameterValue"},
		"too many data":        {namespace: "K", data: many, want: "InvalidParameterValue"},
		"too many dimensions":  {namespace: "K", data: []types.MetricDatum{datum("H", 1, time.Now(), wide...)}, want: "InvalidParameterValue"},
		"blank dimension":      {namespace: "K", data: []types.MetricDatum{datum("H", 1, time.Now(), "a", " ")}, want: "InvalidParameterValue"},
		"repeated dimension":   {namespace: "K", data: []types.MetricDatum{datum("H", 1, time.Now(), "a", "1", "a", "2")}, want: "InvalidParameterValue"},
		"long name":            {namespace: "K", data: []types.MetricDatum{datum(strings.Repeat("x", 256), 1, time.Now())}, want: "InvalidParameterValue"},
		"not a number":         {namespace: "K", data: []types.MetricDatum{datum("H", math.NaN(), time.Now())}, want: "InvalidParameterValue"},
		"three weeks old":      {namespace: "K", data: []types.MetricDatum{datum("H", 1, time.Now().Add(-21*24*time.Hour))}, want: "InvalidParameterValue"},
		"three hours ahead":    {namespace: "K", data: []types.MetricDatum{datum("H", 1, time.Now().Add(3*time.Hour))}, want: "InvalidParameterValue"},
		"throttled":            {namespace: "K", data: []types.MetricDatum{ok}, fault: fakeaws.Throttled, want: "Throttling"},
		"denied":               {namespace: "K", data: []types.MetricDatum{ok}, fault: fakeaws.AccessDenied, want: "AccessDenied"},
		"server error":         {namespace: "K", data: []types.MetricDatum{ok}, fault: fakeaws.ServerError, want: "InternalFailure"},
		"outage":               {namespace: "K", data: []types.MetricDatum{ok}, fault: fakeaws.Unreachable, want: "other"},
		"wrong secret key":     {cfg: signWith(cfg, wrong), namespace: "K", data: []types.MetricDatum{ok}, want: "SignatureDoesNotMatch"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.fault != fakeaws.None {
				t.Cleanup(s.Inject(fakeaws.Fault{Calls: fakeaws.Call{Service: fakeaws.ServiceCloudWatch}, Kind: test.fault}))
			}
			use := cfg
			if test.cfg.Credentials != nil {
				use = test.cfg
			}
			before := len(s.Data())
			err := put(t.Context(), use, test.namespace, test.data...)
			if got := code(err); got != test.want {
				t.Errorf("got code %q of %v, want %q", got, err, test.want)
			}
			if got := len(s.Data()) - before; (got > 0) != (test.want == "") {
				t.Errorf("got %d data more", got)
			}
		})
	}
}

func TestCloudWatchBodyThatIsNoCBOR(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		s.URL()+"/service/GraniteServiceVersion20100801/operation/PutMetricData", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Smithy-Protocol", "rpc-v2-cbor")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if diff := cmp.Diff(resp.Header.Get("X-Amzn-Query-Error"), "MissingAuthenticationToken;Sender"); diff != "" {
		t.Errorf("error of an unsigned call (-got +want):\n%s", diff)
	}
}
