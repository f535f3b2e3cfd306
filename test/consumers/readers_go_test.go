package consumers_test

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strings"

	v1aws "github.com/aws/aws-sdk-go/aws"
	v1session "github.com/aws/aws-sdk-go/aws/session"
	v1sts "github.com/aws/aws-sdk-go/service/sts"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/prometheus/sigv4"
)

// client is one client of an SDK, made as most programs make theirs: with nothing
// but the defaults.
type client interface {
	// look fills in what it knows, also when it fails.
	look(context.Context, *answer) error
}

// sdks are those that this program has in it, by module.
var sdks = map[string]func(context.Context) (client, error){
	moduleV1:    newV1,
	moduleV2:    newV2,
	moduleSigV4: newSigV4,
}

const (
	moduleV1    = "github.com/aws/aws-sdk-go"
	moduleV2    = "github.com/aws/aws-sdk-go-v2/config"
	moduleSigV4 = "github.com/prometheus/sigv4"
)

// serve answers one line on out for each on in: to "new" with a new client, to
// "same" with the one before. reader.py and reader.cjs do alike.
func serve(ctx context.Context, module string, in io.Reader, out io.Writer) error {
	var c client
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var a answer
		var err error
		if lines.Text() == "new" {
			c, err = sdks[module](ctx)
		}
		if err == nil {
			err = c.look(ctx, &a)
		}
		if err != nil {
			a.Error = err.Error()
		}
		if err := json.NewEncoder(out).Encode(a); err != nil {
			return err
		}
	}
	return nil
}

type v1Client struct{ session *v1session.Session }

func newV1(context.Context) (client, error) {
	s, err := v1session.NewSession()
	return v1Client{s}, err
}

func (c v1Client) look(ctx context.Context, a *answer) error {
	a.Region = v1aws.StringValue(c.session.Config.Region)
	caller, err := v1sts.New(c.session).GetCallerIdentityWithContext(ctx, &v1sts.GetCallerIdentityInput{})
	if err != nil {
		return err
	}
	a.ARN = v1aws.StringValue(caller.Arn)
	return nil
}

type v2Client struct {
	config aws.Config
	sts    *sts.Client
}

func newV2(ctx context.Context) (client, error) {
	config, err := awsconfig.LoadDefaultConfig(ctx)
	return v2Client{config, sts.NewFromConfig(config)}, err
}

func (c v2Client) look(ctx context.Context, a *answer) error {
	a.Region = c.config.Region
	caller, err := c.sts.GetCallerIdentity(ctx, nil)
	if err != nil {
		return err
	}
	a.ARN = aws.ToString(caller.Arn)
	return nil
}

// sigV4Client signs as Prometheus does when it writes to a remote.
type sigV4Client struct {
	http   http.Client
	region string // that the last request was signed for
}

func newSigV4(ctx context.Context) (client, error) {
	c := &sigV4Client{}
	signer, err := sigv4.NewSigV4RoundTripper(&sigv4.SigV4Config{ServiceName: "sts"}, c, sigv4.WithContext(ctx))
	c.http.Transport = signer
	return c, err
}

// RoundTrip sends what has been signed.
func (c *sigV4Client) RoundTrip(r *http.Request) (*http.Response, error) {
	// AWS4-HMAC-SHA256 Credential=AKIA…/20261129/eu-west-1/sts/aws4_request, …
	scope := strings.Split(r.Header.Get("Authorization"), "/")
	if len(scope) < 3 {
		return nil, errors.New("the request is not signed")
	}
	c.region = scope[2]
	return http.DefaultTransport.RoundTrip(r)
}

func (c *sigV4Client) look(ctx context.Context, a *answer) error {
	form := strings.NewReader("Action=GetCallerIdentity&Version=2011-06-15")
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+regionalSTS, form)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var caller struct {
		ARN string `xml:"GetCallerIdentityResult>Arn"`
	}
	err = xml.NewDecoder(response.Body).Decode(&caller)
	a.Region, a.ARN = c.region, caller.ARN
	return err
}
