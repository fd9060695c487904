package bpf

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"structs"
	"unsafe"

	"github.com/omega-mesh/omega/swarm/event"
)

// Kinds 11 to 23 of kernel/record.h, and which call a record of them tells of.
const (
	recordRights = iota + 11
	recordTrace
	recordSignal
	recordMemory
	recordNamespace
	recordKey
	recordUring
	recordKernel
)

const (
	opNone = iota
	opSetuid
	opSetreuid
	opSetresuid
	opSetfsuid
	opSetgid
	opSetregid
	opSetresgid
	opSetfsgid
	opSetgroups
	opCapset
	opPtrace
	opProcessVMWritev
	opSignal
	opMemfdCreate
	opMemfdSecret
	opMmap
	opMprotect
	opUnshare
	opSetns
	opKeyctl
	opAddKey
	opRequestKey
	opUring
	opInitModule
	opFinitModule
	opDeleteModule
	opBPF
	operations
)

type recordAccess struct {
	_           structs.HostLayout
	TargetStart uint64
	Number      uint64
	Gained      uint64
	Held        uint64
	Address     uint64
	Length      uint64
	TargetPID   uint32
	OldUID      uint32
	NewUID      uint32
	Result      int32
	Count       uint32
	Operation   uint16
	NameLen     uint16
}

const (
	accessSize = forkSize + int(unsafe.Sizeof(recordAccess{}))
	accessName = 256
)

// operationTable says what a record of each operation is an event of. Names as the system calls have them, but where one
// call does many things: those are named by what they do.
var operationTable = [operations]struct {
	class    event.Class
	activity event.Activity
	name     string
	named    bool // the record's name says more than the call's
}{
	opSetuid:          {event.ClassProcess, event.ActivitySetUID, "setuid", false},
	opSetreuid:        {event.ClassProcess, event.ActivitySetUID, "setreuid", false},
	opSetresuid:       {event.ClassProcess, event.ActivitySetUID, "setresuid", false},
	opSetfsuid:        {event.ClassProcess, event.ActivitySetUID, "setfsuid", false},
	opSetgid:          {event.ClassProcess, event.ActivitySetGID, "setgid", false},
	opSetregid:        {event.ClassProcess, event.ActivitySetGID, "setregid", false},
	opSetresgid:       {event.ClassProcess, event.ActivitySetGID, "setresgid", false},
	opSetfsgid:        {event.ClassProcess, event.ActivitySetGID, "setfsgid", false},
	opSetgroups:       {event.ClassProcess, event.ActivitySetGID, "setgroups", false},
	opCapset:          {event.ClassProcess, event.ActivityCapSet, "capset", false},
	opPtrace:          {event.ClassProcess, event.ActivityPtrace, "ptrace", false},
	opProcessVMWritev: {event.ClassProcess, event.ActivityProcessWrite, "process_vm_writev", false},
	opSignal:          {event.ClassProcess, event.ActivitySignal, "signal", false},
	opMemfdCreate:     {event.ClassMemory, event.ActivityMemfdCreate, "memfd_create", true},
	opMemfdSecret:     {event.ClassMemory, event.ActivityMemfdCreate, "memfd_secret", false},
	opMmap:            {event.ClassMemory, event.ActivityMemoryExecutable, "mmap", false},
	opMprotect:        {event.ClassMemory, event.ActivityMemoryExecutable, "mprotect", false},
	opUnshare:         {event.ClassProcess, event.ActivityUnshare, "unshare", false},
	opSetns:           {event.ClassProcess, event.ActivitySetNS, "setns", false},
	opKeyctl:          {event.ClassKernel, event.ActivityKeyctl, "keyctl", false},
	opAddKey:          {event.ClassKernel, event.ActivityKeyctl, "add_key", true},
	opRequestKey:      {event.ClassKernel, event.ActivityKeyctl, "request_key", true},
	opUring:           {event.ClassKernel, event.ActivityIOUring, "io_uring", false},
	opInitModule:      {event.ClassKernel, event.ActivityModuleLoad, "init_module", false},
	opFinitModule:     {event.ClassKernel, event.ActivityModuleLoad, "finit_module", false},
	opDeleteModule:    {event.ClassKernel, event.ActivityModuleUnload, "delete_module", true},
	opBPF:             {event.ClassKernel, event.ActivityBPF, "bpf", false},
}

