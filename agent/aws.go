package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

// ownAWS is the process's own AWS configuration: variables and files. It is loaded
// when a task first needs it, so that a malformed one fails those that do, each time
// that they ask, and no other part. The first use of its credentials asks AWS.
type ownAWS struct {
	mu     sync.Mutex
	loaded *aws.Config // nil before the first success
}

func (o *ownAWS) load(ctx context.Context) (aws.Config, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.loaded == nil {
		client := newAWSHTTP()
		config, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithHTTPClient(client),
			awsconfig.WithEndpointCredentialOptions(func(o *endpointcreds.Options) { o.HTTPClient = client }))
		if err != nil {
			return aws.Config{}, fmt.Errorf("load AWS configuration: %w", err)
		}
		o.loaded = &config
	}
	return o.loaded.Copy(), nil
}

// newAWSHTTP returns the HTTP client of AWS's APIs, of instance metadata and of the
// services that hand out credentials on the node: what holds for every call to AWS is
// set here. It is of the SDK's type because the SDK adds AWS_CA_BUNDLE to no other.
func newAWSHTTP() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.Proxy = proxyFor })
}

// newIMDS returns a client of the node's metadata service, which honours the SDK's
// AWS_EC2_METADATA_* variables; nil if they switch it off or cannot be read.
func newIMDS(log *slog.Logger) *imds.Client {
	env, err := awsconfig.NewEnvConfig()
	if err != nil {
		log.Warn("read AWS variables, going on without the metadata service", "err", err)
		return nil
	}
	if env.EC2IMDSClientEnableState == imds.ClientDisabled {
		return nil
	}
	return imds.New(imds.Options{
		HTTPClient:     newAWSHTTP(),
		Endpoint:       env.EC2IMDSEndpoint,
		EndpointMode:   env.EC2IMDSEndpointMode,
		EnableFallback: aws.FalseTernary, // never IMDSv1
	})
}
