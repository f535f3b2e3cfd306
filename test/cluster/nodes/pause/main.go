// Command pause holds namespaces open: as the first process of a node, and of every
// pod. It waits, and reaps what its descendants leave.
package main

import (
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// Who starts a node writes down its process first and then lets it go on, so
	// that none is left which nobody knows.
	if len(os.Args) > 1 && os.Args[1] == "node" {
		if _, err := io.ReadFull(os.Stdin, make([]byte, 1)); err != nil {
			os.Exit(1)
		}
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 && err != syscall.EINTR {
				break
			}
		}
	}
}
