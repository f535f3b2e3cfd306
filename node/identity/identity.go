// Package identity finds out what a node is: which cluster it belongs to, in
// which region, zone and partition it runs, and what its instance is called.
//
// Each fact has several possible sources. They are ranked, the first that
// answers wins, fact by fact, and the winner is recorded beside the value. A
// source that could not be asked is not a source without an answer: while the
// source of a known fact is in doubt, the fact keeps its value, so that an
// outage of the API server never turns an OpenShift cluster ID into a UID. A
// source that answers and no longer has the fact has denied it: the fact goes.
// So does every fact that another machine left on a disk.
//
// Values come from cluster objects and metadata services and end in files that
// shells source: whatever does not look like an identifier is refused.
//
// The package reads; it writes nothing. Package node calls it.
package identity

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
)

// Key names one fact. The values are those of identity.json.
type Key string

// The facts, in the order in which they are listed and logged.
const (
	ClusterID    Key = "clusterID"
	Region       Key = "region"
	Zone         Key = "zone"
	Partition    Key = "partition"
	InstanceID   Key = "instanceID"
	InstanceType Key = "instanceType"
	NodeName     Key = "nodeName"
)

// Keys lists every fact in a fixed order.
func Keys() []Key {
	return []Key{ClusterID, Region, Zone, Partition, InstanceID, InstanceType, NodeName}
}

// Fact is one known thing and where it comes from.
type Fact struct {
	// Value is never empty, e.g. "eu-west-1".
	Value string `json:"value"`
	// Source is the name of the source that answered, e.g. "node-label".
	Source string `json:"source"`
}

// Facts holds what is known. A fact that no source knows is absent.
type Facts map[Key]Fact

// Value returns the value of a fact, empty when it is not known.
func (f Facts) Value(k Key) string { return f[k].Value }

// Equal reports whether both hold the same values from the same sources.
func (f Facts) Equal(g Facts) bool { return maps.Equal(f, g) }

// Decode reads the contents of identity.json. Facts that this version does not
// know are left out; a value that is no identifier is an error.
func Decode(data []byte) (Facts, error) {
	var f Facts
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("decode identity.json: %w", err)
	}
	for k, fact := range f {
		if !slices.Contains(Keys(), k) {
			delete(f, k)
			continue
		}
		if err := checkValue(fact.Value); err != nil {
			return nil, fmt.Errorf("decode identity.json: %s: %w", k, err)
		}
	}
	return f, nil
}

