package identity

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestParseProviderID has every form that something is known to write or to accept
// for AWS, with what does.
func TestParseProviderID(t *testing.T) {
	const i, mi = "i-0123456789abcdef0", "mi-0123456789abcdef0"
	type test struct {
		id  string
		p   Provider
		bad bool
	}
	tests := map[string]test{
		"cloud-provider-aws, EKS, Karpenter, Auto Mode, OpenShift, Cluster API, kOps": {
			id: "aws:///eu-west-1a/" + i, p: Provider{AWS: true, Region: "eu-west-1", Zone: "eu-west-1a", Instance: i}},
		"local zone": {
			id: "aws:///us-west-2-lax-1a/" + i, p: Provider{AWS: true, Region: "us-west-2", Zone: "us-west-2-lax-1a", Instance: i}},
		"wavelength zone": {
			id: "aws:///us-east-1-wl1-bos-wlz-1/" + i, p: Provider{AWS: true, Region: "us-east-1", Zone: "us-east-1-wl1-bos-wlz-1", Instance: i}},
		"Outpost, which has the zone of its region": {
			id: "aws:///us-gov-west-1b/" + i, p: Provider{AWS: true, Region: "us-gov-west-1", Zone: "us-gov-west-1b", Instance: i}},
		"sovereign cloud": {
			id: "aws:///eusc-de-east-1a/" + i, p: Provider{AWS: true, Region: "eusc-de-east-1", Zone: "eusc-de-east-1a", Instance: i}},
		"instance of before 2016": {
			id: "aws:///us-east-1c/i-0a1b2c3d", p: Provider{AWS: true, Region: "us-east-1", Zone: "us-east-1c", Instance: "i-0a1b2c3d"}},
		"kubelet's --provider-id by hand, which cloud-provider-aws accepts: two slashes": {
			id: "aws://us-east-1c/" + i, p: Provider{AWS: true, Region: "us-east-1", Zone: "us-east-1c", Instance: i}},
		"the same: the instance alone": {id: i, p: Provider{AWS: true, Instance: i}},
		"the same: three slashes":      {id: "aws:///" + i, p: Provider{AWS: true, Instance: i}},
		"Cluster API before it had the zone, OpenShift without one": {
			id: "aws:////" + i, p: Provider{AWS: true, Instance: i}},
		"Gardener's machines, with the region": {
			id: "aws:///eu-west-1/" + i, p: Provider{AWS: true, Region: "eu-west-1", Instance: i}},
		"Fargate": {
			id: "aws:///us-west-2b/0ab1c2d3e4-0123/fargate-ip-10-0-0-1.ec2.internal", p: Provider{AWS: true, Region: "us-west-2", Zone: "us-west-2b"}},
		"Fargate, as cloud-provider-aws accepts it too": {
			id: "aws:///us-west-2b/fargate-10.0.0.1", p: Provider{AWS: true, Region: "us-west-2", Zone: "us-west-2b"}},
		"EKS hybrid node by Systems Manager": {
			id: "eks-hybrid:///us-west-2/my-cluster/" + mi, p: Provider{AWS: true, Cluster: "my-cluster", Region: "us-west-2", Instance: mi}},
		"EKS hybrid node by IAM Roles Anywhere, under its own name": {
			id: "eks-hybrid:///us-west-2/my_cluster/rack7/node.example", p: Provider{AWS: true, Cluster: "my_cluster", Region: "us-west-2"}},

		"empty":                                  {},
		"OCI, without a scheme":                  {id: "ocid1.instance.oc1.iad.abc"},
		"Alibaba, without a scheme":              {id: "cn-hangzhou.i-bp1234567890"},
		"AWS with one slash":                     {id: "aws:/eu-west-1a/" + i, p: Provider{AWS: true, Region: "eu-west-1", Zone: "eu-west-1a", Instance: i}},
		"AWS and nothing":                        {id: "aws://", p: Provider{AWS: true}, bad: true},
		"no instance":                            {id: "aws:///eu-west-1a", p: Provider{AWS: true}, bad: true},
		"an instance of a form that we know not": {id: "aws:///eu-west-1a/x-17", p: Provider{AWS: true, Region: "eu-west-1", Zone: "eu-west-1a"}, bad: true},
		"a zone of a cloud that poses as AWS":    {id: "aws:///cloudgouv-eu-west-1a/" + i, p: Provider{AWS: true, Instance: i}, bad: true},
		"hostile zone":                           {id: "aws:///eu-west-1a$(id)/" + i, p: Provider{AWS: true, Instance: i}, bad: true},
		"upper case":                             {id: "aws:///EU-WEST-1A/" + i, p: Provider{AWS: true, Instance: i}, bad: true},
		"hybrid without a node":                  {id: "eks-hybrid:///us-west-2/my-cluster", p: Provider{AWS: true, Region: "us-west-2"}, bad: true},
		"hybrid with an empty node":              {id: "eks-hybrid:///us-west-2/my-cluster/", p: Provider{AWS: true, Region: "us-west-2", Cluster: "my-cluster"}, bad: true},
		"hybrid in no region":                    {id: "eks-hybrid:///mars/my-cluster/" + mi, p: Provider{AWS: true, Cluster: "my-cluster", Instance: mi}, bad: true},
		"hybrid with a hostile cluster":          {id: "eks-hybrid:///us-west-2/$(id)/" + mi, p: Provider{AWS: true, Region: "us-west-2", Instance: mi}, bad: true},
	}
	for _, id := range []string{
		"gce://project/europe-west1-b/name", "azure:///subscriptions/x/resourceGroups/y", "openstack:///6f5a", "openstack://us-west-1/6f5a",
		"vsphere://423d", "kind://docker/kind/kind-worker", "k3s://node", "rke2://node", "digitalocean://1", "hcloud://1", "linode://1",
		"ibm://1///c/w", "oci://ocid1", "huaweicloud://6f5a", "baremetalhost:///ns/h/u", "metal3://6f5a", "nutanix://6f5a", "kubevirt://vm",
	} {
		tests["another cloud: "+id] = test{id: id}
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParseProviderID(tt.id)
			if (err != nil) != tt.bad {
				t.Errorf("got error %v, want one: %t", err, tt.bad)
			}
			if diff := cmp.Diff(got, tt.p); diff != "" {
				t.Errorf("%s (-got +want):\n%s", tt.id, diff)
			}
		})
	}
}

func FuzzParseProviderID(f *testing.F) {
	for _, seed := range []string{
		"", "aws:///eu-west-1a/i-0123456789abcdef0", "aws:///us-east-1-wl1-bos-wlz-1/i-0a1b2c3d", "aws://", "i-0a1b2c3d", "gce://p/z/n",
		"aws:///a/\"$(x)", "eks-hybrid:///us-west-2/my-cluster/mi-0123456789abcdef0", "eks-hybrid://///", "aws:///us-west-2b/h/fargate-ip-10-0-0-1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, id string) {
		p, err := ParseProviderID(id)
		if !p.AWS && (err != nil || p != Provider{}) {
			t.Errorf("%q is not of AWS: got %+v and %v", id, p, err)
		}
		for _, v := range []string{p.Cluster, p.Region, p.Zone, p.Instance} {
			if v != "" && checkValue(v) != nil {
				t.Errorf("%q gives %q, which is no identifier", id, v)
			}
		}
		if p.Region != "" && PartitionOf(p.Region) == "" || p.Zone != "" && RegionOfZone(p.Zone) != p.Region {
			t.Errorf("%q gives zone %q and region %q, which are not of AWS or not of each other", id, p.Zone, p.Region)
		}
	})
}
