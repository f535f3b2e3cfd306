package node

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/node/identity"
)

// Previous returns the facts that an earlier run published, nil when there are
// none or when they cannot be read, which the error says.
func Previous(dir *hostfiles.Dir) (identity.Facts, error) {
	files, err := dir.Read(setCluster)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if f.Name == fileIdentity {
			return identity.Decode(f.Data)
		}
	}
	return nil, nil
}

// Inherit returns the facts that an earlier run on this node published, nil when
// there are none. What another node published is removed, its keys and certificate
// too: this machine was started from an image of that node's disk.
func Inherit(dir *hostfiles.Dir, nodeName string, log *slog.Logger) identity.Facts {
	facts, err := Previous(dir)
	if err != nil {
		log.Warn("facts of the previous run not read", "err", err)
	}
	was := facts.Value(identity.NodeName)
	if was == "" || was == nodeName {
		return facts
	}
	sets, err := dir.Sets()
	for _, set := range sets {
		if CheckName(set) == nil {
			_, e := dir.Remove(set)
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		log.Error("files of another node not removed", "node", was, "err", err)
		return nil
	}
	log.Warn("files of another node removed: its disk was the image of this one's", "node", was)
	return nil
}

// region is the AWS region for a profile whose Secret names none. It is empty where
// nothing needs one, on a node that is not of AWS, without credentials; and while it is
// in doubt and none is published, since keys do not wait for the API server. The error
// wraps nothing, so that all of it is a new error or the same as before.
func (n *Node) region(profile string, facts identity.Facts, published string, credentials bool) (string, error) {
	if region := facts.Value(identity.Region); region != "" {
		return region, nil
	}
	why, inDoubt := n.Identity.Missing(identity.Region)
	ofAWS := facts.Value(identity.InstanceID) != ""
	switch {
	case inDoubt:
		return published, nil
	case published == "" && !credentials && !ofAWS:
		return "", nil
	}
	return "", fmt.Errorf("profile %s: %s needs an AWS region and no source has one: set identity.region (%s)", profile, fileConfig, why)
}
