package hostfiles

import (
	"context"
	"time"
)

// Follow calls hint whenever something in the directories may have changed, and
// besides every so often, the net under lost events. It blocks until ctx ends.
// Where the directories cannot be watched, as when the machine's inotify limits
// are reached, it goes on by the clock, tries again at each tick, and tells
// failed once. Hints may overlap.
func Follow(ctx context.Context, dirs []string, every time.Duration, hint func(), failed func(error)) {
	watch := func() <-chan error {
		ended := make(chan error, 1)
		go func() { ended <- Watch(ctx, dirs, hint) }()
		return ended
	}
	ended, told := watch(), false
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			if ended == nil {
				return
			}
			if err := <-ended; err != nil && !told {
				failed(err)
			}
			return
		case err := <-ended:
			ended = nil
			if err != nil && !told {
				told = true
				failed(err)
			}
		case <-ticker.C:
			hint()
			if ended == nil {
				ended = watch()
			}
		}
	}
}
