package pullsecrets

import (
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	// keysGrace is how long a registry keeps the identity of a Secret that is gone:
	// who replaces one often deletes it first.
	keysGrace = 5 * time.Minute
	// unseenPatience is how long the host namespace may take to be read at the
	// start of a term before that is a problem.
	unseenPatience = 15 * time.Second
	unseenRetry    = 10 * time.Second
	firstSight     = 20 * time.Millisecond
)

var (
	errKeysUnseen = errors.New("the Secrets of the host namespace are not known")
	errNotListed  = errors.New("leader.pullSecrets.defaultChainFor does not list the registry")
)

// identityOf decides as whom a registry's token is asked for, and when to ask
// again at the latest: as the owner of the keys in its Secret; for some minutes
// after that was deleted, as the same still; else as the process's own AWS
// identity, if the configuration lets it. While the host namespace cannot be read,
// only registries that the configuration lists go on, as the process: for any
// other there may be keys.
func (t *Task) identityOf(registry Registry) (id identity, again time.Duration, err error) {
	role := t.opts.Roles[registry.Host]
	if !t.keysSeen() {
		if time.Since(t.began) < unseenPatience || t.opts.OwnIdentityFor == nil || !t.mayAskAsOwn(registry) {
			return identity{}, 0, errKeysUnseen
		}
		return registry.identity(accessKeys{}, role), unseenRetry, nil
	}
	keys, err := t.keysOf(registry)
	if err != nil {
		return identity{}, 0, err
	}
	if keys != (accessKeys{}) {
		t.keysFound(registry.Host)
	} else {
		if former, left := t.former(registry.Host); left > 0 {
			return former, left, nil
		}
		if !t.mayAskAsOwn(registry) {
			return identity{}, 0, fmt.Errorf("there is no Secret %s/%s, and %w", t.opts.HostNamespace, t.keysName(registry.Host), errNotListed)
		}
	}
	return registry.identity(keys, role), lookInterval, nil
}

// mayAskAsOwn reports whether a registry may be asked as the process's own AWS
// identity.
func (t *Task) mayAskAsOwn(registry Registry) bool {
	listed := t.opts.OwnIdentityFor
	return listed == nil || slices.Contains(listed, registry.Host) ||
		(registry.Account != "" && slices.Contains(listed, registry.Account))
}

func (t *Task) keysFound(host string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if state := t.registries[host]; state != nil {
		state.keysGone = time.Time{}
	}
}

// former returns the identity that a registry keeps although the Secret with its
// keys is gone, and for how long.
func (t *Task) former(host string) (id identity, left time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	state := t.registries[host]
	if state == nil || state.identity.keys == (accessKeys{}) {
		return identity{}, 0
	}
	if state.keysGone.IsZero() {
		state.keysGone = time.Now()
		t.log.Warn("the Secret with a registry's keys is gone, its identity is kept for a while",
			"registry", host, "name", t.keysName(host), "duration", keysGrace)
	}
	return state.identity, keysGrace - time.Since(state.keysGone)
}

// unseen tells that the host namespace cannot be read, unless the term has just
// begun, and answers when to look again.
func (t *Task) unseen(registry Registry) time.Duration {
	if time.Since(t.began) < unseenPatience {
		return firstSight
	}
	t.failed(registry, fmt.Errorf("%w: the leader may not list and watch secrets in namespace %s, see Role chandler-leader-pullsecrets in deploy/base/pullsecrets.yaml",
		errKeysUnseen, t.opts.HostNamespace))
	return unseenRetry
}

// keysOf returns the AWS keys for a registry: those of its Secret, which the
// error names if they are not usable, or else none.
func (t *Task) keysOf(registry Registry) (accessKeys, error) {
	secret, err := t.keys.Get(t.keysName(registry.Host))
	if apierrors.IsNotFound(err) {
		return accessKeys{}, nil
	}
	if err != nil {
		return accessKeys{}, err
	}
	about := "region " + registry.Host
	if regionDiffers(secret, registry) {
		t.report.warn(about, keysReference(secret.Namespace, secret.Name), reasonRegion,
			fmt.Sprintf("aws_region differs from the host's region, %s, which is used", registry.Region))
	} else {
		t.report.clear(about)
	}
	return parseKeys(secret)
}
