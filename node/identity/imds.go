package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// maxMetadata bounds one answer of the metadata service, in bytes. The largest
// that we ask for, the list of tag keys, has at most 50 keys of 128 characters.
const maxMetadata = 8 << 10

// metadataAPI is what we need of the SDK's IMDSv2 client.
type metadataAPI interface {
	GetMetadata(context.Context, *imds.GetMetadataInput, ...func(*imds.Options)) (*imds.GetMetadataOutput, error)
}

// clusterNameTags are the instance tags that carry the name of an EKS cluster:
// of managed node
// groups, of Karpenter and Auto Mode, and of eksctl.
var clusterNameTags = []string{"eks:cluster-name", "aws:eks:cluster-name", "eks:eks-cluster-name", "alpha.eksctl.io/cluster-name"}

// metadata asks the instance metadata service. The first failure that is not
// "no such path" ends the round: behind a hop limit of 1 each call takes seconds.
func metadata(ctx context.Context, api metadataAPI) reply {
	r := reply{source: sourceIMDS, about: []Key{ClusterID, Region, Zone, Partition, InstanceID, InstanceType}}
	values := map[Key]string{}
	for _, q := range []struct {
		key  Key
		path string
	}{
		{Region, "placement/region"},
		{Zone, "placement/availability-zone"},
		{Partition, "services/partition"},
		{InstanceID, "instance-id"},
		{InstanceType, "instance-type"},
	} {
		value, err := metadataValue(ctx, api, q.path)
		if err != nil {
			r.err = err
			return r
		}
		values[q.key] = value
	}
	name, err := clusterNameTag(ctx, api)
	if err != nil {
		r.err = err
		return r
	}
	values[ClusterID] = name
	r.values = values
	return r
}

func clusterNameTag(ctx context.Context, api metadataAPI) (string, error) {
	list, err := metadataValue(ctx, api, "tags/instance")
	if err != nil {
		return "", err
	}
	keys := strings.Fields(list)
	for _, tag := range clusterNameTags {
		for _, key := range keys {
			if key == tag {
				return metadataValue(ctx, api, "tags/instance/"+tag)
			}
		}
	}
	return "", nil
}

// metadataValue returns "" for a path that does not exist, as for tags where the
// instance does not publish them.
func metadataValue(ctx context.Context, api metadataAPI, path string) (string, error) {
	out, err := api.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if status := (*smithyhttp.ResponseError)(nil); errors.As(err, &status) && status.HTTPStatusCode() == http.StatusNotFound {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("ask instance metadata for %s: %w", path, err)
	}
	defer out.Content.Close() //nolint:errcheck // read to its end below
	data, err := io.ReadAll(io.LimitReader(out.Content, maxMetadata))
	if err != nil {
		return "", fmt.Errorf("read instance metadata %s: %w", path, err)
	}
	return strings.TrimSpace(string(data)), nil
}
