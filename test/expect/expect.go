// Package expect holds what the tests of every package ask and collect alike.
package expect

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"
)

// often is how long Within waits between two answers.
const often = 20 * time.Millisecond

// OK ends the test when err is not nil.
func OK(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Within asks again and again until check returns nil, and returns how long that
// took. After limit it ends the test with what check said last.
func Within(t testing.TB, limit time.Duration, check func() error) time.Duration {
	t.Helper()
	begin := time.Now()
	tick := time.NewTicker(often)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return time.Since(begin)
		}
		if time.Since(begin) > limit {
			t.Fatalf("after %s: %v", limit, err)
		}
		<-tick.C
	}
}

// Done is Within for a check that describes the state it saw.
func Done(t testing.TB, limit time.Duration, check func() (done bool, state string)) {
	t.Helper()
	Within(t, limit, func() error {
		if done, state := check(); !done {
			return errors.New(state)
		}
		return nil
	})
}

// Log keeps what goroutines write while a test reads it. Its zero value is empty.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write appends p, and never fails.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns everything that was written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
