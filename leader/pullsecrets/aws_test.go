package pullsecrets

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"
)

// recorder is an HTTP client that keeps the hosts asked and answers nothing good.
type recorder struct {
	mu     sync.Mutex
	hosts  []string
	answer func(*http.Request) (*http.Response, error)
}

func (r *recorder) Do(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hosts = append(r.hosts, req.URL.Host)
	return r.answer(req)
}

func answering(status int, header http.Header, body string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

func loaded(config aws.Config) func(context.Context) (aws.Config, error) {
	return func(context.Context) (aws.Config, error) { return config, nil }
}

// ask calls AWS once for a registry.
func ask(t *testing.T, r *recorder, host string, role Role) error {
	t.Helper()
	registry, err := Parse(host)
	if err != nil {
		t.Fatal(err)
	}
	base := aws.Config{HTTPClient: r, Retryer: func() aws.Retryer { return aws.NopRetryer{} }}
	id := registry.identity(accessKeys{id: keyID, secret: secret(keySecret), session: secret("session-token-of-keys")}, role)
	_, _, err = dialer(loaded(base))(id)(t.Context())
	return err
}

func TestEndpoints(t *testing.T) {
	tests := map[string]struct {
		host string
		role Role
		want string
	}{
		"classic":          {"123456789012.dkr.ecr.eu-west-1.amazonaws.com", Role{}, "api.ecr.eu-west-1.amazonaws.com"},
		"FIPS":             {"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", Role{}, "api.ecr-fips.us-east-1.amazonaws.com"},
		"dual-stack":       {"123456789012.dkr-ecr.eu-west-1.on.aws", Role{}, "ecr.eu-west-1.api.aws"},
		"dual-stack FIPS":  {"123456789012.dkr-ecr-fips.us-east-1.on.aws", Role{}, "ecr-fips.us-east-1.api.aws"},
		"China":            {"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", Role{}, "api.ecr.cn-north-1.amazonaws.com.cn"},
		"China dual-stack": {"123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn", Role{}, "ecr.cn-north-1.api.amazonwebservices.com.cn"},
		"government":       {"123456789012.dkr.ecr.us-gov-west-1.amazonaws.com", Role{}, "api.ecr.us-gov-west-1.amazonaws.com"},
		"iso":              {"123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov", Role{}, "api.ecr.us-iso-east-1.c2s.ic.gov"},
		"iso-b":            {"123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov", Role{}, "api.ecr.us-isob-east-1.sc2s.sgov.gov"},
		"iso-e":            {"123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", Role{}, "api.ecr.eu-isoe-west-1.cloud.adc-e.uk"},
		"iso-f":            {"123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov", Role{}, "api.ecr.us-isof-south-1.csp.hci.ic.gov"},
		"sovereign":        {"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu", Role{}, "api.ecr.eusc-de-east-1.amazonaws.eu"},
		"public":           {"public.ecr.aws", Role{}, "api.ecr-public.us-east-1.amazonaws.com"},
		"role":             {"123456789012.dkr.ecr.eu-west-1.amazonaws.com", Role{ARN: "arn:aws:iam::1:role/r"}, "sts.eu-west-1.amazonaws.com"},
		"role, FIPS":       {"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", Role{ARN: "arn:aws:iam::1:role/r"}, "sts-fips.us-east-1.amazonaws.com"},
		"role, dual-stack": {"123456789012.dkr-ecr.eu-west-1.on.aws", Role{ARN: "arn:aws:iam::1:role/r"}, "sts.eu-west-1.api.aws"},
		"role in China":    {"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", Role{ARN: "arn:aws-cn:iam::1:role/r"}, "sts.cn-north-1.amazonaws.com.cn"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := &recorder{answer: answering(http.StatusBadRequest, nil, `{"__type":"AccessDeniedException"}`)}
			if err := ask(t, r, test.host, test.role); err == nil {
				t.Error("got no error, want the refusal")
			}
			if diff := cmp.Diff([]string{test.want}, r.hosts); diff != "" {
				t.Errorf("hosts -want +got:\n%s", diff)
			}
		})
	}
}

