package config

// Identity states facts that win over every discovered one. Each is independent
// of the other.
type Identity struct {
	// ClusterID is what the cluster is called, e.g. "prod-eu-7x2kq". Empty means
	// discover it: see package node/identity for the order of sources.
	ClusterID string `json:"clusterID"`
	// Region is the AWS region, e.g. "eu-west-1", or what another S3 store calls its
	// own, e.g. "minio". Empty means discover it.
	Region string `json:"region"`
}

var (
	// Package node/identity holds discovered IDs to the same shape.
	clusterIDRule = newRule(`^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$`, 128,
		"want at most 128 letters, digits and ._:/@+- beginning with a letter or digit: shells source it and Prometheus has it as a label")
	// Package node/awsini writes nothing else into config.ini; 63 is what a label of a
	// host takes, which SDKs make of a region.
	anyRegionRule = newRule(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`, 63,
		`want an AWS region, such as "eu-west-1", or the region of another S3 store, in lower-case letters, digits and '-'`)
	regionRule = newRule(`^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$`, 32, `want an AWS region, such as "eu-west-1" or "us-gov-east-1"`)
)

func (i Identity) validate(path string, ps *problems) {
	if i.ClusterID != "" {
		ps.matches(path+".clusterID", i.ClusterID, clusterIDRule)
	}
	if i.Region != "" {
		ps.matches(path+".region", i.Region, anyRegionRule)
	}
}
