package clusterstatus

import (
	"testing"
	"time"
)

func clock(t *testing.T, text string) time.Time {
	t.Helper()
	if text == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.DateTime, "2026-03-01 "+text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestFirstSlot(t *testing.T) {
	for _, test := range []struct {
		name                    string
		previous, now, due, end string
		interval                time.Duration
	}{
		{"nobody before", "", "12:00:20", "12:00:00", "12:01:00", time.Minute},
		{"predecessor of an earlier minute", "11:59:59", "12:00:20", "12:00:00", "12:01:00", time.Minute},
		{"predecessor of this minute", "12:00:01", "12:00:20", "12:01:00", "12:02:00", time.Minute},
		{"predecessor whose clock is ahead", "12:01:10", "12:00:20", "12:02:00", "12:03:00", time.Minute},
		{"predecessor of a minute that is about to begin", "12:00:01", "11:59:59", "12:01:00", "12:02:00", time.Minute},
		{"predecessor whose clock is wrong", "12:30:00", "12:00:20", "12:11:20", "12:12:00", time.Minute},
		{"predecessor whose clock is as far ahead as the Lease's policy allows", "12:10:10", "12:00:20", "12:11:00", "12:12:00", time.Minute},
		{"long interval", "12:00:01", "12:00:20", "12:01:00", "12:05:00", 5 * time.Minute},
		{"short interval", "12:00:01", "12:00:20", "12:01:00", "12:01:10", 10 * time.Second},
		{"interval that no minute is made of", "12:00:01", "12:00:20", "12:01:00", "12:01:30", 45 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := firstSlot(clock(t, test.previous), clock(t, test.now), test.interval)
			if want := (slot{clock(t, test.due), clock(t, test.end)}); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestTicksWithoutALeader(t *testing.T) {
	for _, test := range []struct {
		name, previous, now string
		interval            time.Duration
		want                int
	}{
		{"nobody before", "", "12:00:20", time.Minute, 0},
		{"handed over", "12:00:01", "12:00:03", time.Minute, 0},
		{"handed over, in the next minute", "11:59:59", "12:00:01", time.Minute, 0},
		{"killed in the same minute", "12:00:01", "12:00:20", time.Minute, 0},
		{"killed, one tick empty", "11:58:59", "12:00:20", time.Minute, 1},
		{"an hour", "11:00:30", "12:00:30", time.Minute, 59},
		{"short interval", "11:59:30", "12:00:35", 10 * time.Second, 5},
		{"short interval, and the rest of the minute", "12:00:01", "12:00:20", 10 * time.Second, 5},
		{"long interval", "10:01:00", "12:00:20", time.Hour, 1},
		{"predecessor whose clock is wrong", "12:30:00", "12:00:20", time.Minute, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			previous := clock(t, test.previous)
			if got := firstSlot(previous, clock(t, test.now), test.interval).unled(previous, test.interval); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}

func TestNextSlot(t *testing.T) {
	now := slot{clock(t, "12:00:00"), clock(t, "12:01:00")}
	for _, test := range []struct {
		name, at, due string
		missed        int
	}{
		{"published early", "12:00:02", "12:01:00", 0},
		{"ended", "12:01:00", "12:01:00", 0},
		{"ended, a moment late", "12:01:59", "12:01:00", 0},
		{"nobody looked for a while", "12:04:30", "12:04:00", 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, missed := now.next(clock(t, test.at), time.Minute)
			due := clock(t, test.due)
			if want := (slot{due, due.Add(time.Minute)}); got != want || missed != test.missed {
				t.Errorf("got %v and %d missed, want %v and %d", got, missed, want, test.missed)
			}
		})
	}
	if now.ahead(clock(t, "11:59:30"), false, time.Minute) {
		t.Error("the next tick counts as one of a clock set back")
	}
	if !now.ahead(clock(t, "11:55:00"), false, time.Minute) {
		t.Error("a slot in five minutes does not count as one of a clock set back")
	}
	if now.ahead(clock(t, "11:49:00"), true, time.Minute) {
		t.Error("the first slot counts as one of a clock set back while it waits for a predecessor's minute")
	}
	if !now.ahead(clock(t, "11:48:59"), true, time.Minute) {
		t.Error("a first slot that is too far ahead does not count as one of a clock set back")
	}
}
