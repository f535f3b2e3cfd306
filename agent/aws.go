package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
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
		config, err := awsconfig.LoadDefaultConfig(ctx)
		if err != nil {
			return aws.Config{}, fmt.Errorf("load AWS configuration: %w", err)
		}
		o.loaded = &config
	}
	return o.loaded.Copy(), nil
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
		Endpoint:       env.EC2IMDSEndpoint,
		EndpointMode:   env.EC2IMDSEndpointMode,
		EnableFallback: aws.FalseTernary, // never IMDSv1
	})
}
