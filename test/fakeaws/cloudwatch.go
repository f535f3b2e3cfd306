package fakeaws

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Limits of PutMetricData: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html
const (
	maxPutBytes   = 1 << 20
	maxData       = 1000
	maxDimensions = 30
	oldestDatum   = 14 * 24 * time.Hour
	newestDatum   = 2 * time.Hour
)

const pathCloudWatch = "/service/GraniteServiceVersion20100801/operation/"

// Datum is one value that PutMetricData brought.
type Datum struct {
	// Call is the call that brought it.
	Call Call
	// Request is the number of that call among those that were accepted, from 1.
	Request int
	// Namespace and Name are those of the metric.
	Namespace, Name string
	// Dimensions is nil if there are none.
	Dimensions map[string]string
	Value      float64
	// Unit is e.g. "Count". Empty if none was given.
	Unit string
	// Resolution is 1 or 60 seconds; zero means that none was given, which is 60.
	Resolution int
	// Timestamp is the one given, or the time of arrival.
	Timestamp time.Time
}

// Data returns every datum accepted since the start, in the order of arrival.
func (s *Server) Data() []Datum {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.data)
}

func (s *Server) cloudWatch() service {
	return service{
		name:  ServiceCloudWatch,
		claim: claimPath(pathCloudWatch),
		codec: cborCodec{},
		operations: map[string]operation{
			"PutMetricData":       {run: s.putMetricData},
			"GetMetricStatistics": {run: s.getMetricStatistics},
		},
	}
}

// claimPath claims the requests of Smithy RPC v2 under a path that ends with the
// operation.
func claimPath(prefix string) func(*http.Request, []byte) (string, bool) {
	return func(r *http.Request, _ []byte) (string, bool) {
		name, ok := strings.CutPrefix(r.URL.Path, prefix)
		return name, ok && r.Method == http.MethodPost && r.Header.Get("Smithy-Protocol") == protocolCBOR
	}
}

type dimension struct{ Name, Value string }

type metricDatum struct {
	MetricName        string
	Dimensions        []dimension
	Value             *float64
	Unit              string
	StorageResolution int
	Timestamp         time.Time
}

