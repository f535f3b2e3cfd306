package identity

import (
	"encoding/json"
	"fmt"
	"strings"
)

// RenderClusterID gives the file CLUSTERID, which shells source. It is nil while
// the cluster ID is not known, as the other renders are without their fact.
func RenderClusterID(f Facts) []byte {
	id := f.Value(ClusterID)
	if id == "" {
		return nil
	}
	return fmt.Appendf(nil, "CLUSTERID=%q\n", id)
}

// RenderBare gives a file that holds one value and nothing else.
func RenderBare(k Key) func(Facts) []byte {
	return func(f Facts) []byte {
		if v := f.Value(k); v != "" {
			return []byte(v)
		}
		return nil
	}
}

// variables are the names that facts have in node.env.
var variables = map[Key]string{
	ClusterID: "CLUSTER_ID", Region: "REGION", Zone: "ZONE", Partition: "PARTITION",
	InstanceID: "INSTANCE_ID", InstanceType: "INSTANCE_TYPE", NodeName: "NODE_NAME",
}

// RenderEnv gives node.env: every known fact, for shells and env files.
func RenderEnv(f Facts) []byte {
	var b strings.Builder
	for _, k := range Keys() {
		if v := f.Value(k); v != "" {
			fmt.Fprintf(&b, "%s=%q\n", variables[k], v)
		}
	}
	return []byte(b.String())
}

// RenderJSON gives identity.json: every known fact with its source.
func RenderJSON(f Facts) []byte {
	data, _ := json.MarshalIndent(f, "", "  ") // a map of strings always encodes
	return append(data, '\n')
}
