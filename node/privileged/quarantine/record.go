package quarantine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// Bounds of a record.
const (
	maxRecord = 2 << 20 // bytes of its JSON
	maxXattrs = 128     // of one file
	maxXattr  = 64 << 10
	maxPath   = 4096
)

// ErrRecord is wrapped by every refusal of a record.
var ErrRecord = errors.New("malformed record of a quarantined file")

// State says how far a quarantine came.
type State string

// The states of a record.
const (
	Sealing State = "sealing" // the copy is whole; the file may still have its name
	Sealed  State = "sealed"  // the name is gone
)

// Xattr is one extended attribute; security.capability is one of them.
type Xattr struct {
	Name  string `json:"name"`
	Value []byte `json:"value"`
}

// Record is all that made a quarantined file what it was, but for its bytes.
type Record struct {
	ID         string    `json:"id"` // of the response
	State      State     `json:"state"`
	Path       string    `json:"path"` // no symbolic link in it
	Device     uint64    `json:"device"`
	Inode      uint64    `json:"inode"`
	Generation uint32    `json:"generation"` // of the inode's number; 0 where the file system does not say
	Size       int64     `json:"size"`
	SHA256     string    `json:"sha256"`
	Mode       uint32    `json:"mode"` // as stat(2) gives it, type included
	UID        uint32    `json:"uid"`
	GID        uint32    `json:"gid"`
	Links      uint64    `json:"links"` // names it had; under all but one it is where it was
	Accessed   time.Time `json:"accessed"`
	Modified   time.Time `json:"modified"`
	Flags      uint32    `json:"flags"` // FS_IOC_GETFLAGS: immutable, append-only
	Xattrs     []Xattr   `json:"xattrs,omitempty"`
	Key        []byte    `json:"key"` // AES-256 in counter mode
	At         time.Time `json:"at"`
	Blocked    uint64    `json:"blocked"` // CLOCK_BOOTTIME, ns, until which its execution is denied; void after a reboot
}

// Parse reads a record and holds it against its bounds.
func Parse(raw []byte) (*Record, error) {
	if len(raw) > maxRecord {
		return nil, fmt.Errorf("%w: %d bytes", ErrRecord, len(raw))
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var r Record
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrRecord, err)
	}
	switch {
	case !event.ValidResponseID(r.ID):
		return nil, fmt.Errorf("%w: id %.40q", ErrRecord, r.ID)
	case r.State != Sealing && r.State != Sealed:
		return nil, fmt.Errorf("%w: state %.20q", ErrRecord, string(r.State))
	case !filepath.IsAbs(r.Path) || filepath.Clean(r.Path) != r.Path || r.Path == "/" || len(r.Path) > maxPath || strings.IndexByte(r.Path, 0) >= 0:
		return nil, fmt.Errorf("%w: path %.80q", ErrRecord, r.Path)
	case len(r.Key) != keySize || len(r.SHA256) != 64 || r.Size < 0 || r.Size > MaxSize:
		return nil, fmt.Errorf("%w: key of %d bytes, hash of %d, size %d", ErrRecord, len(r.Key), len(r.SHA256), r.Size)
	case len(r.Xattrs) > maxXattrs:
		return nil, fmt.Errorf("%w: %d extended attributes", ErrRecord, len(r.Xattrs))
	}
	for _, x := range r.Xattrs {
		if len(x.Name) == 0 || len(x.Name) > 255 || len(x.Value) > maxXattr {
			return nil, fmt.Errorf("%w: extended attribute %.40q of %d bytes", ErrRecord, x.Name, len(x.Value))
		}
	}
	return &r, nil
}
