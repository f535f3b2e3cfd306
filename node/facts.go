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
	if err := removeAll(dir); err != nil {
		log.Error("another node's files not removed", "node", was, "err", err)
		return nil
	}
	log.Warn("removed another node's files: this disk was cloned from that node", "node", was)
	return nil
}

// removeAll removes every set, also the ones that no consumer reads. The set that names
// the node goes last, so that the next start tries again after an error.
func removeAll(dir *hostfiles.Dir) error {
	sets, err := dir.Sets()
	for _, set := range sets {
		if set != setCluster {
			_, e := dir.Remove(set)
			err = errors.Join(err, e)
		}
	}
	if err == nil {
		_, err = dir.Remove(setCluster)
	}
	return err
}

// region is the AWS region for a profile whose Secret names none. Where none is known,
// the one that is published stays. Missing is an error for a profile with credentials,
// and on a node of AWS; elsewhere nothing needs a region, and only one in doubt stays.
// The error wraps nothing, so that all of it is a new error or the same as before.
func (n *Node) region(profile string, facts identity.Facts, published string, credentials bool) (region string, missing error) {
	if region := facts.Value(identity.Region); region != "" {
		return region, nil
	}
	gap := n.Identity.Missing(identity.Region)
	switch {
	case gap.InDoubt && published != "":
		return published, nil
	case !credentials && !gap.OfAWS:
		return "", nil
	}
	return published, fmt.Errorf("profile %s: %s needs a region and no source has one: set identity.region, or region in the Secret (%s)", profile, fileConfig, gap.Why)
}
