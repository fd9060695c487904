package immutable

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/node/privileged/quarantine"
	"github.com/omega-mesh/omega/swarm/event"
)

// Bounds.
const (
	MaxHolds  = 64       // at once
	MaxFiles  = 1024     // of one hold, folders included
	maxDepth  = 16       // folders in folders
	MaxCopy   = 16 << 20 // bytes of one file that is copied; a larger one is only denied
	maxCopies = 64 << 20 // bytes of all copies of one hold
	maxAll    = 256 << 20
	// spare is what copies leave free on the disk.
	spare     = 64 << 20
	maxRecord = 4 << 20
	maxPath   = 4096
	// maxOpen bounds the files of all holds: each is kept open.
	maxOpen = 4096
)

// ErrRecord is wrapped by every refusal of a record.
var ErrRecord = errors.New("malformed record of what may not be written")

// Record is one hold as it lies on disk.
type Record struct {
	ID      string    `json:"id"`
	Path    string    `json:"path"` // no symbolic link in it
	Boot    string    `json:"boot"` // of the kernel whose clock Expires is of
	Expires uint64    `json:"expires"`
	Until   time.Time `json:"until"` // the same by the wall clock, for another boot
	// Reverted: the file system has no immutable attribute. Nothing is refused there, and what is written is put back.
	Reverted bool `json:"reverted,omitempty"`
	// Files are the hold's own path first, and each folder before what is in it.
	Files []File `json:"files"`
	// Passed are links, sockets and the like in held folders: they have no such attribute, and their folder keeps their names.
	Passed []Passed `json:"passed,omitempty"`
}

// Passed is what is neither a file nor a folder.
type Passed struct {
	Name  Name   `json:"name"`
	Inode uint64 `json:"inode"`
}

// File is one file or folder as it was.
type File struct {
	Name    Name               `json:"name"` // below Path; "" is Path itself
	Device  uint64             `json:"device"`
	Inode   uint64             `json:"inode"`
	Mode    uint32             `json:"mode"` // as stat(2) gives it, type included
	UID     uint32             `json:"uid"`
	GID     uint32             `json:"gid"`
	Size    int64              `json:"size"`
	Changed unix.Timespec      `json:"changed"`          // its content, as stat(2) gives it
	Flags   uint32             `json:"flags"`            // FS_IOC_GETFLAGS, before
	Xattrs  []quarantine.Xattr `json:"xattrs,omitempty"` // by name
	Copied  bool               `json:"copied,omitempty"` // there is a copy to put back
}

// Name is a path below a hold's. It may hold any byte, and JSON's texts may not: so it is base64 there.
type Name string

// MarshalJSON implements json.Marshaler.
func (n Name) MarshalJSON() ([]byte, error) { return json.Marshal([]byte(n)) }

// UnmarshalJSON implements json.Unmarshaler.
func (n *Name) UnmarshalJSON(raw []byte) error {
	var b []byte
	err := json.Unmarshal(raw, &b)
	*n = Name(b)
	return err
}

// in is the folder that it lies in, and base its name there.
func (n Name) in() Name {
	if i := strings.LastIndexByte(string(n), '/'); i >= 0 {
		return n[:i]
	}
	return ""
}

func (n Name) base() string { return string(n[strings.LastIndexByte(string(n), '/')+1:]) }

func (n Name) valid() bool {
	s := string(n)
	return filepath.IsLocal(s) && filepath.Clean(s) == s && s != "." && len(s) <= maxPath && strings.IndexByte(s, 0) < 0
}

func (f *File) folder() bool { return f.Mode&unix.S_IFMT == unix.S_IFDIR }

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
	if !event.ValidResponseID(r.ID) || !validPath(r.Path) || len(r.Files) == 0 || len(r.Files) > MaxFiles || r.Files[0].Name != "" || len(r.Passed) > MaxFiles {
		return nil, fmt.Errorf("%w: id %.40q, path %.80q, %d files", ErrRecord, r.ID, r.Path, len(r.Files))
	}
	folders := map[Name]bool{}
	for i := range r.Files {
		f := &r.Files[i]
		if i > 0 && (!f.Name.valid() || !folders[f.Name.in()]) {
			return nil, fmt.Errorf("%w: file %.80q", ErrRecord, f.Name)
		}
		switch f.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			folders[f.Name] = true
		case unix.S_IFREG:
		default:
			return nil, fmt.Errorf("%w: %.80q is no file and no folder", ErrRecord, f.Name)
		}
		if f.Copied && (f.folder() || f.Size < 0 || f.Size > MaxCopy) {
			return nil, fmt.Errorf("%w: %.80q of %d bytes", ErrRecord, f.Name, f.Size)
		}
	}
	return &r, nil
}

func validPath(p string) bool {
	return filepath.IsAbs(p) && filepath.Clean(p) == p && p != "/" && len(p) <= maxPath && strings.IndexByte(p, 0) < 0
}
