package node

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/chandler-k8s/chandler/hostfiles"
	"github.com/chandler-k8s/chandler/node/identity"
	"github.com/chandler-k8s/chandler/node/scrapercert"
)

// The file sets. A further credential called NAME has the set aws-NAME.
const (
	setCluster = "cluster"
	setAWS     = "aws"
	awsPrefix  = setAWS + "-"
	setScraper = "scraper"
)

// The files that other parts of the program look for by name.
const (
	fileIdentity    = "identity.json"
	fileConfig      = "config.ini"
	fileCredentials = "credentials.ini"
)

// publicMode is for files that hold no secret.
const publicMode fs.FileMode = 0o444

// asCreated leaves the owner of such a file: it is the agent's user.
const asCreated = -1

// clusterFiles lists the set "cluster".
var clusterFiles = []struct {
	name   string
	render func(identity.Facts) []byte
}{
	{"CLUSTERID", identity.RenderClusterID},
	{"cluster-id", identity.RenderBare(identity.ClusterID)},
	{"region", identity.RenderBare(identity.Region)},
	{"node.env", identity.RenderEnv},
	{fileIdentity, identity.RenderJSON},
}

// renderCluster gives the files of what is known. A fact that is not known has
// no file.
func renderCluster(facts identity.Facts) []hostfiles.File {
	var files []hostfiles.File
	for _, f := range clusterFiles {
		if data := f.render(facts); len(data) > 0 {
			files = append(files, hostfiles.File{Name: f.name, Mode: publicMode, UID: asCreated, GID: asCreated, Data: data})
		}
	}
	return files
}

// Check tells whether the files of a set are what a consumer of it needs. The
// error says what is missing or wrong.
func Check(set string, files []hostfiles.File) error {
	byName := contents(files)
	switch {
	case set == setCluster:
		return checkCluster(byName)
	case isAWS(set):
		return checkAWS(byName)
	case set == setScraper:
		return scrapercert.Check(byName)
	default:
		return CheckName(set)
	}
}

// contents are what files hold, by their names.
func contents(files []hostfiles.File) map[string][]byte {
	byName := map[string][]byte{}
	for _, f := range files {
		byName[f.Name] = f.Data
	}
	return byName
}

func isAWS(set string) bool {
	return set == setAWS || strings.HasPrefix(set, awsPrefix) && len(set) > len(awsPrefix)
}

// CheckName refuses what is not the name of a set.
func CheckName(set string) error {
	if set == setCluster || set == setScraper || isAWS(set) {
		return nil
	}
	return fmt.Errorf("unknown set %q: want %s, %s, %sNAME or %s", set, setCluster, setAWS, awsPrefix, setScraper)
}

func checkCluster(files map[string][]byte) error {
	facts, err := identity.Decode(files[fileIdentity])
	if err != nil {
		return err
	}
	if facts.Value(identity.ClusterID) == "" {
		return errors.New("the cluster ID is not known: set identity.clusterID, or see the log for the sources that failed")
	}
	return nil
}
