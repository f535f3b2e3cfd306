package fakeaws_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/google/go-cmp/cmp"

	"github.com/chandler-k8s/chandler/test/fakeaws"
)

func addInstance(t *testing.T, s *fakeaws.Server, i fakeaws.Instance) *fakeaws.IMDS {
	t.Helper()
	m, err := s.AddInstance(i)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func metadataClient(m *fakeaws.IMDS, v1 bool) *imds.Client {
	return imds.New(imds.Options{
		Endpoint:       m.URL(),
		EnableFallback: aws.BoolTernary(v1),
		Retryer:        aws.NopRetryer{},
	})
}

// metadata reads one path with the SDK; an error is given as its status.
func metadata(ctx context.Context, client *imds.Client, path string) (string, int) {
	out, err := client.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if err != nil {
		return "", status(err)
	}
	data, err := io.ReadAll(out.Content)
	if err != nil {
		return err.Error(), 0
	}
	return string(data), http.StatusOK
}

func TestMetadataPaths(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	m := addInstance(t, s, fakeaws.Instance{
		Region: "us-west-2", Zone: "us-west-2-lax-1a", ID: "i-0aaaaaaaaaaaaaaaa", Type: "c7g.xlarge",
		Tags: map[string]string{"Name": "n1", "eks:cluster-name": "prod"},
	})
	client := metadataClient(m, false)
	for path, want := range map[string]string{
		"instance-id":                    "i-0aaaaaaaaaaaaaaaa",
		"instance-type":                  "c7g.xlarge",
		"placement":                      "availability-zone\nregion",
		"placement/":                     "availability-zone\nregion",
		"placement/region":               "us-west-2",
		"placement/availability-zone":    "us-west-2-lax-1a",
		"services/partition":             "aws",
		"services/domain":                "amazonaws.com",
		"tags/instance":                  "Name\neks:cluster-name",
		"tags/instance/":                 "Name\neks:cluster-name",
		"tags/instance/eks:cluster-name": "prod",
		"":                               "instance-id\ninstance-type\nplacement/\nservices/\ntags/",
	} {
		t.Run("/"+path, func(t *testing.T) {
			got, status := metadata(t.Context(), client, path)
			if got != want || status != http.StatusOK {
				t.Errorf("got %q with status %d, want %q", got, status, want)
			}
		})
	}
	for _, path := range []string{"tags/instance/none", "iam/security-credentials/", "placement/regio", "none"} {
		t.Run("/"+path, func(t *testing.T) {
			if got, status := metadata(t.Context(), client, path); status != http.StatusNotFound {
				t.Errorf("got %q with status %d, want 404", got, status)
			}
		})
	}
}

func TestTagsAreOptional(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	m := addInstance(t, s, fakeaws.Instance{Region: "eu-west-1"})
	client := metadataClient(m, false)
	if _, got := metadata(t.Context(), client, "tags/instance"); got != http.StatusNotFound {
		t.Errorf("without tags in metadata: got status %d, want 404", got)
	}
	if err := m.Update(func(i *fakeaws.Instance) { i.Tags = map[string]string{} }); err != nil {
		t.Fatal(err)
	}
	if got, status := metadata(t.Context(), client, "tags/instance"); got != "" || status != http.StatusOK {
		t.Errorf("with no tags set: got %q with status %d, want an empty list", got, status)
	}
	if err := m.Update(func(i *fakeaws.Instance) { i.Tags = map[string]string{"a/b": "c"} }); err == nil {
		t.Error("a tag key with a slash was not refused")
	}
	if got := m.Instance().Tags; len(got) != 0 {
		t.Errorf("got tags %v after a refused change, want none", got)
	}
}

func TestIdentityDocument(t *testing.T) {
	s := listen(t, fakeaws.Options{Account: "210987654321"})
	m := addInstance(t, s, fakeaws.Instance{Region: "cn-north-1"})
	client := metadataClient(m, false)
	out, err := client.GetInstanceIdentityDocument(t.Context(), &imds.GetInstanceIdentityDocumentInput{})
	if err != nil {
		t.Fatal(err)
	}
	got := []string{out.Region, out.AvailabilityZone, out.InstanceID, out.AccountID, out.InstanceType}
	want := []string{"cn-north-1", "cn-north-1a", m.Instance().ID, "210987654321", "m5.large"}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("document (-got +want):\n%s", diff)
	}
	region, err := client.GetRegion(t.Context(), &imds.GetRegionInput{})
	if err != nil || region.Region != "cn-north-1" {
		t.Errorf("GetRegion: got %v, %v", region, err)
	}
}

