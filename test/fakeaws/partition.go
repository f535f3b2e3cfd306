package fakeaws

import "strings"

// partitionOf names the partition of a region and the DNS suffix of its
// services, as partitions.json of aws-sdk-go-v2 does; an unknown region belongs
// to partition aws.
func partitionOf(region string) (partition, suffix string) {
	for _, known := range []struct{ prefix, partition, suffix string }{
		{"cn-", "aws-cn", "amazonaws.com.cn"},
		{"us-gov-", "aws-us-gov", "amazonaws.com"},
		{"us-iso-", "aws-iso", "c2s.ic.gov"},
		{"us-isob-", "aws-iso-b", "sc2s.sgov.gov"},
		{"eu-isoe-", "aws-iso-e", "cloud.adc-e.uk"},
		{"us-isof-", "aws-iso-f", "csp.hci.ic.gov"},
		{"eusc-", "aws-eusc", "amazonaws.eu"},
	} {
		if strings.HasPrefix(region, known.prefix) {
			return known.partition, known.suffix
		}
	}
	return "aws", "amazonaws.com"
}
