package config

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
)

// Files says who may read the secret files of a set on the node. Files without
// secrets are readable by everyone and not affected.
type Files struct {
	// Mode holds the permission bits, e.g. "0440": read and write for owner and
	// group at most.
	Mode FileMode `json:"mode"`
	// UID is the numeric owner. 0 is root.
	UID int `json:"uid"`
	// GID is the numeric group, by default 65534 (nobody), which exporters
	// usually run as.
	GID int `json:"gid"`
}

func defaultFiles() Files { return Files{Mode: 0o440, UID: 0, GID: 65534} }

// maxID is the highest user or group ID that Kubernetes lets a pod run as.
const maxID = 1<<31 - 1

func (f Files) validate(path string, ps *problems) {
	at := path + ".mode"
	switch {
	case f.Mode&0o007 != 0:
		ps.add(at, f.Mode, "want 0 as the last digit: these files hold secrets, and it would let every user of the node at them")
	case f.Mode&^0o660 != 0:
		ps.add(at, f.Mode, "want only digits 0, 2, 4 and 6, as in %q: these files are not programs", FileMode(0o440))
	case f.Mode&0o440 == 0:
		ps.add(at, f.Mode, "want owner or group able to read, as in %q", FileMode(0o440))
	}
	const why = "the IDs that Kubernetes lets a pod run as"
	ps.number(path+".uid", f.UID, 0, maxID, why)
	ps.number(path+".gid", f.GID, 0, maxID, why)
}

// FileMode holds the nine permission bits and the three above them. In the file
// it is text of octal digits, e.g. "0440". fs.FileMode(m) suits modes up to 0777,
// and validation lets no other pass.
type FileMode uint32

// String returns four octal digits, e.g. "0440".
func (m FileMode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// MarshalJSON writes the text form.
func (m FileMode) MarshalJSON() ([]byte, error) { return json.Marshal(m.String()) }

var octalMode = regexp.MustCompile(`^[0-7]{3,4}$`)

// UnmarshalJSON reads the text form. A number is an error, since 0440 and 440
// would mean different modes.
func (m *FileMode) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	if !octalMode.MatchString(text) {
		return fmt.Errorf("file mode %q: want three or four octal digits", text)
	}
	bits, err := strconv.ParseUint(text, 8, 32)
	*m = FileMode(bits)
	return err
}