func (s *Server) putMetricData(r request) (any, *apiError) {
	var in struct {
		Namespace  string
		MetricData []metricDatum
	}
	if refused := decodeCBOR(r, &in); refused != nil {
		return nil, refused
	}
	if refused := s.checkData(in.Namespace, in.MetricData); refused != nil {
		return nil, refused
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.puts++
	for _, d := range in.MetricData {
		s.data = append(s.data, Datum{
			Call: r.call, Request: s.puts, Namespace: in.Namespace, Name: d.MetricName, Dimensions: dimensions(d.Dimensions),
			Value: *d.Value, Unit: d.Unit, Resolution: d.StorageResolution, Timestamp: cmp.Or(d.Timestamp, time.Now().Add(s.offset)),
		})
	}
	return struct{}{}, nil
}

func dimensions(list []dimension) map[string]string {
	var m map[string]string
	for _, d := range list {
		if m == nil {
			m = map[string]string{}
		}
		m[d.Name] = d.Value
	}
	return m
}

// checkData refuses what CloudWatch refuses.
func (s *Server) checkData(namespace string, data []metricDatum) *apiError {
	switch {
	case namespace == "" || len(namespace) > 255 || strings.HasPrefix(namespace, ":"):
		return invalidParameter("The value for parameter Namespace is invalid.")
	case strings.HasPrefix(namespace, "AWS/"):
		return invalidParameter("The value AWS/ for parameter Namespace is invalid.")
	case len(data) == 0:
		return &apiError{http.StatusBadRequest, "MissingParameter", "The parameter MetricData is required."}
	case len(data) > maxData:
		return invalidParameter(fmt.Sprintf("The collection MetricData must not have a size greater than %d.", maxData))
	}
	now := s.now()
	for i, d := range data {
		if wrong := d.wrong(now); wrong != "" {
			return invalidParameter(fmt.Sprintf("The parameter MetricData.member.%d.%s is invalid.", i+1, wrong))
		}
	}
	return nil
}

// wrong names the member that CloudWatch refuses, or is empty.
func (d metricDatum) wrong(now time.Time) string {
	switch {
	case d.MetricName == "" || len(d.MetricName) > 255:
		return "MetricName"
	case d.Value == nil || math.IsNaN(*d.Value) || math.Abs(*d.Value) > math.Ldexp(1, 360):
		return "Value"
	case d.StorageResolution != 0 && d.StorageResolution != 1 && d.StorageResolution != 60:
		return "StorageResolution"
	case !d.Timestamp.IsZero() && (d.Timestamp.Before(now.Add(-oldestDatum)) || d.Timestamp.After(now.Add(newestDatum))):
		return "Timestamp"
	case len(d.Dimensions) > maxDimensions || len(dimensions(d.Dimensions)) < len(d.Dimensions):
		return "Dimensions"
	}
	for _, at := range d.Dimensions {
		if at.Name == "" || len(at.Name) > 255 || strings.HasPrefix(at.Name, ":") || strings.TrimSpace(at.Value) == "" || len(at.Value) > 1024 {
			return "Dimensions"
		}
	}
	return ""
}

func invalidParameter(message string) *apiError {
	return &apiError{http.StatusBadRequest, "InvalidParameterValue", message}
}

type datapoint struct {
	Timestamp                                   time.Time
	SampleCount, Sum, Minimum, Maximum, Average float64
	Unit                                        string
}

func (s *Server) getMetricStatistics(r request) (any, *apiError) {
	var in struct {
		Namespace, MetricName string
		Dimensions            []dimension
		StartTime, EndTime    time.Time
		Period                int
	}
	if refused := decodeCBOR(r, &in); refused != nil {
		return nil, refused
	}
	if in.Period <= 0 || !in.StartTime.Before(in.EndTime) {
		return nil, &apiError{http.StatusBadRequest, "InvalidParameterCombination", "Period and StartTime to EndTime must not be empty."}
	}
	period := time.Duration(in.Period) * time.Second
	wanted, points := dimensions(in.Dimensions), map[time.Time]*datapoint{}
	for _, d := range s.Data() {
		if d.Namespace != in.Namespace || d.Name != in.MetricName || !maps.Equal(d.Dimensions, wanted) ||
			d.Timestamp.Before(in.StartTime) || !d.Timestamp.Before(in.EndTime) {
			continue
		}
		at := d.Timestamp.UTC().Truncate(period)
		if points[at] == nil {
			points[at] = &datapoint{Timestamp: at, Minimum: d.Value, Maximum: d.Value, Unit: cmp.Or(d.Unit, "None")}
		}
		points[at].add(d.Value)
	}
	var out struct {
		Label      string
		Datapoints []*datapoint
	}
	out.Label = in.MetricName
	out.Datapoints = slices.SortedFunc(maps.Values(points), func(a, b *datapoint) int { return a.Timestamp.Compare(b.Timestamp) })
	return out, nil
}

func (p *datapoint) add(value float64) {
	p.SampleCount++
	p.Sum += value
	p.Minimum, p.Maximum = min(p.Minimum, value), max(p.Maximum, value)
	p.Average = p.Sum / p.SampleCount
}

// decodeCBOR reads a request's body, which is still as it was signed.
func decodeCBOR(r request, into any) *apiError {
	body := r.body
	if r.encoding == "gzip" {
		reader, err := gzip.NewReader(bytes.NewReader(body))
		if err == nil {
			body, err = io.ReadAll(io.LimitReader(reader, maxPutBytes+1))
		}
		if err != nil {
			return &apiError{http.StatusBadRequest, "SerializationException", "The request body is not gzip"}
		}
	}
	if len(body) > maxPutBytes {
		return &apiError{http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "The request is larger than 1 MB"}
	}
	if err := cbor.Unmarshal(body, into); err != nil {
		return &apiError{http.StatusBadRequest, "SerializationException", "The request body is not CBOR of the wanted shape"}
	}
	return nil
}
