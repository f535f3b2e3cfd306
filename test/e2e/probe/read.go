package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A set is judged by how its files fit together. One that was complete once must
// stay so.
var judges = map[string]func(files map[string][]byte) error{
	"cluster": func(files map[string][]byte) error {
		if got, want := string(files["CLUSTERID"]), fmt.Sprintf("CLUSTERID=%q\n", files["cluster-id"]); got != want {
			return fmt.Errorf("CLUSTERID is %q, want %q", got, want)
		}
		return nil
	},
	// The suite makes secrets that end with their key's ID. Values are secret: no
	// complaint quotes them.
	"aws": func(files map[string][]byte) error {
		values := map[string]string{}
		for line := range strings.Lines(string(files["credentials.ini"])) {
			if key, value, ok := strings.Cut(line, "="); ok {
				values[strings.TrimSpace(key)] = strings.TrimSpace(value)
			}
		}
		if id := values["aws_access_key_id"]; id == "" || !strings.HasSuffix(values["aws_secret_access_key"], id) {
			return fmt.Errorf("credentials.ini has no pair, or one that does not fit")
		}
		return nil
	},
	"scraper": func(files map[string][]byte) error {
		if _, err := tls.X509KeyPair(files["tls.crt"], files["tls.key"]); err != nil {
			return err
		}
		if !bytes.Equal(files["tls.pem"], append(bytes.Clone(files["tls.crt"]), files["tls.key"]...)) {
			return errors.New("tls.pem is another pair than tls.crt and tls.key")
		}
		return nil
	},
}

// prompt is how long a reading may take to be judged. Readers are promised the
// generation just replaced until the next look at its set, and the suite has sets
// published once a second: who is held up for longer may find nothing.
const prompt = 200 * time.Millisecond

// read says every second how often it has read the sets that are there, and at once
// what does not fit together.
func read(ctx context.Context, dir string) error {
	complete := map[string]bool{}
	readings, said := 0, time.Now()
	for ctx.Err() == nil {
		for name, judge := range judges {
			begin := time.Now()
			err := judgeSet(filepath.Join(dir, name), judge)
			switch {
			case err == nil:
				complete[name] = true
			case complete[name] && time.Since(begin) < prompt:
				fmt.Printf("violation: %s: %v\n", name, err)
			}
		}
		readings++
		if time.Since(said) >= time.Second {
			fmt.Printf("readings: %d of %d sets\n", readings, len(complete))
			said = time.Now()
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Millisecond): // leave the machine to others
		}
	}
	return nil
}

// judgeSet reads a set as docs/files.md tells readers to whose files must agree: by
// one opening of ..data.
func judgeSet(set string, judge func(map[string][]byte) error) error {
	data, err := os.OpenRoot(filepath.Join(set, "..data"))
	if err != nil {
		return err
	}
	defer data.Close()
	files := map[string][]byte{}
	names, err := fs.ReadDir(data.FS(), ".")
	if err != nil {
		return err
	}
	for _, name := range names {
		if files[name.Name()], err = data.ReadFile(name.Name()); err != nil {
			return err
		}
	}
	return judge(files)
}
