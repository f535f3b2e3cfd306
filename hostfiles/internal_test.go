package hostfiles

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestConcerns(t *testing.T) {
	t.Parallel()
	dirs := []string{"/etc/chandler/aws/default", "/var/lib/chandler"}
	tests := []struct {
		name, path string
		want       bool
	}{
		{"a file in a directory", "/var/lib/chandler/f", true},
		{"the other directory", "/etc/chandler/aws/default/..data", true},
		{"the directory itself", "/var/lib/chandler", true},
		{"a directory above it", "/etc/chandler", true},
		{"a directory above it, as the root reports it", "//etc", true},
		{"a neighbour", "/var/lib/other", false},
		{"a neighbour of the same beginning", "/var/lib/chandler2", false},
		{"a beginning", "/var/lib/chan", false},
		{"further below", "/var/lib/chandler/aws/f", false},
		{"a neighbour of one above", "/etc/passwd", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := concerns(test.path, dirs); got != test.want {
				t.Errorf("concerns(%q) = %v, want %v", test.path, got, test.want)
			}
		})
	}
}

func TestFull(t *testing.T) {
	t.Parallel()
	roomy := unix.Statfs_t{Blocks: 1000, Bfree: 100, Bavail: 50, Files: 1000, Ffree: 100}
	for name, test := range map[string]struct {
		change func(*unix.Statfs_t)
		root   bool
		want   bool
	}{
		"room":                           {func(*unix.Statfs_t) {}, false, false},
		"no block":                       {func(s *unix.Statfs_t) { s.Bfree, s.Bavail = 0, 0 }, true, true},
		"a few blocks":                   {func(s *unix.Statfs_t) { s.Bfree, s.Bavail = leastFree-1, leastFree-1 }, true, true},
		"just enough blocks":             {func(s *unix.Statfs_t) { s.Bavail = leastFree }, false, false},
		"reserved blocks alone":          {func(s *unix.Statfs_t) { s.Bavail = 0 }, false, true},
		"reserved blocks alone, as root": {func(s *unix.Statfs_t) { s.Bavail = 0 }, true, false},
		"a few inodes":                   {func(s *unix.Statfs_t) { s.Ffree = leastFree - 1 }, true, true},
		"nothing is counted":             {func(s *unix.Statfs_t) { *s = unix.Statfs_t{} }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			system := roomy
			test.change(&system)
			if got := full(system, test.root); got != test.want {
				t.Errorf("full = %v, want %v", got, test.want)
			}
		})
	}
}

func TestGenerationNames(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, time.January, 2, 3, 4, 5, 0, time.FixedZone("east", 3600))
	if got := newGenerationName(now); !isGenerationName(got) || got[:22] != "..2026_01_02_02_04_05." {
		t.Errorf("newGenerationName = %q, want the time in UTC", got)
	}
	if first, second := newGenerationName(now), newGenerationName(now.Add(time.Nanosecond)); first >= second {
		t.Errorf("%s does not sort before %s, which is newer", first, second)
	}
	tests := []struct {
		name string
		want bool
	}{
		{"..2026_01_02_03_04_05.0123456789", true},
		{"..2026_01_02_03_04_05.7", true}, // as the kubelet's may be
		{"..2026_01_02_03_04_05.", false},
		{"..2026_01_02_03_04_05", false},
		{"..2026_13_02_03_04_05.1", false},
		{"..2026_01_02_03_04_05.1x", false},
		{"..2026_01_02_03_04_05.1/../../x", false},
		{"2026_01_02_03_04_05.1", false},
		{"....2026_01_02_03_04_05.1", false},
		{"../2026_01_02_03_04_05.1", false},
		{"..", false},
		{"..data", false},
		{"", false},
	}
	for _, test := range tests {
		if got := isGenerationName(test.name); got != test.want {
			t.Errorf("isGenerationName(%q) = %v, want %v", test.name, got, test.want)
		}
	}
}

func TestLockNames(t *testing.T) {
	t.Parallel()
	if got, ok := lockedBy(lockName("aws-x.y")); got != "aws-x.y" || !ok {
		t.Errorf("lockedBy(lockName) = %q, %v", got, ok)
	}
	for _, name := range []string{"", "aws", "..aws", "aws.lock", "...lock", "..lock", "....lock", "..../x.lock"} {
		if got, ok := lockedBy(name); ok {
			t.Errorf("lockedBy(%q) = %q, true", name, got)
		}
	}
}
