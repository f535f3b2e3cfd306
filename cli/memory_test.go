package cli_test

import (
	"bytes"
	"math"
	"path/filepath"
	"runtime/debug"
	"testing"

	"github.com/chandler-k8s/chandler/cli"
)

// TestMemoryLimit starts both processes up to where they read their configuration.
func TestMemoryLimit(t *testing.T) {
	const none = math.MaxInt64 // the runtime's own default
	before := debug.SetMemoryLimit(none)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	for name, test := range map[string]struct {
		flags     []string
		variables map[string]string
		want      int64
		code      int
	}{
		"a downward API's bytes":      {nil, map[string]string{"MEMORY_LIMIT": "268435456"}, 241591905, 1},
		"a quantity":                  {[]string{"--memory-limit=256Mi"}, nil, 241591905, 1},
		"the flag before a variable":  {[]string{"--memory-limit=1Gi"}, map[string]string{"MEMORY_LIMIT": "268435456"}, 966367638, 1},
		"Go's own variable before it": {nil, map[string]string{"MEMORY_LIMIT": "268435456", "GOMEMLIMIT": "100MiB"}, none, 1},
		"neither":                     {nil, nil, none, 1},
		"no quantity":                 {[]string{"--memory-limit=256 MB"}, nil, none, 2},
		"none at all":                 {[]string{"--memory-limit=0"}, nil, none, 2},
		"below nothing":               {[]string{"--memory-limit=-1"}, nil, none, 2},
	} {
		for _, command := range []string{"agent", "leader"} {
			t.Run(name+", "+command, func(t *testing.T) {
				debug.SetMemoryLimit(none)
				args := append([]string{command, "--node-name=n", "--config=" + filepath.Join(t.TempDir(), "absent")}, test.flags...)
				var out bytes.Buffer
				err := cli.Run(t.Context(), args, func(name string) string { return test.variables[name] }, &out, &out)
				if got := cli.ExitCode(err); got != test.code {
					t.Errorf("got exit code %d (%v), want %d", got, err, test.code)
				}
				if got := debug.SetMemoryLimit(-1); got/10 != test.want/10 {
					t.Errorf("got %d bytes, want %d", got, test.want)
				}
			})
		}
	}
}
