package cli

import (
	"fmt"
	"log/slog"
	"runtime/debug"

	"k8s.io/apimachinery/pkg/api/resource"
)

// limitMemory has the garbage collector work harder before the process reaches its
// container's memory limit, at which the kernel would end it: the Go runtime does
// not look at that limit by itself. It leaves a tenth for what the runtime does not
// count, such as socket buffers. $GOMEMLIMIT, which the runtime has read, wins.
func (e *env) limitMemory(container string, log *slog.Logger) error {
	if set := e.getenv("GOMEMLIMIT"); set != "" {
		log.Debug("memory limit of the garbage collector", "source", "GOMEMLIMIT", "limit", set)
		return nil
	}
	if container == "" {
		return nil
	}
	limit, err := resource.ParseQuantity(container)
	if err != nil || limit.Sign() <= 0 {
		return usageError{fmt.Errorf("--memory-limit %q: want a positive quantity, e.g. 256Mi", container)}
	}
	bytes := limit.Value() / 10 * 9
	debug.SetMemoryLimit(bytes)
	log.Debug("memory limit of the garbage collector", "source", "memory-limit", "limit", container, "bytes", bytes)
	return nil
}