// ask sends a request for metadata without the SDK.
func ask(t *testing.T, method, url string, header map[string]string) (string, int) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return string(data), answer.StatusCode
}

func TestTokenRequests(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	m := addInstance(t, s, fakeaws.Instance{Region: "eu-west-1"})
	const ttl = "X-aws-ec2-metadata-token-ttl-seconds"
	for _, tc := range []struct {
		name, method string
		header       map[string]string
		want         int
	}{
		{"shortest", http.MethodPut, map[string]string{ttl: "1"}, 200},
		{"longest", http.MethodPut, map[string]string{ttl: "21600"}, 200},
		{"too short", http.MethodPut, map[string]string{ttl: "0"}, 400},
		{"too long", http.MethodPut, map[string]string{ttl: "21601"}, 400},
		{"not a number", http.MethodPut, map[string]string{ttl: "1h"}, 400},
		{"no life", http.MethodPut, nil, 400},
		{"through a proxy", http.MethodPut, map[string]string{ttl: "60", "X-Forwarded-For": "10.0.0.1"}, 403},
		{"wrong method", http.MethodPost, map[string]string{ttl: "60"}, 405},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, status := ask(t, tc.method, m.URL()+"/latest/api/token", tc.header)
			if status != tc.want {
				t.Errorf("got status %d, want %d", status, tc.want)
			}
			if (strings.TrimSpace(got) != "") != (tc.want == 200) {
				t.Errorf("got body %q with status %d", got, status)
			}
		})
	}
}

func TestTokensAreChecked(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	one := addInstance(t, s, fakeaws.Instance{Region: "eu-west-1"})
	two := addInstance(t, s, fakeaws.Instance{Region: "eu-west-1"})
	token, _ := ask(t, http.MethodPut, one.URL()+"/latest/api/token", map[string]string{"X-aws-ec2-metadata-token-ttl-seconds": "60"})
	get := func(m *fakeaws.IMDS, token string) int {
		header := map[string]string{}
		if token != "" {
			header["X-aws-ec2-metadata-token"] = token
		}
		_, status := ask(t, http.MethodGet, m.URL()+"/latest/meta-data/instance-id", header)
		return status
	}
	got := map[string]int{
		"good":                  get(one, token),
		"none":                  get(one, ""),
		"made up":               get(one, "x"),
		"of another instance":   get(two, token),
		"none where optional":   0,
		"bad where optional":    0,
		"none where disabled":   0,
		"none where v1 only":    0,
		"after a minute":        0,
		"after a minute, again": 0,
	}
	setMode := func(m fakeaws.TokenMode) {
		if err := one.Update(func(i *fakeaws.Instance) { i.Mode = m }); err != nil {
			t.Fatal(err)
		}
	}
	setMode(fakeaws.TokensOptional)
	got["none where optional"], got["bad where optional"] = get(one, ""), get(one, "x")
	setMode(fakeaws.MetadataDisabled)
	got["none where disabled"] = get(one, "")
	setMode(fakeaws.TokensUnknown)
	got["none where v1 only"] = get(one, "")
	setMode(fakeaws.TokensRequired)
	s.SetClockOffset(time.Minute)
	got["after a minute"], got["after a minute, again"] = get(one, token), get(one, token)
	want := map[string]int{
		"good": 200, "none": 401, "made up": 401, "of another instance": 401,
		"none where optional": 200, "bad where optional": 401,
		"none where disabled": 403, "none where v1 only": 200,
		"after a minute": 401, "after a minute, again": 401,
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("status (-got +want):\n%s", diff)
	}
}