// decodeAccess fills e from a record of kinds 11 to 23, whose header and process are read already.
func decodeAccess(b []byte, kind uint16, e *event.Event) error {
	if len(b) < accessSize {
		return errRecord
	}
	r := (*recordAccess)(unsafe.Pointer(&b[forkSize]))
	name := b[accessSize:]
	if r.Operation == opNone || r.Operation >= operations || int(r.NameLen) > len(name) || len(name) > accessName || kind > recordKernel {
		return errRecord
	}
	name = name[:r.NameLen]
	o := &operationTable[r.Operation]
	e.Class, e.Activity, e.Result, e.Count = o.class, o.activity, r.Result, r.Count
	e.Access = event.Access{
		Operation: o.name,
		Target:    event.ProcessKey{PID: r.TargetPID, Start: r.TargetStart},
		Number:    r.Number, OldUID: r.OldUID, NewUID: r.NewUID, Gained: r.Gained, Address: r.Address, Length: r.Length,
	}
	if o.named && len(name) > 0 {
		e.Access.Operation = cString(name)
	}
	switch r.Operation {
	case opPtrace:
		e.Access.Operation = named(ptraceNames, r.Number, o.name)
	case opSignal:
		e.Access.Operation = named(signalNames, r.Number, o.name)
	case opKeyctl:
		e.Access.Operation = nth(keyctlNames[:], r.Number, o.name)
	case opBPF:
		e.Access.Operation = nth(bpfNames[:], r.Number, o.name)
		if e.Access.Number, e.Access.Length = r.Length, 0; len(name) > 0 {
			e.File.Path = cString(name) // a program's name
		}
	case opUring:
		e.Access.Operation = nth(uringNames[:], r.Number, o.name)
		if r.Number == uringConnect {
			e.Network.Remote = socketAddress(name)
			e.Network.Protocol = 0
		} else {
			e.File.Path = cString(name)
		}
	}
	return nil
}

// socketAddress reads a struct sockaddr_in or sockaddr_in6; anything else is no address.
func socketAddress(b []byte) netip.AddrPort {
	if len(b) < 8 {
		return netip.AddrPort{}
	}
	port := binary.BigEndian.Uint16(b[2:])
	switch family := binary.NativeEndian.Uint16(b); {
	case family == 2:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port)
	case family == 10 && len(b) >= 24:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])).Unmap(), port)
	}
	return netip.AddrPort{}
}

func nth(names []string, n uint64, otherwise string) string {
	if n < uint64(len(names)) && names[n] != "" {
		return names[n]
	}
	return otherwise
}

type numbered struct {
	number uint64
	name   string
}

func named(names []numbered, n uint64, otherwise string) string {
	for i := range names {
		if names[i].number == n {
			return names[i].name
		}
	}
	return otherwise
}

