package hostfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

const (
	// maxName leaves room within the 255 bytes of a file name for ours around it.
	maxName = 200

	// maxBytes is what a Kubernetes Secret may hold.
	maxBytes = 1 << 20

	// asCreated as UID or GID leaves what the system gives a new file.
	asCreated = -1

	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
)

// validateName admits what cannot be mistaken by a shell, a glob or a path:
// this rules out separators, "..", hidden files, and every name of our own.
func validateName(name string) error {
	if name == "" || len(name) > maxName || !strings.Contains(letters, name[:1]) ||
		strings.Trim(name, letters+".-") != "" {
		return fmt.Errorf("name %.210q is not 1 to %d letters, digits, '_', and later '.' and '-': %w", name, maxName, fs.ErrInvalid)
	}
	return nil
}

func validateFiles(files []File) error {
	if len(files) == 0 {
		return fmt.Errorf("no files: %w", fs.ErrInvalid)
	}
	var errs []error
	seen := make(map[string]bool, len(files))
	for _, f := range files {
		if err := validateFile(f, seen[f.Name]); err != nil {
			errs = append(errs, fmt.Errorf("file %.210q: %w", f.Name, err))
		}
		seen[f.Name] = true
	}
	return errors.Join(errs...)
}

func validateFile(f File, again bool) error {
	switch {
	case again:
		return fmt.Errorf("given twice: %w", fs.ErrInvalid)
	case f.Mode == 0 || f.Mode&^fs.ModePerm != 0:
		return fmt.Errorf("mode %#o is not one of permission bits: %w", uint32(f.Mode), fs.ErrInvalid)
	case f.UID < asCreated || f.GID < asCreated:
		return fmt.Errorf("owner %d:%d is negative: %w", f.UID, f.GID, fs.ErrInvalid)
	case len(f.Data) == 0 || len(f.Data) > maxBytes:
		return fmt.Errorf("%d bytes are not 1 to %d: %w", len(f.Data), maxBytes, fs.ErrInvalid)
	}
	return validateName(f.Name)
}
