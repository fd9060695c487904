package bpf

import (
	"errors"
	"fmt"
	"strings"
	"structs"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// none says of an argument that a call has no such.
const none = 7

// How a call of kernel/files.c is to be read, besides its arguments.
const (
	shapeOpened = 1 << iota
	shapeRaw
	shapeHow
	shapeCreates
)

// callShape is the kernel side's call_shape: which argument is what.
type callShape struct {
	_              structs.HostLayout
	Kind           uint16
	Directory      uint8
	Name           uint8
	OtherDirectory uint8
	Other          uint8
	FD             uint8
	Mode           uint8
	UID            uint8
	GID            uint8
	Flags          uint8
	FS             uint8
	How            uint8
	_              [3]uint8
}

// fileCall is one system call of kernel/files.c: its shape, and which program reads its arguments.
type fileCall struct {
	name   string
	number uint32
	enter  string
	shape  callShape
}

// shape makes a call's shape: dir and name, other dir and other name, as arguments from 0.
func shape(kind uint16, dir, name, otherDir, other uint8) callShape {
	return callShape{Kind: kind, Directory: dir, Name: name, OtherDirectory: otherDir, Other: other, FD: none, Mode: none, UID: none, GID: none, Flags: none, FS: none}
}

func (s callShape) fd(n uint8) callShape           { s.FD = n; return s }
func (s callShape) mode(n uint8) callShape         { s.Mode = n; return s }
func (s callShape) owner(uid, gid uint8) callShape { s.UID, s.GID = uid, gid; return s }
func (s callShape) flags(n uint8) callShape        { s.Flags = n; return s }
func (s callShape) fs(n uint8) callShape           { s.FS = n; return s }
func (s callShape) how(h uint8) callShape          { s.How |= h; return s }

// fileCalls are the calls that every architecture has; oldFileCalls, beside them, those that only the older ones have. The
// numbers are those of the architecture this is built for.
func fileCalls() []fileCall {
	const no = none
	return append(oldFileCalls(), []fileCall{
		{"openat", unix.SYS_OPENAT, "file_enter3", shape(recordFileWrite, 0, 1, no, no).flags(2).how(shapeOpened)},
		{"openat2", unix.SYS_OPENAT2, "file_enter3", shape(recordFileWrite, 0, 1, no, no).flags(2).how(shapeOpened | shapeHow)},
		{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, "file_enter3", shape(recordFileWrite, no, no, no, no).flags(2).how(shapeOpened)},
		{"mkdirat", unix.SYS_MKDIRAT, "file_enter3", shape(recordFileCreate, 0, 1, no, no).mode(2)},
		{"mknodat", unix.SYS_MKNODAT, "file_enter3", shape(recordFileCreate, 0, 1, no, no).mode(2)},
		{"renameat", sysRenameat, "file_enter4", shape(recordFileRename, 2, 3, 0, 1)},
		{"renameat2", unix.SYS_RENAMEAT2, "file_enter5", shape(recordFileRename, 2, 3, 0, 1).flags(4)},
		{"linkat", unix.SYS_LINKAT, "file_enter5", shape(recordFileLink, 2, 3, 0, 1).flags(4)},
		{"symlinkat", unix.SYS_SYMLINKAT, "file_enter3", shape(recordFileLink, 1, 2, no, 0).how(shapeRaw)},
		{"unlinkat", unix.SYS_UNLINKAT, "file_enter3", shape(recordFileUnlink, 0, 1, no, no).flags(2)},
		{"fchmodat", unix.SYS_FCHMODAT, "file_enter3", shape(recordFileChmod, 0, 1, no, no).mode(2)},
		{"fchmodat2", unix.SYS_FCHMODAT2, "file_enter3", shape(recordFileChmod, 0, 1, no, no).mode(2)},
		{"fchmod", unix.SYS_FCHMOD, "file_enter2", shape(recordFileChmod, no, no, no, no).fd(0).mode(1)},
		{"fchownat", unix.SYS_FCHOWNAT, "file_enter5", shape(recordFileChown, 0, 1, no, no).owner(2, 3).flags(4)},
		{"fchown", unix.SYS_FCHOWN, "file_enter3", shape(recordFileChown, no, no, no, no).fd(0).owner(1, 2)},
		{"setxattr", unix.SYS_SETXATTR, "file_enter5", shape(recordFileXattr, no, 0, no, 1).how(shapeRaw)},
		{"lsetxattr", unix.SYS_LSETXATTR, "file_enter5", shape(recordFileXattr, no, 0, no, 1).how(shapeRaw)},
		{"fsetxattr", unix.SYS_FSETXATTR, "file_enter5", shape(recordFileXattr, no, no, no, 1).fd(0).how(shapeRaw)},
		{"removexattr", unix.SYS_REMOVEXATTR, "file_enter2", shape(recordFileXattr, no, 0, no, 1).how(shapeRaw)},
		{"lremovexattr", unix.SYS_LREMOVEXATTR, "file_enter2", shape(recordFileXattr, no, 0, no, 1).how(shapeRaw)},
		{"fremovexattr", unix.SYS_FREMOVEXATTR, "file_enter2", shape(recordFileXattr, no, no, no, 1).fd(0).how(shapeRaw)},
		{"truncate", unix.SYS_TRUNCATE, "file_enter2", shape(recordFileTruncate, no, 0, no, no)},
		{"ftruncate", unix.SYS_FTRUNCATE, "file_enter2", shape(recordFileTruncate, no, no, no, no).fd(0)},
		{"mount", unix.SYS_MOUNT, "file_enter5", shape(recordFileMount, no, 1, no, 0).fs(2).flags(3).how(shapeRaw)},
		{"move_mount", unix.SYS_MOVE_MOUNT, "file_enter5", shape(recordFileMount, 2, 3, 0, 1).flags(4)},
		{"umount", unix.SYS_UMOUNT2, "file_enter2", shape(recordFileUnmount, no, 0, no, no).flags(1)},
		{"pivot_root", unix.SYS_PIVOT_ROOT, "file_enter2", shape(recordFilePivot, no, 0, no, 1)},
	}...)
}

// attachFiles puts the programs at their calls. A call that this kernel lacks is a check of its own; only where none could
// be attached is it an error.
func (k *Kernel) attachFiles(c *ebpf.Collection) (string, error) {
	points, err := openTracepoints()
	if err != nil {
		return "", err
	}
	defer points.close()
	attached := 0
	var errs []error
	for _, f := range fileCalls() {
		if err := c.Maps["file_calls"].Put(f.number, f.shape); err != nil {
			return "", fmt.Errorf("name the call %s: %w", f.name, err)
		}
		err := func() error {
			for event, program := range map[string]string{"sys_exit_" + f.name: "file_leave", "sys_enter_" + f.name: f.enter} {
				l, err := points.attach(event, c.Programs[program])
				if err != nil {
					return err
				}
				k.links = append(k.links, l)
			}
			return nil
		}()
		if err != nil {
			errs = append(errs, err)
			k.checks = append(k.checks, Check{Name: "sensor/file/" + f.name, Detail: err.Error(), Lost: "what is changed by " + f.name + " is not seen"})
			continue
		}
		attached++
	}
	if attached == 0 {
		return "", errors.Join(errs...)
	}
	return fmt.Sprintf("a tracepoint a system call, %d of %d calls", attached, attached+len(errs)), nil
}

// Bounds of WatchFiles.
const (
	MaxWatchedFiles = 1024
	MaxWatchedPath  = 246 // bytes of one path
)

type watchPrefix struct {
	_    structs.HostLayout
	Bits uint32
	Path [248]byte
}

// WatchFiles says of which paths every change is told at once and none is gathered with others (watched), of which nothing is
// told (leftOut), and which are the agent's own (told as the watched ones are, without their flag, but for what the processes
// of SetProtected do), each with all below it; the longest that fits decides. It replaces what was said before.
// A path is absolute and clean, as the process's mount namespace sees it.
func (k *Kernel) WatchFiles(watched, leftOut, own []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.files == nil {
		return errors.New("file events are not to be had on this host")
	}
	want := map[watchPrefix]uint32{}
	for kind, paths := range [][]string{1: watched, 2: leftOut, 3: own} {
		for _, p := range paths {
			if len(p) == 0 || p[0] != '/' || len(p) > MaxWatchedPath || cleaned(p) != p || strings.IndexByte(p, 0) >= 0 {
				return fmt.Errorf("%q is no path to watch: it must be absolute, clean, and at most %d bytes", p, MaxWatchedPath)
			}
			for _, end := range []string{"\x00", "/"} { // the file itself, and what lies below
				if p == "/" {
					end = ""
				}
				key := watchPrefix{Bits: uint32(len(p)+len(end)) * 8}
				copy(key.Path[:], p+end)
				want[key] = uint32(kind)
			}
		}
	}
	if len(want) > MaxWatchedFiles {
		return fmt.Errorf("%d paths to watch, more than %d", len(watched)+len(leftOut)+len(own), MaxWatchedFiles/2)
	}
	m := k.files.Maps["watch_path"]
	var key watchPrefix
	var value uint32
	var gone []watchPrefix
	for it := m.Iterate(); it.Next(&key, &value); {
		if _, stays := want[key]; !stays {
			gone = append(gone, key)
		}
	}
	for _, key := range gone {
		if err := m.Delete(key); err != nil {
			return fmt.Errorf("watch no more: %w", err)
		}
	}
	for key, value := range want {
		if err := m.Put(key, value); err != nil {
			return fmt.Errorf("watch %s: %w", cString(key.Path[:]), err)
		}
	}
	return nil
}