// identifier is what a value may look like: it is safe between double quotes in
// a shell, in an ini file and as a Prometheus label. 128 is the length that the
// ClusterProperty proposal (KEP-2149) allows an ID.
var identifier = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$`)

func checkValue(v string) error {
	if identifier.MatchString(v) {
		return nil
	}
	return fmt.Errorf("%.140q is not an identifier of at most 128 letters, digits and ._:/@+-", v)
}

// reply is what one source said in one round.
type reply struct {
	source string
	// about lists the facts that the source could know.
	about []Key
	// values holds those that it knows.
	values map[Key]string
	// err says that the source could not be asked; values is then empty.
	err error
	// refused says that the source answered with something malformed.
	refused error
	// forbidden says that we may not ask this source.
	forbidden bool
	// absent says that our own Node does not exist: it has been deleted, or not
	// been registered yet, and will be there again.
	absent bool
	// tentative says that the source may soon have what it does not have yet.
	tentative bool
	// ofAWS says that the node belongs to AWS.
	ofAWS bool
	// why says why the source does not have what it could, for the log, e.g.
	// `providerID "kind://docker/kind/worker" is not of AWS`.
	why string
}

// doubtful reports whether the silence of the source about a fact proves nothing.
func (r reply) doubtful(k Key) bool {
	return (r.err != nil || r.forbidden || r.absent || r.tentative) && slices.Contains(r.about, k)
}

// disagreement is a fact for which a lower source says something else.
type disagreement struct {
	key    Key
	kept   Fact
	lower  Fact
	reason error // set when the lower value was refused, not just different
}

// decide picks every fact from the replies, which are in rank order, most
// trusted first. prev holds what was known before.
func decide(prev Facts, replies []reply) (Facts, []disagreement) {
	facts := Facts{}
	var odd []disagreement
	for _, k := range Keys() {
		if k == Partition {
			continue // derived from the region, below
		}
		fact, d := decideFact(k, prev[k], replies)
		odd = append(odd, d...)
		if fact.Value != "" {
			facts[k] = fact
		}
	}
	if p := decidePartition(facts, prev, replies); p.Value != "" {
		facts[Partition] = p
	}
	return facts, odd
}

func decideFact(k Key, prev Fact, replies []reply) (Fact, []disagreement) {
	var won Fact
	var odd []disagreement
	unasked := false // a source of the cluster, ranked above the winner, could not be asked
	for _, r := range replies {
		if !slices.Contains(r.about, k) {
			continue
		}
		if r.err != nil {
			unasked = unasked || r.source != sourceIMDS
			continue
		}
		said := Fact{Value: r.values[k], Source: r.source}
		switch {
		case said.Value == "":
		case r.source == sourceNamespace && unasked && won.Value == "":
			// A better ID may exist in this cluster. IMDS is different: where
			// pods cannot reach it, it never answers.
		case checkValue(said.Value) != nil:
			odd = append(odd, disagreement{k, won, said, checkValue(said.Value)})
		case won.Value == "":
			won = said
		case won.Value != said.Value && r.source != sourceNamespace:
			odd = append(odd, disagreement{k, won, said, nil})
		}
	}
	if keep(k, prev, won, replies) {
		return prev, odd
	}
	return won, odd
}

// keep reports whether what was known before outlives this round: when its own
// source, a better one than the winner's, is in doubt. One that answered and no
// longer has it has denied it, and what the configuration said is gone when it
// says so no more.
func keep(k Key, prev, won Fact, replies []reply) bool {
	at := rank(replies, prev.Source)
	switch {
	case prev.Value == "", prev.Source == SourceConfig, at >= rank(replies, won.Source):
		return false
	case k == Region && prev.Source == sourceNodeLabel && PartitionOf(prev.Value) == "":
		return false // of another cloud: an earlier version took any label for a region
	}
	return replies[at].doubtful(k)
}

// another returns the instance's ID where its own source now gives another than
// before: this machine was started from an image of the other's disk, or has taken its
// place. The ID outlives reboots and outages; two sources may differ about it for good.
func another(prev Facts, replies []reply) string {
	was := prev[InstanceID]
	for _, r := range replies {
		if now := r.values[InstanceID]; now != "" && r.source == was.Source && now != was.Value {
			return now
		}
	}
	return ""
}

// rank is the position of a source; one that is not asked any more ranks last.
func rank(replies []reply, source string) int {
	i := slices.IndexFunc(replies, func(r reply) bool { return r.source == source })
	if i < 0 {
		return len(replies)
	}
	return i
}

// decidePartition takes the partition from the region's name, else from a
// source that knows it.
func decidePartition(facts, prev Facts, replies []reply) Fact {
	if p := PartitionOf(facts.Value(Region)); p != "" {
		return Fact{Value: p, Source: facts[Region].Source}
	}
	p, _ := decideFact(Partition, prev[Partition], replies)
	return p
}

// partitions pairs the names of regions with their partition. Source:
// partitions.json of aws-sdk-go-v2 v1.47.6.
var partitions = []struct {
	region    *regexp.Regexp
	partition string
}{
	{regexp.MustCompile(`^(us|eu|ap|sa|ca|me|af|il|mx)-[a-z]+-\d+$`), "aws"},
	{regexp.MustCompile(`^cn-[a-z]+-\d+$`), "aws-cn"},
	{regexp.MustCompile(`^us-gov-[a-z]+-\d+$`), "aws-us-gov"},
	{regexp.MustCompile(`^us-iso-[a-z]+-\d+$`), "aws-iso"},
	{regexp.MustCompile(`^us-isob-[a-z]+-\d+$`), "aws-iso-b"},
	{regexp.MustCompile(`^eu-isoe-[a-z]+-\d+$`), "aws-iso-e"},
	{regexp.MustCompile(`^us-isof-[a-z]+-\d+$`), "aws-iso-f"},
	{regexp.MustCompile(`^eusc-de-[a-z]+-\d+$`), "aws-eusc"},
}

// PartitionOf returns the AWS partition of a region, e.g. "aws-cn" for
// "cn-north-1", and "" for a name that is no AWS region.
func PartitionOf(region string) string {
	for _, p := range partitions {
		if p.region.MatchString(region) {
			return p.partition
		}
	}
	return ""
}
