package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
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

// clusterNameTags are the instance tags whose value is the name of the cluster: of
// EKS' managed node groups, of Karpenter and Auto Mode, of eksctl, and of kOps and
// other installers.
var clusterNameTags = []string{"eks:cluster-name", "aws:eks:cluster-name", "eks:eks-cluster-name", "alpha.eksctl.io/cluster-name", "KubernetesCluster"}

// clusterTagPrefix begins the tag that has the name in its key. EC2 shows no key
// with a slash, nor an instance's other tags beside one; metadata services that
// stand in for EC2's do.
const clusterTagPrefix = "kubernetes.io/cluster/"

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
	values[ClusterID], r.refused, r.err = clusterNameTag(ctx, api)
	if r.err == nil {
		r.values = values
	}
	return r
}

// clusterNameTag returns the name of the cluster by the instance's tags, "" without
// one. refused says that they name several.
func clusterNameTag(ctx context.Context, api metadataAPI) (name string, refused, err error) {
	list, err := metadataValue(ctx, api, "tags/instance")
	if err != nil {
		return "", nil, err
	}
	keys := strings.Fields(list)
	for _, tag := range clusterNameTags {
		if slices.Contains(keys, tag) {
			name, err := metadataValue(ctx, api, "tags/instance/"+tag)
			return name, nil, err
		}
	}
	var names []string
	for _, key := range keys {
		name, ok := strings.CutPrefix(key, clusterTagPrefix)
		if !ok {
			continue
		}
		value, err := metadataValue(ctx, api, "tags/instance/"+key)
		if err != nil {
			return "", nil, err
		}
		if value == "owned" || value == "shared" {
			names = append(names, name)
		}
	}
	switch len(names) {
	case 0:
		return "", nil, nil
	case 1:
		return names[0], nil, nil
	default:
		return "", fmt.Errorf("instance tags %sNAME name %d clusters, %.200q: set identity.clusterID", clusterTagPrefix, len(names), names), nil
	}
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
