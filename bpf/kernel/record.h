// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// The contract between the kernel half and the reader: what a record in the ring looks like. Each record is a header,
// a fixed part by kind, then (exec only) four strings one after the other. All integers are the machine's own.
// bpf/record.go has the same layout; a test compares the two through the object's BTF.
#ifndef OMEGA_RECORD_H
#define OMEGA_RECORD_H

enum record_kind {
	RECORD_FORK = 1,
	RECORD_EXEC = 2,
	RECORD_EXIT = 3,
	RECORD_CONNECT = 4,
	RECORD_ACCEPT = 5, // without a process: established; with one: accept() gave it to that process
	RECORD_LISTEN = 6,
	RECORD_CLOSE = 7,
	RECORD_REFUSE = 8, // a local process was refused an address
	RECORD_PROBE = 9,  // an inbound SYN; no process
	RECORD_KILL = 10,  // an execution was denied
	// 11 to 23: processes, their rights and memory
	RECORD_RIGHTS = 11,    // setuid, setgid, capset and theirs
	RECORD_TRACE = 12,     // ptrace, process_vm_writev
	RECORD_SIGNAL = 13,    // to a process of the agent
	RECORD_MEMORY = 14,    // memfd_create, anonymous memory made executable
	RECORD_NAMESPACE = 15, // unshare, setns
	RECORD_KEY = 16,
	RECORD_URING = 17,
	RECORD_KERNEL = 18, // modules, bpf()
	RECORD_FILE_WRITE = 24, // opened to write
	RECORD_FILE_CREATE = 25,
	RECORD_FILE_RENAME = 26,
	RECORD_FILE_LINK = 27, // hard or symbolic
	RECORD_FILE_UNLINK = 28,
	RECORD_FILE_CHMOD = 29,
	RECORD_FILE_CHOWN = 30,
	RECORD_FILE_XATTR = 31, // set or removed
	RECORD_FILE_TRUNCATE = 32,
	RECORD_FILE_MOUNT = 33,
	RECORD_FILE_UNMOUNT = 34,
	RECORD_FILE_PIVOT = 35,
	// up to 39: files; 40 to 47: flows and names; 48 to 55: the agent itself
	RECORD_QUERY = 40,  // a DNS message went to port 53
	RECORD_ANSWER = 41, // one came from there
	RECORD_HELLO = 42,  // the first bytes of a TLS ClientHello
	RECORD_DATAGRAMS = 43,     // a process's first datagram to, or from, an address
	RECORD_DATAGRAMS_END = 44, // its socket was closed
	RECORD_BIND = 45,
	RECORD_SOCKET = 46,  // a raw or packet socket was opened
	RECORD_SUSPECT = 47, // never written: answers not let in, since no room was left to remember a denied name's address
	RECORD_TAMPER = 48,  // a link of the agent's was taken off, or given another program
	RECORD_MOVED = 49,   // a process of the agent's was put into another cgroup
	RECORD_MAP_WRITE = 50, // never written: writes to the agent's maps beyond what is told
	RECORD_KINDS = 56,
};

#define RECORD_FLAG_MEMFD 1
#define RECORD_FLAG_DELETED 2
#define RECORD_FLAG_STDIN_SOCKET 8
#define RECORD_FLAG_STDOUT_SOCKET 16
#define RECORD_FLAG_STDERR_SOCKET 32
#define RECORD_FLAG_UPPER_LAYER 64
#define RECORD_FLAG_ARGS_TRUNCATED 128
#define RECORD_FLAG_WORLD_WRITABLE 512
#define RECORD_FLAG_KILLED 1024
#define RECORD_FLAG_SCRIPT 2048
#define RECORD_FLAG_SETID 4096
#define RECORD_FLAG_BEFORE 8192
#define RECORD_FLAG_PATH_CUT 16384 // a name of the record is not whole
#define RECORD_FLAG_WATCHED 32768  // under a watched path
// For the reader alone, no event has them.
#define RECORD_FLAG_THREAD (1U << 29)  // done by another thread than the first of its process
#define RECORD_FLAG_USER_NS (1U << 30) // in a user namespace of its own, where capabilities are its own affair
#define RECORD_FLAG_MUTED (1U << 31)   // a filter mutes it: it keeps lineage right and goes no further

struct record_header {
	__u16 kind;
	__u16 size; // of the whole record, header and strings included
	__u32 flags; // RECORD_FLAG_*
	__u64 boot;  // CLOCK_BOOTTIME, ns
};

// Who: 136 bytes.
struct record_process {
	__u64 start; // CLOCK_BOOTTIME, ns
	__u64 parent_start;
	__u64 cgroup;
	__u64 inode;
	__u64 caps;
	__s64 changed; // ctime of the executable, seconds since 1970: unlike mtime no owner can set it back
	__u32 pid;
	__u32 parent_pid;
	__u32 uid;
	__u32 gid;
	__u32 euid;
	__u32 egid;
	__u32 device; // the kernel's own encoding: major << 20 | minor
	__u32 mount_ns;
	__u32 pid_ns;
	__u32 net_ns;
	__u32 login_uid;
	__s32 exit_code;
	__u32 session;
	char tty[12]; // "pts/3", "ttyS0"; zeros without one
	char comm[16];
};

