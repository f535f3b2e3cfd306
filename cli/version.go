package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version and commit are set by the linker, see the Makefile.
var version, commit string

type buildInfo struct{ version, commit string }

// build says what this binary is. Without the linker's help it is what the Go
// toolchain recorded.
func build() buildInfo {
	b := buildInfo{version, commit}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if b.version == "" {
		b.version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && b.commit == "" {
			b.commit = s.Value
		}
	}
	return b
}

func (e *env) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and Go version",
		RunE: func(*cobra.Command, []string) error {
			b := build()
			_, err := fmt.Fprintf(e.out, "chandler %s (commit %s, %s)\n", b.version, b.commit, runtime.Version())
			return err
		},
	}
}
