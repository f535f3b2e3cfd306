package cluster

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Identity tells a process from every other that had or will have its number.
type Identity struct {
	Name string `json:"name"` // of the component, for messages
	PID  int    `json:"pid"`
	// Start is when the process started, in clock ticks since boot.
	Start uint64 `json:"start"`
	// Boot is the kernel's identifier of that boot.
	Boot string `json:"boot"`
}

// Identify returns the identity of a process that has not been waited for. The
// error is os.ErrNotExist if there is none of that number, or only a zombie.
func Identify(pid int) (Identity, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Identity{}, fmt.Errorf("identify process: %w", err)
	}
	// See proc_pid_stat(5). The second field is the program's name in
	// parentheses and may hold anything; the third is the state, the 22nd the
	// start.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return Identity{}, fmt.Errorf("identify process %d: %d fields in its stat file", pid, len(fields))
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return Identity{}, fmt.Errorf("identify process %d: %w", pid, os.ErrNotExist)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return Identity{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Identity{}, fmt.Errorf("identify process: %w", err)
	}
	return Identity{PID: pid, Start: start, Boot: strings.TrimSpace(string(boot))}, nil
}

// Alive tells whether this very process runs. A process that cannot be looked at
// is not ours and counts as ended.
func (id Identity) Alive() bool {
	now, err := Identify(id.PID)
	return err == nil && now.Start == id.Start && now.Boot == id.Boot
}
