package bpf

import (
	"path"
	"strings"
	"structs"
	"unsafe"

	"github.com/omega-mesh/omega/swarm/event"
)

// The kinds of file records, in the order of kernel/record.h.
const (
	recordFileWrite = iota + 24
	recordFileCreate
	recordFileRename
	recordFileLink
	recordFileUnlink
	recordFileChmod
	recordFileChown
	recordFileXattr
	recordFileTruncate
	recordFileMount
	recordFileUnmount
	recordFilePivot
)

// fileActivities says what each kind is; a table, never changed.
var fileActivities = [...]event.Activity{
	recordFileWrite:    event.ActivityFileWrite,
	recordFileCreate:   event.ActivityFileCreate,
	recordFileRename:   event.ActivityFileRename,
	recordFileLink:     event.ActivityFileLink,
	recordFileUnlink:   event.ActivityFileUnlink,
	recordFileChmod:    event.ActivityFileChmod,
	recordFileChown:    event.ActivityFileChown,
	recordFileXattr:    event.ActivityFileSetXattr,
	recordFileTruncate: event.ActivityFileWrite,
	recordFileMount:    event.ActivityMount,
	recordFileUnmount:  event.ActivityUnmount,
	recordFilePivot:    event.ActivityPivotRoot,
}

// recordFile is the fixed part that follows the process in a file record.
type recordFile struct {
	_        structs.HostLayout
	Inode    uint64
	Device   uint32
	Mode     uint32
	UID      uint32
	GID      uint32
	Flags    uint32
	Result   int32
	Count    uint32
	PathLen  uint16
	OtherLen uint16
	FS       [16]byte
}

const (
	fileSize = forkSize + int(unsafe.Sizeof(recordFile{}))
	fileData = 9472 // FILE_DATA
)

// decodeFile fills e from a file record. Of a path as the kernel gives it nothing is copied; one with "." or ".." in it,
// which only a caller's own memory can hold, is cleaned, and only that allocates.
func decodeFile(b []byte, kind uint16, e *event.Event) error {
	if len(b) < fileSize || len(b) > fileSize+fileData {
		return errRecord
	}
	f := (*recordFile)(unsafe.Pointer(&b[forkSize]))
	data := b[fileSize:]
	if int(f.PathLen)+int(f.OtherLen) != len(data) {
		return errRecord
	}
	e.Class, e.Activity = event.ClassFile, fileActivities[kind]
	e.Result, e.Count = f.Result, f.Count
	e.File = event.File{
		Path: cleaned(view(data[:f.PathLen])), Other: view(data[f.PathLen:]),
		Inode: f.Inode, Device: uint64(f.Device), Mode: f.Mode, UID: f.UID, GID: f.GID, Flags: f.Flags, FS: cString(f.FS[:]),
	}
	if kind == recordFileRename || kind == recordFilePivot {
		e.File.Other = cleaned(e.File.Other)
	}
	return nil
}

// cleaned takes the steps to nowhere out of an absolute path; any other is given back as it is.
func cleaned(p string) string {
	if p == "" || p[0] != '/' {
		return p
	}
	if strings.Contains(p, "/.") || strings.Contains(p, "//") || len(p) > 1 && p[len(p)-1] == '/' {
		return path.Clean(p)
	}
	return p
}
