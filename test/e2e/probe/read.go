package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// prompt is how long a reading may take to be judged. Readers are promised the
// generation just replaced until the set changes again, and the suite has sets change
// once a second: who is held up for longer may find nothing.
const prompt = 200 * time.Millisecond

// read says every second how often it has read the sets that are there, and at once
// what does not fit together.
func read(ctx context.Context, dir string) error {
	sets := map[string]*set{}
	for name, fit := range judges {
		sets[name] = &set{fit: fit, seen: map[string]bool{}}
	}
	readings, said := 0, time.Now()
	for ctx.Err() == nil {
		there := 0
		for name, set := range sets {
			begin := time.Now()
			files, err := readSet(filepath.Join(dir, name))
			if time.Since(begin) < prompt {
				if err == nil {
					err = set.judge(files)
				}
				if err != nil && len(set.seen) > 0 {
					fmt.Printf("violation: %s: %v\n", name, err)
				}
			}
			if len(set.seen) > 0 {
				there++
			}
		}
		readings++
		if time.Since(said) >= time.Second {
			fmt.Printf("readings: %d of %d sets\n", readings, there)
			said = time.Now()
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Millisecond): // leave the machine to others
		}
	}
	return nil
}

// readSet reads a set as docs/files.md tells readers to whose files must agree: by
// one opening of ..data.
func readSet(set string) (map[string][]byte, error) {
	data, err := os.OpenRoot(filepath.Join(set, "..data"))
	if err != nil {
		return nil, err
	}
	defer data.Close()
	names, err := fs.ReadDir(data.FS(), ".")
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, name := range names {
		if files[name.Name()], err = data.ReadFile(name.Name()); err != nil {
			return nil, err
		}
	}
	return files, nil
}