// Names as the kernel's headers have them: tables, never changed.
var (
	ptraceNames = []numbered{{4, "PTRACE_POKETEXT"}, {5, "PTRACE_POKEDATA"}, {6, "PTRACE_POKEUSR"}, {13, "PTRACE_SETREGS"}, {15, "PTRACE_SETFPREGS"},
		{16, "PTRACE_ATTACH"}, {0x4205, "PTRACE_SETREGSET"}, {0x4206, "PTRACE_SEIZE"}}
	signalNames = []numbered{{1, "SIGHUP"}, {2, "SIGINT"}, {3, "SIGQUIT"}, {4, "SIGILL"}, {5, "SIGTRAP"}, {6, "SIGABRT"}, {7, "SIGBUS"}, {8, "SIGFPE"}, {9, "SIGKILL"},
		{10, "SIGUSR1"}, {11, "SIGSEGV"}, {12, "SIGUSR2"}, {13, "SIGPIPE"}, {14, "SIGALRM"}, {15, "SIGTERM"}, {18, "SIGCONT"}, {19, "SIGSTOP"}, {20, "SIGTSTP"},
		{21, "SIGTTIN"}, {22, "SIGTTOU"}}
	keyctlNames = strings.Fields(`KEYCTL_GET_KEYRING_ID KEYCTL_JOIN_SESSION_KEYRING KEYCTL_UPDATE KEYCTL_REVOKE KEYCTL_CHOWN KEYCTL_SETPERM
		KEYCTL_DESCRIBE KEYCTL_CLEAR KEYCTL_LINK KEYCTL_UNLINK KEYCTL_SEARCH KEYCTL_READ KEYCTL_INSTANTIATE KEYCTL_NEGATE
		KEYCTL_SET_REQKEY_KEYRING KEYCTL_SET_TIMEOUT KEYCTL_ASSUME_AUTHORITY KEYCTL_GET_SECURITY KEYCTL_SESSION_TO_PARENT KEYCTL_REJECT
		KEYCTL_INSTANTIATE_IOV KEYCTL_INVALIDATE KEYCTL_GET_PERSISTENT KEYCTL_DH_COMPUTE KEYCTL_PKEY_QUERY KEYCTL_PKEY_ENCRYPT KEYCTL_PKEY_DECRYPT
		KEYCTL_PKEY_SIGN KEYCTL_PKEY_VERIFY KEYCTL_RESTRICT_KEYRING KEYCTL_MOVE KEYCTL_CAPABILITIES KEYCTL_WATCH_KEY`)
	bpfNames = strings.Fields(`BPF_MAP_CREATE BPF_MAP_LOOKUP_ELEM BPF_MAP_UPDATE_ELEM BPF_MAP_DELETE_ELEM BPF_MAP_GET_NEXT_KEY BPF_PROG_LOAD
		BPF_OBJ_PIN BPF_OBJ_GET BPF_PROG_ATTACH BPF_PROG_DETACH BPF_PROG_TEST_RUN BPF_PROG_GET_NEXT_ID BPF_MAP_GET_NEXT_ID BPF_PROG_GET_FD_BY_ID
		BPF_MAP_GET_FD_BY_ID BPF_OBJ_GET_INFO_BY_FD BPF_PROG_QUERY BPF_RAW_TRACEPOINT_OPEN BPF_BTF_LOAD BPF_BTF_GET_FD_BY_ID BPF_TASK_FD_QUERY
		BPF_MAP_LOOKUP_AND_DELETE_ELEM BPF_MAP_FREEZE BPF_BTF_GET_NEXT_ID BPF_MAP_LOOKUP_BATCH BPF_MAP_LOOKUP_AND_DELETE_BATCH BPF_MAP_UPDATE_BATCH
		BPF_MAP_DELETE_BATCH BPF_LINK_CREATE BPF_LINK_UPDATE BPF_LINK_GET_FD_BY_ID BPF_LINK_GET_NEXT_ID BPF_ENABLE_STATS BPF_ITER_CREATE
		BPF_LINK_DETACH BPF_PROG_BIND_MAP BPF_TOKEN_CREATE BPF_PROG_STREAM_READ_BY_FD`)
	uringNames = strings.Fields(`IORING_OP_NOP IORING_OP_READV IORING_OP_WRITEV IORING_OP_FSYNC IORING_OP_READ_FIXED IORING_OP_WRITE_FIXED
		IORING_OP_POLL_ADD IORING_OP_POLL_REMOVE IORING_OP_SYNC_FILE_RANGE IORING_OP_SENDMSG IORING_OP_RECVMSG IORING_OP_TIMEOUT
		IORING_OP_TIMEOUT_REMOVE IORING_OP_ACCEPT IORING_OP_ASYNC_CANCEL IORING_OP_LINK_TIMEOUT IORING_OP_CONNECT IORING_OP_FALLOCATE
		IORING_OP_OPENAT IORING_OP_CLOSE IORING_OP_FILES_UPDATE IORING_OP_STATX IORING_OP_READ IORING_OP_WRITE IORING_OP_FADVISE
		IORING_OP_MADVISE IORING_OP_SEND IORING_OP_RECV IORING_OP_OPENAT2 IORING_OP_EPOLL_CTL IORING_OP_SPLICE IORING_OP_PROVIDE_BUFFERS
		IORING_OP_REMOVE_BUFFERS IORING_OP_TEE IORING_OP_SHUTDOWN IORING_OP_RENAMEAT IORING_OP_UNLINKAT IORING_OP_MKDIRAT IORING_OP_SYMLINKAT
		IORING_OP_LINKAT IORING_OP_MSG_RING IORING_OP_FSETXATTR IORING_OP_SETXATTR IORING_OP_FGETXATTR IORING_OP_GETXATTR IORING_OP_SOCKET
		IORING_OP_URING_CMD IORING_OP_SEND_ZC IORING_OP_SENDMSG_ZC IORING_OP_READ_MULTISHOT IORING_OP_WAITID IORING_OP_FUTEX_WAIT
		IORING_OP_FUTEX_WAKE IORING_OP_FUTEX_WAITV IORING_OP_FIXED_FD_INSTALL IORING_OP_FTRUNCATE IORING_OP_BIND IORING_OP_LISTEN IORING_OP_RECV_ZC
		IORING_OP_EPOLL_WAIT IORING_OP_READV_FIXED IORING_OP_WRITEV_FIXED IORING_OP_PIPE`)
)

const uringConnect = 16
