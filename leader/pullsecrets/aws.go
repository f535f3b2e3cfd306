package pullsecrets

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// sessionName appears in CloudTrail and in the ARN of who pulled.
const sessionName = "chandler-pullsecrets"

type tokenAPI interface {
	GetAuthorizationToken(context.Context, *ecr.GetAuthorizationTokenInput, ...func(*ecr.Options)) (*ecr.GetAuthorizationTokenOutput, error)
}

type publicTokenAPI interface {
	GetAuthorizationToken(context.Context, *ecrpublic.GetAuthorizationTokenInput, ...func(*ecrpublic.Options)) (*ecrpublic.GetAuthorizationTokenOutput, error)
}

// dialer returns what builds an identity's client at its first call, since it learns
// of a wrong clock from every answer. load returns the process's own AWS identity, the
// HTTP client and endpoints.
func dialer(load func(context.Context) (aws.Config, error)) func(identity) fetch {
	return func(id identity) fetch {
		var ask fetch // calls of one identity never overlap
		return func(ctx context.Context) (secretText, time.Time, error) {
			if ask == nil {
				base, err := load(ctx)
				if err != nil {
					return secretText{}, time.Time{}, &awsError{safeMessage(err.Error(), id), resultFailed}
				}
				ask = client(configFor(base, id), id)
			}
			token, expires, err := ask(ctx)
			return token, expires, describe(err, id)
		}
	}
}

func client(config aws.Config, id identity) fetch {
	if id.public {
		return fetchPublic(ecrpublic.NewFromConfig(config))
	}
	return fetchPrivate(ecr.NewFromConfig(config, func(o *ecr.Options) {
		setEndpoint(id, &o.EndpointOptions.UseFIPSEndpoint, &o.EndpointOptions.UseDualStackEndpoint)
	}))
}

func configFor(base aws.Config, id identity) aws.Config {
	config := base.Copy()
	config.Region = id.region
	if id.keys.id != "" {
		config.Credentials = credentials.NewStaticCredentialsProvider(
			id.keys.id, id.keys.secret.reveal(), id.keys.session.reveal())
	}
	if id.role.ARN == "" {
		return config
	}
	client := sts.NewFromConfig(config, func(o *sts.Options) {
		setEndpoint(id, &o.EndpointOptions.UseFIPSEndpoint, &o.EndpointOptions.UseDualStackEndpoint)
	})
	config.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(client, id.role.ARN,
		func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName = sessionName
			if id.role.ExternalID != "" {
				o.ExternalID = aws.String(id.role.ExternalID)
			}
		}))
	return config
}

// setEndpoint asks for the form of the registry's host and leaves the process's
// own setting in force otherwise.
func setEndpoint(id identity, fips *aws.FIPSEndpointState, dualStack *aws.DualStackEndpointState) {
	if id.fips {
		*fips = aws.FIPSEndpointStateEnabled
	}
	if id.dualStack {
		*dualStack = aws.DualStackEndpointStateEnabled
	}
}

var errNoToken = errors.New("ECR answered without a token or its expiry")

func fetchPrivate(api tokenAPI) fetch {
	return func(ctx context.Context) (secretText, time.Time, error) {
		out, err := api.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
		if err != nil {
			return secretText{}, time.Time{}, err
		}
		if len(out.AuthorizationData) == 0 || out.AuthorizationData[0].AuthorizationToken == nil || out.AuthorizationData[0].ExpiresAt == nil {
			return secretText{}, time.Time{}, errNoToken
		}
		// Its proxyEndpoint names the caller's own registry, not the one labelled.
		data := out.AuthorizationData[0]
		return secret(*data.AuthorizationToken), *data.ExpiresAt, nil
	}
}

func fetchPublic(api publicTokenAPI) fetch {
	return func(ctx context.Context) (secretText, time.Time, error) {
		out, err := api.GetAuthorizationToken(ctx, &ecrpublic.GetAuthorizationTokenInput{})
		if err != nil {
			return secretText{}, time.Time{}, err
		}
		data := out.AuthorizationData
		if data == nil || data.AuthorizationToken == nil || data.ExpiresAt == nil {
			return secretText{}, time.Time{}, errNoToken
		}
		return secret(*data.AuthorizationToken), *data.ExpiresAt, nil
	}
}
