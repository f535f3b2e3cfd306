package serving

import (
	"log/slog"
	"sync"
	"time"
)

// seldomInterval is how often a warning that strangers can cause is logged.
const seldomInterval = time.Minute

// seldom keeps strangers from filling the log: of many warnings it logs one an
// interval, with how many were left out since the one before.
type seldom struct {
	log *slog.Logger

	mu      sync.Mutex // guards the rest
	next    time.Time
	omitted int
}

// mayLog returns a logger for one warning, or nil if it is not its turn.
func (s *seldom) mayLog() *slog.Logger {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Before(s.next) {
		s.omitted++
		return nil
	}
	log := s.log.With("omitted", s.omitted)
	s.next, s.omitted = now.Add(seldomInterval), 0
	return log
}
