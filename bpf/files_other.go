//go:build !amd64

package bpf

import "golang.org/x/sys/unix"

// Newer architectures have renameat2 alone, by which the same entry of the table is told.
const sysRenameat = unix.SYS_RENAMEAT2

// oldFileCalls are none here.
func oldFileCalls() []fileCall { return nil }