func TestErrorsOfAWS(t *testing.T) {
	jsonType := http.Header{"Content-Type": {"application/x-amz-json-1.1"}}
	refusal := func(code, message string) func(*http.Request) (*http.Response, error) {
		return answering(http.StatusBadRequest, jsonType, `{"__type":"`+code+`","message":"`+message+`"}`)
	}
	role := Role{ARN: "arn:aws:iam::123456789012:role/r", ExternalID: "external-id"}
	tests := map[string]struct {
		answer func(*http.Request) (*http.Response, error)
		role   Role
		want   string
		result string
	}{
		"missing permission": {
			refusal("AccessDeniedException", "User: arn:aws:iam::123456789012:user/u is not authorized to perform: ecr:GetAuthorizationToken"), Role{},
			"ECR GetAuthorizationToken: AccessDeniedException: User: arn:aws:iam::123456789012:user/u is not authorized to perform: ecr:GetAuthorizationToken",
			resultDenied,
		},
		"unknown key": {
			refusal("UnrecognizedClientException", "The security token included in the request is invalid."), Role{},
			"ECR GetAuthorizationToken: UnrecognizedClientException: The security token included in the request is invalid.", resultDenied,
		},
		"wrong key: the message quotes the request": {
			refusal("InvalidSignatureException", `The canonical string was x-amz-security-token:session-token-of-keys`), Role{},
			"ECR GetAuthorizationToken: InvalidSignatureException", resultDenied,
		},
		"a message that quotes the key": {
			refusal("ValidationException", `bad key `+keySecret+` or session-token-of-keys\nand a second line`), Role{},
			"ECR GetAuthorizationToken: ValidationException: bad key [redacted] or [redacted]", resultDenied,
		},
		"throttled": {refusal("ThrottlingException", "Rate exceeded"), Role{}, "ECR GetAuthorizationToken: ThrottlingException: Rate exceeded", resultThrottled},
		"broken": {
			answering(http.StatusInternalServerError, jsonType, `{"__type":"ServerException","message":"oh"}`), Role{},
			"ECR GetAuthorizationToken: ServerException: oh", resultFailed,
		},
		"no permission for the role": {
			answering(http.StatusForbidden, http.Header{"Content-Type": {"text/xml"}},
				`<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized with external-id</Message></Error></ErrorResponse>`), role,
			"STS AssumeRole: AccessDenied: not authorized with [redacted]", resultDenied,
		},
		"refused connection": {
			func(*http.Request) (*http.Response, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
			}, Role{},
			"ECR GetAuthorizationToken: dial tcp: connection refused", resultFailed,
		},
		"broken connection: its port is not shown": {
			func(*http.Request) (*http.Response, error) {
				near, far := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 49152}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 443}
				return nil, &net.OpError{Op: "read", Net: "tcp", Source: near, Addr: far, Err: errors.New("connection reset by peer")}
			}, Role{},
			"ECR GetAuthorizationToken: read tcp 10.0.0.2:443: connection reset by peer", resultFailed,
		},
		"unknown host: the resolver's port is not shown": {
			func(*http.Request) (*http.Response, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{
					Err: "read udp 10.0.0.1:36034->10.96.0.10:53: i/o timeout", Name: "api.ecr.eu-west-1.amazonaws.com", Server: "10.96.0.10:53", IsTimeout: true,
				}}
			}, Role{},
			"ECR GetAuthorizationToken: lookup api.ecr.eu-west-1.amazonaws.com: no answer in time", resultFailed,
		},
		"no answer in time": {
			func(*http.Request) (*http.Response, error) { return nil, context.DeadlineExceeded }, Role{},
			"ECR GetAuthorizationToken: no answer in time", resultFailed,
		},
		"not JSON": {
			answering(http.StatusOK, jsonType, `<html>`), Role{},
			"ECR GetAuthorizationToken: unexpected token at offset 0", resultFailed,
		},
		"no token": {answering(http.StatusOK, jsonType, `{"authorizationData":[]}`), Role{}, errNoToken.Error(), resultFailed},
		"no expiry": {
			answering(http.StatusOK, jsonType, `{"authorizationData":[{"authorizationToken":"QVdTOng="}]}`), Role{},
			errNoToken.Error(), resultFailed,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := ask(t, &recorder{answer: test.answer}, irish, test.role)
			if err == nil || err.Error() != test.want {
				t.Fatalf("got %q, want %q", err, test.want)
			}
			if got := outcome(err); got != test.result {
				t.Errorf("got result %s, want %s", got, test.result)
			}
			var out bytes.Buffer
			slog.New(slog.NewJSONHandler(&out, nil)).Error("failed", "err", err)
			for _, hidden := range []string{keySecret, "session-token-of-keys", "external-id"} {
				if strings.Contains(out.String(), hidden) {
					t.Errorf("the log shows %s: %s", hidden, out.String())
				}
			}
		})
	}
}

func TestGoodAnswer(t *testing.T) {
	r := &recorder{answer: answering(http.StatusOK, http.Header{"Content-Type": {"application/x-amz-json-1.1"}},
		`{"authorizationData":[{"authorizationToken":"QVdTOmh1bnRlcjI=","expiresAt":1.7e9,"proxyEndpoint":"https://evil.example"}]}`)}
	registry, err := Parse(irish)
	if err != nil {
		t.Fatal(err)
	}
	token, expires, err := dialer(loaded(aws.Config{HTTPClient: r}))(registry.identity(accessKeys{id: keyID, secret: secret(keySecret)}, Role{}))(t.Context())
	if err != nil || token.reveal() != "QVdTOmh1bnRlcjI=" || !expires.Equal(time.Unix(1.7e9, 0)) {
		t.Fatalf("got %q, %s, %v", token.reveal(), expires, err)
	}
	content, err := render(registry, token)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"auths":{"123456789012.dkr-ecr.eu-west-1.on.aws":{"auth":"QVdTOmh1bnRlcjI="},"123456789012.dkr.ecr.eu-west-1.amazonaws.com":{"auth":"QVdTOmh1bnRlcjI="}}}`
	if diff := cmp.Diff(want, content.reveal()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestConfigurationThatCannotBeLoaded fails each call until it can be.
func TestConfigurationThatCannotBeLoaded(t *testing.T) {
	registry, err := Parse("123456789012.dkr.ecr.eu-west-1.amazonaws.com")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{answer: answering(http.StatusOK, nil, `{"authorizationData":[{"authorizationToken":"QVdTOng=","expiresAt":1772366400}]}`)}
	broken := true
	fetch := dialer(func(context.Context) (aws.Config, error) {
		if broken {
			return aws.Config{}, errors.New("load AWS configuration: AWS_MAX_ATTEMPTS=many")
		}
		return aws.Config{HTTPClient: r}, nil
	})(registry.identity(accessKeys{id: keyID, secret: secret(keySecret)}, Role{}))
	_, _, err = fetch(t.Context())
	if err == nil || !strings.Contains(err.Error(), "AWS_MAX_ATTEMPTS=many") || outcome(err) != resultFailed {
		t.Errorf("got %v, want the reason", err)
	}
	broken = false
	if _, _, err := fetch(t.Context()); err != nil {
		t.Errorf("after it was mended: %v", err)
	}
}
