package agent

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// changedVariable names the directories that have changed, to the command of Exec.
const changedVariable = "CHANDLER_CHANGED"

// execute runs the command once. A run that is under way when ctx ends gets SIGTERM,
// and one that takes longer than the timeout SIGKILL, each with its whole group.
func (o ReloadOptions) execute(ctx context.Context, changed []string) (string, error) {
	running, err := o.startChild(changedVariable + "=" + pathList(changed))
	if err != nil {
		return "", err
	}
	defer o.reap(0)
	late, stopping := false, ctx.Done()
	limit := time.NewTimer(o.Timeout)
	defer limit.Stop()
	for {
		select {
		case <-running.ended:
			err := running.result()
			if late {
				err = errors.Join(fmt.Errorf("command killed after %s", o.Timeout), err)
			}
			return o.Command[0], err
		case <-limit.C:
			late = true
			running.signal(syscall.SIGKILL)
		case <-stopping:
			stopping = nil
			running.signal(syscall.SIGTERM)
		}
	}
}