struct record_network {
	__u8 local[16];  // IPv4 as ::ffff:a.b.c.d
	__u8 remote[16];
	__u64 bytes_in;
	__u64 bytes_out;
	__u64 duration; // ns
	__u64 cookie; // the kernel's number of the socket, never used again; 0: not known
	__u16 local_port;  // host order
	__u16 remote_port; // host order
	__u8 protocol;
	__u8 inbound;
	__u16 repeats; // further events of the same kind that this one stands for
};

#define EXE_MAX 512
#define ARGS_MAX 1024
#define CWD_MAX 512
#define SCRIPT_MAX 256

struct record_strings {
	__u16 exe_len;
	__u16 args_len;
	__u16 cwd_len;
	__u16 script_len;
};

struct record_fork { // and exit
	struct record_header header;
	struct record_process process;
};

struct record_exec {
	struct record_header header;
	struct record_process process;
	struct record_strings strings;
	char data[EXE_MAX + ARGS_MAX + CWD_MAX + SCRIPT_MAX];
};

struct record_flow { // connect, accept, listen, close, refuse, probe
	struct record_header header;
	struct record_process process;
	struct record_network network;
};

// Which call it was: the reader's table (bpf/record_rights.go) has the same order.
enum operation {
	OPERATION_NONE,
	OPERATION_SETUID,
	OPERATION_SETREUID,
	OPERATION_SETRESUID,
	OPERATION_SETFSUID,
	OPERATION_SETGID,
	OPERATION_SETREGID,
	OPERATION_SETRESGID,
	OPERATION_SETFSGID,
	OPERATION_SETGROUPS,
	OPERATION_CAPSET,
	OPERATION_PTRACE,
	OPERATION_PROCESS_VM_WRITEV,
	OPERATION_SIGNAL,
	OPERATION_MEMFD_CREATE,
	OPERATION_MEMFD_SECRET,
	OPERATION_MMAP,
	OPERATION_MPROTECT,
	OPERATION_UNSHARE,
	OPERATION_SETNS,
	OPERATION_KEYCTL,
	OPERATION_ADD_KEY,
	OPERATION_REQUEST_KEY,
	OPERATION_URING,
	OPERATION_INIT_MODULE,
	OPERATION_FINIT_MODULE,
	OPERATION_DELETE_MODULE,
	OPERATION_BPF,
	OPERATIONS,
};

#define ACCESS_NAME 256

struct record_access { // kinds 11 to 23
	struct record_header header;
	struct record_process process;
	__u64 target_start; // 0: not known
	__u64 number;       // flags, the signal, the kind of program; of ptrace, bpf, keyctl and io_uring which of theirs
	__u64 gained;       // capabilities
	__u64 held;         // capabilities after the call
	__u64 address;
	__u64 length;
	__u32 target_pid;
	__u32 old_uid; // effective
	__u32 new_uid;
	__s32 result;
	__u32 count; // like it before this one, not told
	__u16 operation;
	__u16 name_len;
	char name[ACCESS_NAME];
};

#define FILE_NAME_MAX 4096
#define FILE_DATA 9472 // two names of FILE_NAME_MAX, each after a folder of EXE_MAX, and some

struct record_file { // kinds 24 to 35
	struct record_header header;
	struct record_process process;
	__u64 inode; // 0: the call had a name and no descriptor
	__u32 device;
	__u32 mode;
	__u32 uid;
	__u32 gid;
	__u32 flags; // of open, mount and their like
	__s32 result;
	__u32 count; // like it before this one, not told
	__u16 path_len;
	__u16 other_len;
	char fs[16]; // of a mount
	char data[FILE_DATA];
};

#define NAME_SMALL 128
#define NAME_MEDIUM 512
#define NAME_LARGE 2048

#define TAMPER_NAME 128

struct record_tamper { // kinds 48 and 49; the first the privileged half writes once it has looked, with the process that an alarm named
	struct record_header header;
	struct record_process process; // zeros: not known
	__u32 link;    // or the map, by what command does; or the process that was moved
	__u32 command; // of bpf(); 0: not seen
	__s32 result;  // of putting it back
	__u32 name_len;
	char name[TAMPER_NAME]; // what was taken off, or the cgroup it was moved to
};

struct record_name { // query, answer, hello: NAME_SMALL, NAME_MEDIUM or NAME_LARGE bytes follow
	struct record_header header;
	struct record_process process;
	struct record_network network;
	__u32 length; // of what is meant
	__u32 whole;  // how long the message was
	__u32 offset; // of a hello: how much of it came in earlier segments
	__u32 pad;
};

#endif
