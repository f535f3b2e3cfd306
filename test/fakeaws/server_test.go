package fakeaws_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/chandler-k8s/chandler/test/fakeaws"
)

func listen(t *testing.T, o fakeaws.Options) *fakeaws.Server {
	t.Helper()
	s, err := fakeaws.Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// loadConfig loads the SDK's configuration from env alone: no files and no
// metadata of the machine that runs the test.
func loadConfig(t *testing.T, env ...map[string]string) aws.Config {
	t.Helper()
	nowhere := filepath.Join(t.TempDir(), "absent")
	all := map[string]string{
		"AWS_CONFIG_FILE":             nowhere,
		"AWS_SHARED_CREDENTIALS_FILE": nowhere,
		"AWS_REGION":                  "eu-west-1",
		"AWS_EC2_METADATA_DISABLED":   "true",
	}
	for _, e := range env {
		maps.Copy(all, e)
	}
	for name, value := range all {
		t.Setenv(name, value)
	}
	cfg, err := awsconfig.LoadDefaultConfig(t.Context(), awsconfig.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func quickRetryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = time.Millisecond })
}

func signWith(cfg aws.Config, k fakeaws.Keys) aws.Config {
	cfg = cfg.Copy()
	cfg.Credentials = credentials.NewStaticCredentialsProvider(k.AccessKeyID, k.SecretAccessKey, k.SessionToken)
	return cfg
}

func getToken(ctx context.Context, cfg aws.Config) (*ecr.GetAuthorizationTokenOutput, error) {
	return ecr.NewFromConfig(cfg).GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
}

func getIdentity(ctx context.Context, cfg aws.Config) (*sts.GetCallerIdentityOutput, error) {
	return sts.NewFromConfig(cfg).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
}

// code is the AWS error code of err, "" for nil, "other" for what is no answer
// of the service.
func code(err error) string {
	if err == nil {
		return ""
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return "other"
}

// wait waits for condition with a deadline.
func wait(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited too long for %s", what)
		}
	}
}

func TestListenRefusesBadOptions(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	taken := strings.TrimPrefix(s.URL(), "http://")
	for name, o := range map[string]fakeaws.Options{
		"short password":   {PasswordBytes: 71},
		"address in use":   {Address: taken},
		"no such address":  {Address: "127.0.0.1:http:x"},
		"unknown hostname": {Address: "host.invalid:0"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := fakeaws.Listen(o); err == nil {
				t.Errorf("got a server at %s, want an error", got.URL())
			}
		})
	}
}

func TestRequestsOfOtherServices(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	for _, tc := range []struct {
		name, contentType, target, body string
		want                            int
	}{
		{"nothing", "", "", "", http.StatusNotFound},
		{"unknown target", "application/x-amz-json-1.1", "Logs_20140328.PutLogEvents", "{}", http.StatusNotFound},
		{"other query API", "application/x-www-form-urlencoded", "", "Action=DescribeInstances&Version=2016-11-15", http.StatusNotFound},
		{"form that does not parse", "application/x-www-form-urlencoded", "", "Action=%zz", http.StatusNotFound},
		{"unknown ECR operation", "application/x-amz-json-1.1", "AmazonEC2ContainerRegistry_V20150921.CreateRepository", "{}", http.StatusBadRequest},
		{"unknown STS operation", "application/x-www-form-urlencoded", "", "Action=GetSessionToken&Version=2011-06-15", http.StatusBadRequest},
		{"too large", "application/x-www-form-urlencoded", "", strings.Repeat("x", 3<<20), http.StatusBadRequest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := post(t, s.URL(), tc.body, map[string]string{"Content-Type": tc.contentType, "X-Amz-Target": tc.target})
			if got.StatusCode != tc.want {
				t.Errorf("got status %d, want %d", got.StatusCode, tc.want)
			}
		})
	}
}