func TestModesAsTheSDKSeesThem(t *testing.T) {
	for _, tc := range []struct {
		name     string
		mode     fakeaws.TokenMode
		hopLimit int
		v1       bool // the client may fall back to IMDSv1
		want     bool
	}{
		{"required", fakeaws.TokensRequired, 0, false, true},
		{"optional", fakeaws.TokensOptional, 0, false, true},
		{"v1 only, client insists on v2", fakeaws.TokensUnknown, 0, false, false},
		{"v1 only, client falls back", fakeaws.TokensUnknown, 0, true, true},
		{"disabled", fakeaws.MetadataDisabled, 0, true, false},
		{"hop limit 1", fakeaws.TokensRequired, 1, false, false},
		{"hop limit 1, optional, client falls back", fakeaws.TokensOptional, 1, true, true},
		{"hop limit 2", fakeaws.TokensRequired, 2, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := listen(t, fakeaws.Options{})
			m := addInstance(t, s, fakeaws.Instance{Region: "eu-west-1", Mode: tc.mode, HopLimit: tc.hopLimit})
			got, _ := metadata(t.Context(), metadataClient(m, tc.v1), "placement/region")
			if (got == "eu-west-1") != tc.want {
				t.Errorf("got %q, want an answer: %v", got, tc.want)
			}
		})
	}
}

func TestInstancesAreApart(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	var got, want []string
	for _, region := range []string{"eu-west-1", "us-east-1", "cn-north-1"} {
		m := addInstance(t, s, fakeaws.Instance{Region: region, ID: "i-" + region})
		answer, _ := metadata(t.Context(), metadataClient(m, false), "placement/region")
		got, want = append(got, answer), append(want, region)
		pattern := fakeaws.Call{Service: fakeaws.ServiceIMDS, Caller: "i-" + region}
		if n := s.Count(pattern); n != 2 {
			t.Errorf("%s: got %d requests, want one for the token and one for the region", region, n)
		}
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("regions (-got +want):\n%s", diff)
	}
}

func TestInstanceRoleInTheDefaultChain(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	m := addInstance(t, s, fakeaws.Instance{Region: "eu-west-1", ID: "i-1", Role: readerARN})
	cfg := loadConfig(t, s.Env(), m.Env(), map[string]string{"AWS_EC2_METADATA_DISABLED": "false"})
	if _, err := getToken(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	want := identity{"111122223333", "arn:aws:sts::111122223333:assumed-role/ecr-reader/i-1"}
	if diff := cmp.Diff(identityOf(t, cfg), want); diff != "" {
		t.Errorf("identity (-got +want):\n%s", diff)
	}
	client := metadataClient(m, false)
	before, _ := metadata(t.Context(), client, "iam/security-credentials/ecr-reader")
	again, _ := metadata(t.Context(), client, "iam/security-credentials/ecr-reader")
	if before != again {
		t.Error("keys changed long before they expire")
	}
	s.SetClockOffset(6 * time.Hour)
	if after, _ := metadata(t.Context(), metadataClient(m, false), "iam/security-credentials/ecr-reader"); after == before {
		t.Error("keys did not change at their end")
	}
}

func TestAddInstanceRefuses(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	for name, i := range map[string]fakeaws.Instance{
		"no region":      {},
		"tag with space": {Region: "eu-west-1", Tags: map[string]string{"a b": ""}},
		"empty tag":      {Region: "eu-west-1", Tags: map[string]string{"": ""}},
		"address in use": {Region: "eu-west-1", Address: strings.TrimPrefix(s.URL(), "http://")},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := s.AddInstance(i); err == nil {
				t.Error("got no error")
			}
		})
	}
}
