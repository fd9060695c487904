package bpf

import "golang.org/x/sys/unix"

const sysRenameat = unix.SYS_RENAMEAT

// oldFileCalls are the calls that came before a name could start from a descriptor.
func oldFileCalls() []fileCall {
	const no = none
	return []fileCall{
		{"open", unix.SYS_OPEN, "file_enter2", shape(recordFileWrite, no, 0, no, no).flags(1).how(shapeOpened)},
		{"creat", unix.SYS_CREAT, "file_enter2", shape(recordFileWrite, no, 0, no, no).how(shapeOpened | shapeCreates)},
		{"mkdir", unix.SYS_MKDIR, "file_enter2", shape(recordFileCreate, no, 0, no, no).mode(1)},
		{"mknod", unix.SYS_MKNOD, "file_enter2", shape(recordFileCreate, no, 0, no, no).mode(1)},
		{"rename", unix.SYS_RENAME, "file_enter2", shape(recordFileRename, no, 1, no, 0)},
		{"link", unix.SYS_LINK, "file_enter2", shape(recordFileLink, no, 1, no, 0)},
		{"symlink", unix.SYS_SYMLINK, "file_enter2", shape(recordFileLink, no, 1, no, 0).how(shapeRaw)},
		{"unlink", unix.SYS_UNLINK, "file_enter1", shape(recordFileUnlink, no, 0, no, no)},
		{"rmdir", unix.SYS_RMDIR, "file_enter1", shape(recordFileUnlink, no, 0, no, no)},
		{"chmod", unix.SYS_CHMOD, "file_enter2", shape(recordFileChmod, no, 0, no, no).mode(1)},
		{"chown", unix.SYS_CHOWN, "file_enter3", shape(recordFileChown, no, 0, no, no).owner(1, 2)},
		{"lchown", unix.SYS_LCHOWN, "file_enter3", shape(recordFileChown, no, 0, no, no).owner(1, 2)},
	}
}
