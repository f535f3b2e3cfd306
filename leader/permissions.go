package leader

import (
	"context"
	"fmt"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	permissionsInterval = 10 * time.Minute // while nothing is missing
	missingInterval     = time.Minute      // while something is
	permissionsReminder = 30 * time.Minute // how often the same one is named
)

// permissions asks, for one term, for what tasks may do.
type permissions struct {
	leader *Leader
	term   Term
	told   map[permission]time.Time // when a missing one was last named
}

type permission struct {
	task   string
	wanted authorizationv1.ResourceAttributes
}

// check asks the API server for every permission that the tasks name, and counts
// and names each that is missing, again and again until ctx ends: what is granted
// or taken away later shows too.
func (p *permissions) check(ctx context.Context, tasks []Task) {
	for pause := time.Duration(0); sleep(ctx, pause); {
		pause = permissionsInterval
		for _, task := range tasks {
			if permitted, ok := task.(Permitted); ok && p.checkTask(ctx, task.Name(), permitted.Permissions()) > 0 {
				pause = missingInterval
			}
		}
	}
}

// checkTask returns how many are missing.
func (p *permissions) checkTask(ctx context.Context, task string, needed []authorizationv1.ResourceAttributes) (missing int) {
	for _, wanted := range needed {
		allowed, err := p.allowed(ctx, wanted)
		switch {
		case ctx.Err() != nil:
			return missing
		case err != nil:
			p.leader.opts.Log.Warn("ask for a permission", "task", task, "err", err)
		case allowed:
			delete(p.told, permission{task, wanted})
		default:
			missing++
			p.name(permission{task, wanted})
		}
	}
	p.leader.metrics.missingPermissions.WithLabelValues(task).Set(float64(missing))
	return missing
}

func (p *permissions) name(missing permission) {
	if told, ok := p.told[missing]; ok && time.Since(told) < permissionsReminder {
		return
	}
	p.told[missing] = time.Now()
	wanted := missing.wanted
	p.leader.opts.Log.Error("permission missing", "task", missing.task,
		"verb", wanted.Verb, "group", wanted.Group, "resource", wanted.Resource,
		"subresource", wanted.Subresource, "namespace", wanted.Namespace, "name", wanted.Name)
}

func (p *permissions) allowed(ctx context.Context, wanted authorizationv1.ResourceAttributes) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	review, err := p.term.Client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx,
		&authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &wanted},
		}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("review access to %s %s: %w", wanted.Verb, wanted.Resource, err)
	}
	return review.Status.Allowed, nil
}
