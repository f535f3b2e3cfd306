package fakeaws_test

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	publictypes "github.com/aws/aws-sdk-go-v2/service/ecrpublic/types"
	"github.com/google/go-cmp/cmp"

	"github.com/chandler-k8s/chandler/test/fakeaws"
)

func getPublicToken(ctx context.Context, cfg aws.Config) (*ecrpublic.GetAuthorizationTokenOutput, error) {
	return ecrpublic.NewFromConfig(cfg).GetAuthorizationToken(ctx, &ecrpublic.GetAuthorizationTokenInput{})
}

func TestProxyEndpoint(t *testing.T) {
	s := listen(t, fakeaws.Options{Account: "210987654321"})
	cfg := signWith(loadConfig(t, s.Env()), s.NewKeys("ci"))
	for region, want := range map[string]string{
		"eu-west-1":      "https://210987654321.dkr.ecr.eu-west-1.amazonaws.com",
		"xx-nowhere-9":   "https://210987654321.dkr.ecr.xx-nowhere-9.amazonaws.com",
		"cn-north-1":     "https://210987654321.dkr.ecr.cn-north-1.amazonaws.com.cn",
		"us-gov-west-1":  "https://210987654321.dkr.ecr.us-gov-west-1.amazonaws.com",
		"us-iso-east-1":  "https://210987654321.dkr.ecr.us-iso-east-1.c2s.ic.gov",
		"us-isob-east-1": "https://210987654321.dkr.ecr.us-isob-east-1.sc2s.sgov.gov",
		"eu-isoe-west-1": "https://210987654321.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk",
		"us-isof-east-1": "https://210987654321.dkr.ecr.us-isof-east-1.csp.hci.ic.gov",
		"eusc-de-east-1": "https://210987654321.dkr.ecr.eusc-de-east-1.amazonaws.eu",
	} {
		t.Run(region, func(t *testing.T) {
			regional := cfg.Copy()
			regional.Region = region
			out, err := getToken(t.Context(), regional)
			if err != nil {
				t.Fatal(err)
			}
			if got := aws.ToString(out.AuthorizationData[0].ProxyEndpoint); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestIssuedIsWhatTheClientGets(t *testing.T) {
	s := listen(t, fakeaws.Options{TokenLife: time.Hour})
	k := s.NewKeys("ci")
	cfg := signWith(loadConfig(t, s.Env()), k)
	before := time.Now()
	var got []fakeaws.Issued
	for _, life := range []time.Duration{time.Hour, 12 * time.Hour} {
		s.SetTokenLife(life)
		out, err := getToken(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		data := out.AuthorizationData[0]
		token, err := base64.StdEncoding.DecodeString(aws.ToString(data.AuthorizationToken))
		if err != nil {
			t.Fatal(err)
		}
		user, password, _ := strings.Cut(string(token), ":")
		got = append(got, fakeaws.Issued{
			Call: fakeaws.Call{
				Service: fakeaws.ServiceECR, Operation: "GetAuthorizationToken", Region: "eu-west-1",
				Caller: k.AccessKeyID, Principal: k.ARN,
			},
			Username: user, Password: password, Expires: *data.ExpiresAt,
		})
		if left := data.ExpiresAt.Sub(before); left < life-time.Second || left > life+time.Minute {
			t.Errorf("got a token for %v, want %v", left, life)
		}
	}
	if diff := cmp.Diff(got, s.Issued()); diff != "" {
		t.Errorf("tokens at the client and in Issued (-got +want):\n%s", diff)
	}
	if got[0].Password[:72] == got[1].Password[:72] {
		t.Error("two passwords have the same first 72 bytes, all that bcrypt reads")
	}
	if len(got[0].Password) < 1000 {
		t.Errorf("got a password of %d bytes, want as many as ECR's", len(got[0].Password))
	}
}

func TestTokenForRegistryIDs(t *testing.T) {
	// Short passwords keep the answer in one read. The SDK may close its connection
	// under a longer one, and relies on its retryer, which these tests do without:
	// https://github.com/aws/aws-sdk-go-v2/issues/2737
	s := listen(t, fakeaws.Options{PasswordBytes: 72})
	client := ecr.NewFromConfig(signWith(loadConfig(t, s.Env()), s.NewKeys("ci")))
	out, err := client.GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{
		//nolint:staticcheck // The deprecated member is what is tested.
		RegistryIds: []string{"111111111111", "222222222222"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, data := range out.AuthorizationData {
		got = append(got, aws.ToString(data.ProxyEndpoint))
	}
	want := []string{
		"https://111111111111.dkr.ecr.eu-west-1.amazonaws.com",
		"https://222222222222.dkr.ecr.eu-west-1.amazonaws.com",
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("proxy endpoints (-got +want):\n%s", diff)
	}
}

func TestPublicTokenOnlyInOneRegion(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	cfg := signWith(loadConfig(t, s.Env()), s.NewKeys("ci"))
	cfg.Region = "us-east-1"
	out, err := getPublicToken(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	token, err := base64.StdEncoding.DecodeString(aws.ToString(out.AuthorizationData.AuthorizationToken))
	if err != nil {
		t.Fatal(err)
	}
	issued := s.Issued()
	if len(issued) != 1 || string(token) != "AWS:"+issued[0].Password {
		t.Error("the token at the client is not the issued one")
	}
	cfg.Region = "eu-west-1"
	_, err = getPublicToken(t.Context(), cfg)
	if got, want := code(err), new(publictypes.UnsupportedCommandException).ErrorCode(); got != want {
		t.Errorf("in eu-west-1: got error %q (%v), want %q", got, err, want)
	}
}
