package hostfiles_test

import (
	"fmt"
	"testing"

	"github.com/chandler-k8s/chandler/hostfiles"
)

// BenchmarkPublish publishes that many sets of three files per operation, on
// the file system of TMPDIR, and reports besides the usual figures the time
// and the system calls of one set.
func BenchmarkPublish(b *testing.B) {
	for _, sets := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("changed/sets=%d", sets), func(b *testing.B) {
			benchmarkPublish(b, sets, sized(1000), sized(1001))
		})
		b.Run(fmt.Sprintf("unchanged/sets=%d", sets), func(b *testing.B) {
			benchmarkPublish(b, sets, sized(1000), sized(1000))
		})
	}
}

func benchmarkPublish(b *testing.B, sets int, contents ...[]hostfiles.File) {
	dir := b.TempDir()
	d := open(b, dir)
	next := 0
	once := func() {
		if err := publishSets(d, sets, contents[next%2]); err != nil {
			b.Fatal(err)
		}
		next++
	}
	once()
	once()
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*sets), "µs/set")
	calls := systemCalls(b, "counted", dir, fmt.Sprint(sets), fmt.Sprint(len(contents[next%2][0].Data)))
	b.ReportMetric(float64(calls)/float64(sets), "syscalls/set")
}

func publishSets(d *hostfiles.Dir, n int, files []hostfiles.File) error {
	for i := range n {
		if _, err := d.Publish(fmt.Sprint("set-", i), files); err != nil {
			return err
		}
	}
	return nil
}

func BenchmarkRead(b *testing.B) {
	d := open(b, b.TempDir())
	publish(b, d, "set", true, sized(1000)...)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Read("set"); err != nil {
			b.Fatal(err)
		}
	}
}