func TestEnvReachesEveryService(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	k := s.NewKeys("ci")
	cfg := loadConfig(t, s.Env(), map[string]string{
		"AWS_ACCESS_KEY_ID":     k.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY": k.SecretAccessKey,
		"AWS_REGION":            "us-east-1",
	})
	if _, err := getToken(t.Context(), cfg); err != nil {
		t.Errorf("ECR: %v", err)
	}
	if _, err := getPublicToken(t.Context(), cfg); err != nil {
		t.Errorf("ECR Public: %v", err)
	}
	if _, err := getIdentity(t.Context(), cfg); err != nil {
		t.Errorf("STS: %v", err)
	}
	call := func(service, operation string) fakeaws.Call {
		return fakeaws.Call{
			Service: service, Operation: operation, Region: "us-east-1",
			Caller: k.AccessKeyID, Principal: "arn:aws:iam::123456789012:user/ci",
		}
	}
	want := map[fakeaws.Call]int{
		call(fakeaws.ServiceECR, "GetAuthorizationToken"):       1,
		call(fakeaws.ServiceECRPublic, "GetAuthorizationToken"): 1,
		call(fakeaws.ServiceSTS, "GetCallerIdentity"):           1,
	}
	if diff := cmp.Diff(s.Counts(), want); diff != "" {
		t.Errorf("counts (-got +want):\n%s", diff)
	}
}

func TestCloseEndsCallsInProgress(t *testing.T) {
	for name, f := range map[string]fakeaws.Fault{
		"silent": {Kind: fakeaws.Silent},
		"slow":   {Latency: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			s := listen(t, fakeaws.Options{})
			cfg := signWith(loadConfig(t, s.Env()), s.NewKeys("ci"))
			s.Inject(f)
			done := make(chan error, 1)
			go func() {
				_, err := getToken(t.Context(), cfg)
				done <- err
			}()
			wait(t, "the call", func() bool { return s.Count(fakeaws.Call{}) == 1 })
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if err := <-done; err == nil {
				t.Error("got an answer from a closed server")
			}
			if err := s.Close(); err != nil {
				t.Errorf("second close: %v", err)
			}
			if _, err := s.AddInstance(fakeaws.Instance{Region: "eu-west-1"}); !errors.Is(err, http.ErrServerClosed) {
				t.Errorf("add instance to a closed server: got %v, want %v", err, http.ErrServerClosed)
			}
		})
	}
}

func TestManyCallersAtOnce(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	cfg := loadConfig(t, s.Env())
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			mine := signWith(cfg, s.NewKeys("ci"))
			for range 20 {
				if _, err := getToken(t.Context(), mine); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	if got, want := s.Count(fakeaws.Call{Service: fakeaws.ServiceECR}), 160; got != want {
		t.Errorf("got %d calls, want %d", got, want)
	}
	if got, want := len(s.Issued()), 160; got != want {
		t.Errorf("got %d tokens, want %d", got, want)
	}
}

func TestSecretsStayOutOfLogs(t *testing.T) {
	s := listen(t, fakeaws.Options{})
	k := s.SetKeys(fakeaws.Keys{AccessKeyID: "AKIA1", SecretAccessKey: "secret1", SessionToken: "session1"})
	if _, err := getToken(t.Context(), signWith(loadConfig(t, s.Env()), k)); err != nil {
		t.Fatal(err)
	}
	issued := s.Issued()[0]
	var logs strings.Builder
	slog.New(slog.NewTextHandler(&logs, nil)).Info("secrets", "keys", k, "issued", issued)
	for _, secret := range []string{k.SecretAccessKey, k.SessionToken, issued.Password} {
		if strings.Contains(logs.String(), secret) {
			t.Errorf("log holds a secret: %s", logs.String())
		}
	}
	if !strings.Contains(logs.String(), k.AccessKeyID) {
		t.Errorf("log does not say which keys: %s", logs.String())
	}
}

// post sends a request without the SDK and discards the body of the answer.
func post(t *testing.T, url, body string, header map[string]string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return send(t, r, header)
}

func send(t *testing.T, r *http.Request, header map[string]string) *http.Response {
	t.Helper()
	for name, value := range header {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := answer.Body.Close(); err != nil {
		t.Error(err)
	}
	return answer
}
