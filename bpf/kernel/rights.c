//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Sensor: what processes do to their own rights, to each other's memory, and to the kernel. One tracepoint a system call,
// never sys_enter or sys_exit, which every call of every process would pay for. A call is kept at its start and told at
// its end, with its result.
#define SCOPE_CLASS 1003
#include "scope.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// What the kernel gives a program at a system call's tracepoint has a fixed layout.
struct enter_context {
	__u64 common;
	long nr;
	unsigned long args[6];
};
struct exit_context {
	__u64 common;
	long nr;
	long ret;
};

// Number of each watched system call → operation. User space fills it: numbers are the architecture's.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
} watched_calls SEC(".maps");

// A call that has begun. It holds what the record needs, so that at the end nothing is read from the caller's memory, which
// another thread may have changed.
struct call {
	enum operation operation;
	__u32 euid;
	__u32 uid;
	__u32 gid;
	__u32 egid;
	__u32 name_len;
	__u64 caps;
	__u64 number;
	__u64 address;
	__u64 length;
	__u32 target;
	__u32 new_uid;
	char name[ACCESS_NAME];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64); // thread
	__type(value, struct call);
} calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2); // 0 for system calls, 1 for io_uring: neither interrupts its own kind
	__type(key, __u32);
	__type(value, struct call);
} call_scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct record_access);
} access_scratch SEC(".maps");

// What a process does over and over is told once a second, with how often it was done meanwhile.
struct repeat_key {
	__u64 start; // of the process
	__u32 tgid;
	__u32 what;
};

struct repeat {
	__u64 since;
	__u64 count;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct repeat_key);
	__type(value, struct repeat);
} repeats SEC(".maps");

#define REPEAT_WINDOW 1000000000ULL // ns

// first says whether to tell of this one, and in count how many before it were not told.
static __always_inline bool first(struct task_struct *task, __u32 what, __u32 *count)
{
	struct repeat_key key = { .start = task->group_leader->start_boottime, .tgid = task->tgid, .what = what };
	__u64 now = bpf_ktime_get_boot_ns();
	struct repeat *r = bpf_map_lookup_elem(&repeats, &key);
	*count = 0;
	if (!r) {
		struct repeat begun = { .since = now };
		bpf_map_update_elem(&repeats, &key, &begun, BPF_ANY);
		return true;
	}
	if (now - r->since < REPEAT_WINDOW) {
		__sync_fetch_and_add(&r->count, 1);
		return false;
	}
	*count = r->count;
	r->count = 0;
	r->since = now;
	return true;
}

#define PTRACE_POKETEXT 4
#define PTRACE_POKEDATA 5
#define PTRACE_POKEUSR 6
#define PTRACE_SETREGS 13
#define PTRACE_SETFPREGS 15
#define PTRACE_ATTACH 16
#define PTRACE_SETREGSET 0x4205
#define PTRACE_SEIZE 0x4206

#define BPF_MAP_UPDATE 2
#define BPF_PROG_LOAD 5
#define BPF_OBJ_PIN 6
#define BPF_PROG_ATTACH 8
#define BPF_PROG_DETACH 9
#define BPF_RAW_TRACEPOINT_OPEN 17
#define BPF_LINK_CREATE 28
#define BPF_LINK_UPDATE 29
#define BPF_LINK_DETACH 34

static __always_inline __u16 kind_of(__u32 operation)
{
	if (operation <= OPERATION_CAPSET)
		return RECORD_RIGHTS;
	if (operation <= OPERATION_PROCESS_VM_WRITEV)
		return RECORD_TRACE;
	if (operation == OPERATION_SIGNAL)
		return RECORD_SIGNAL;
	if (operation <= OPERATION_MPROTECT)
		return RECORD_MEMORY;
	if (operation <= OPERATION_SETNS)
		return RECORD_NAMESPACE;
	if (operation <= OPERATION_REQUEST_KEY)
		return RECORD_KEY;
	if (operation == OPERATION_URING)
		return RECORD_URING;
	return RECORD_KERNEL;
}

// told says which requests of the calls that do many things are worth a record.
static __always_inline bool told(__u32 operation, __u64 what)
{
	if (operation == OPERATION_PTRACE)
		return what == PTRACE_ATTACH || what == PTRACE_SEIZE || what == PTRACE_POKETEXT || what == PTRACE_POKEDATA ||
		       what == PTRACE_POKEUSR || what == PTRACE_SETREGS || what == PTRACE_SETFPREGS || what == PTRACE_SETREGSET;
	if (operation == OPERATION_BPF)
		return what == BPF_PROG_LOAD || what == BPF_PROG_ATTACH || what == BPF_LINK_CREATE || what == BPF_MAP_UPDATE ||
		       what == BPF_OBJ_PIN || what == BPF_PROG_DETACH || what == BPF_RAW_TRACEPOINT_OPEN || what == BPF_LINK_UPDATE || what == BPF_LINK_DETACH;
	return true;
}

static __always_inline void read_name(struct call *c, const void *from)
{
	long n = bpf_probe_read_user_str(c->name, sizeof(c->name), from);
	c->name_len = n > 1 ? n - 1 : 0;
}

static __always_inline __u64 caps_of(const struct cred *cred)
{
	__u64 caps = 0;
	if (bpf_core_field_exists(cred->cap_effective.val))
		return cred->cap_effective.val;
	bpf_core_read(&caps, sizeof(caps), &cred->cap_effective);
	return caps;
}

// begin_call keeps a call until its end. a to d are its first arguments.
static __attribute__((noinline)) int begin_call(__u32 nr, __u64 a, __u64 b, __u64 c, __u64 d)
{
	__u32 *operation = bpf_map_lookup_elem(&watched_calls, &nr), zero = 0;
	if (!operation || *operation == OPERATION_NONE || !told(*operation, a))
		return 0;
	// Rights are told also where a filter mutes them: without them the reader would take what was given for what was seized.
	if (*operation <= OPERATION_CAPSET ? !in_reach() : !in_scope())
		return 0;
	struct call *s = bpf_map_lookup_elem(&call_scratch, &zero);
	if (!s)
		return 0;
	const struct cred *cred = bpf_get_current_task_btf()->cred;
	s->operation = *operation;
	s->uid = cred->uid.val;
	s->gid = cred->gid.val;
	s->euid = cred->euid.val;
	s->egid = cred->egid.val;
	s->caps = caps_of(cred);
	s->number = a;
	s->address = 0;
	s->length = 0;
	s->target = 0;
	s->new_uid = s->euid;
	s->name_len = 0;
	switch (*operation) {
	case OPERATION_SETUID:
	case OPERATION_SETFSUID:
		s->new_uid = a;
		break;
	case OPERATION_SETREUID:
	case OPERATION_SETRESUID:
		s->new_uid = b;
		s->number = b;
		break;
	case OPERATION_SETREGID:
	case OPERATION_SETRESGID:
		s->number = b;
		break;
	case OPERATION_CAPSET:
		s->number = 0;
		break;
	case OPERATION_PTRACE:
		s->target = b;
		s->address = c;
		break;
	case OPERATION_PROCESS_VM_WRITEV: {
		struct { __u64 base; __u64 length; } remote = {};
		s->number = 0;
		s->target = a;
		bpf_probe_read_user(&remote, sizeof(remote), (void *)d);
		s->address = remote.base;
		s->length = remote.length;
		break;
	}
	case OPERATION_MEMFD_CREATE:
		s->number = b;
		read_name(s, (void *)a);
		break;
	case OPERATION_SETNS:
		s->number = b;
		break;
	case OPERATION_ADD_KEY:
	case OPERATION_REQUEST_KEY:
		s->number = 0;
		read_name(s, (void *)b);
		break;
	case OPERATION_INIT_MODULE:
		s->number = 0;
		s->address = a;
		s->length = b;
		break;
	case OPERATION_FINIT_MODULE:
		s->number = c;
		break;
	case OPERATION_DELETE_MODULE:
		s->number = b;
		read_name(s, (void *)a);
		break;
	case OPERATION_BPF:
		if (a == BPF_PROG_LOAD) {
			__u32 type = 0;
			bpf_probe_read_user(&type, sizeof(type), (void *)b);
			s->length = type;
			read_name(s, (void *)b + 48); // union bpf_attr's prog_name
			if (s->name_len > 15)
				s->name_len = 15;
		}
		break;
	}
	__u64 thread = bpf_get_current_pid_tgid();
	bpf_map_update_elem(&calls, &thread, s, BPF_ANY);
	return 0;
}

// submit writes the record of a call. which names the scratch space that is free here.
static __attribute__((noinline)) int submit(struct call *c, __u32 which, long result, __u32 count)
{
	struct record_access *r = bpf_map_lookup_elem(&access_scratch, &which);
	if (!r || !c)
		return 0;
	struct task_struct *task = bpf_get_current_task_btf();
	__u16 kind = kind_of(c->operation);
	r->header.kind = kind;
	r->header.boot = bpf_ktime_get_boot_ns();
	r->header.flags = in_user_ns(task);
	if (kind == RECORD_RIGHTS && muted())
		r->header.flags |= RECORD_FLAG_MUTED;
	if (task->pid != task->tgid)
		r->header.flags |= RECORD_FLAG_THREAD;
	fill_process(&r->process, task);
	r->operation = c->operation;
	r->number = c->number;
	r->address = c->address;
	r->length = c->length;
	r->target_pid = c->target;
	r->target_start = 0;
	r->old_uid = c->euid;
	r->new_uid = c->new_uid;
	r->result = result < 0 ? (__s32)-result : 0;
	r->count = count;
	r->held = r->process.caps;
	r->gained = r->process.caps & ~c->caps;
	if (kind == RECORD_RIGHTS) { // the process as it was; setfsuid and its like leave these as they are
		if (!r->result && c->operation != OPERATION_SETFSUID && c->operation != OPERATION_SETFSGID)
			r->new_uid = r->process.euid;
		r->process.uid = c->uid;
		r->process.gid = c->gid;
		r->process.euid = c->euid;
		r->process.egid = c->egid;
		r->process.caps = c->caps;
	}
	__u32 length = c->name_len;
	if (length > ACCESS_NAME - 1)
		length = ACCESS_NAME - 1;
	length &= ACCESS_NAME - 1;
	bpf_probe_read_kernel(r->name, length, c->name);
	r->name_len = length;
	__u32 size = offsetof(struct record_access, name) + length;
	r->header.size = size;
	if (size > sizeof(*r))
		return 0;
	if (bpf_ringbuf_output(&ring, r, size, WAKE_ASLEEP) < 0)
		count_drop(kind);
	return 0;
}

// The kernel attaches a program only to a call that has all the arguments it reads.
SEC("tracepoint/syscalls/enter1")
int enter1(struct enter_context *ctx)
{
	return begin_call(ctx->nr, ctx->args[0], 0, 0, 0);
}

SEC("tracepoint/syscalls/enter2")
int enter2(struct enter_context *ctx)
{
	return begin_call(ctx->nr, ctx->args[0], ctx->args[1], 0, 0);
}

SEC("tracepoint/syscalls/enter3")
int enter3(struct enter_context *ctx)
{
	return begin_call(ctx->nr, ctx->args[0], ctx->args[1], ctx->args[2], 0);
}

SEC("tracepoint/syscalls/enter4")
int enter4(struct enter_context *ctx)
{
	return begin_call(ctx->nr, ctx->args[0], ctx->args[1], ctx->args[2], ctx->args[3]);
}

SEC("tracepoint/syscalls/leave")
int leave(struct exit_context *ctx)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct call *c = bpf_map_lookup_elem(&calls, &thread);
	__u32 count = 0;
	if (!c)
		return 0;
	__u32 what = c->operation << 16 | (c->number & 0xffff);
	bool often = c->operation == OPERATION_BPF ? c->number == BPF_MAP_UPDATE
						   : c->operation == OPERATION_PROCESS_VM_WRITEV || c->operation == OPERATION_KEYCTL || c->operation == OPERATION_REQUEST_KEY ||
							     (c->operation == OPERATION_PTRACE && c->number != PTRACE_ATTACH && c->number != PTRACE_SEIZE);
	if (!often || first(bpf_get_current_task_btf(), what, &count))
		submit(c, 0, ctx->ret, count);
	bpf_map_delete_elem(&calls, &thread);
	return 0;
}

#define PROT_EXEC 4
#define MAP_ANONYMOUS 0x20

// note_executable tells once a second of a process that makes anonymous memory executable: a JIT does it all day.
static __attribute__((noinline)) int note_executable(__u32 operation, __u64 address, __u64 length, __u64 protection)
{
	__u32 zero = 0, count = 0;
	if (!in_scope())
		return 0;
	struct call *s = bpf_map_lookup_elem(&call_scratch, &zero);
	if (!s || !first(bpf_get_current_task_btf(), operation << 16, &count))
		return 0;
	const struct cred *cred = bpf_get_current_task_btf()->cred;
	s->operation = operation;
	s->euid = s->new_uid = cred->euid.val;
	s->caps = caps_of(cred);
	s->number = protection;
	s->address = address;
	s->length = length;
	s->target = 0;
	s->name_len = 0;
	return submit(s, 0, 0, count);
}

SEC("tracepoint/syscalls/sys_enter_mmap")
int on_mmap(struct enter_context *ctx)
{
	if (!(ctx->args[2] & PROT_EXEC) || !(ctx->args[3] & MAP_ANONYMOUS))
		return 0;
	return note_executable(OPERATION_MMAP, ctx->args[0], ctx->args[1], ctx->args[2]);
}

static long is_anonymous(struct task_struct *task, struct vm_area_struct *area, bool *anonymous)
{
	*anonymous = !area->vm_file;
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_mprotect")
int on_mprotect(struct enter_context *ctx)
{
	bool anonymous = false;
	if (!(ctx->args[2] & PROT_EXEC))
		return 0;
	if (bpf_find_vma(bpf_get_current_task_btf(), ctx->args[0], is_anonymous, &anonymous, 0) == 0 && !anonymous)
		return 0; // where the map of its memory is locked by another thread it is told all the same
	return note_executable(OPERATION_MPROTECT, ctx->args[0], ctx->args[1], ctx->args[2]);
}

#define SIGCHLD 17
#define SIGURG 23
#define SIGWINCH 28

// A signal to a process of the agent, from anybody else. May come from an interrupt, so it has no scratch space.
SEC("tp_btf/signal_generate")
int BPF_PROG(on_signal, int sig, struct kernel_siginfo *info, struct task_struct *target, int group, int result)
{
	if (sig == SIGCHLD || sig == SIGURG || sig == SIGWINCH)
		return 0;
	__u32 tgid = target->tgid;
	if (!is_protected(tgid, target->group_leader->start_boottime))
		return 0;
	struct task_struct *task = bpf_get_current_task_btf();
	if (is_protected(task->tgid, task->group_leader->start_boottime) || !affordable(RECORD_SIGNAL, 500))
		return 0;
	struct record_access *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		count_drop(RECORD_SIGNAL);
		return 0;
	}
	__builtin_memset(r, 0, offsetof(struct record_access, name));
	r->header.kind = RECORD_SIGNAL;
	r->header.size = sizeof(*r);
	r->header.boot = bpf_ktime_get_boot_ns();
	r->header.flags = in_user_ns(task);
	fill_process(&r->process, task);
	r->operation = OPERATION_SIGNAL;
	r->number = sig;
	r->target_pid = tgid;
	r->target_start = target->group_leader->start_boottime;
	r->old_uid = r->new_uid = r->process.euid;
	r->held = r->process.caps;
	bpf_ringbuf_submit(r, urgent());
	return 0;
}

#define IORING_OP_CONNECT 16
#define IORING_OP_OPENAT 18
#define IORING_OP_OPENAT2 28
#define IORING_OP_RENAMEAT 35
#define IORING_OP_UNLINKAT 36
#define IORING_OP_MKDIRAT 37

// io_uring does without the system calls whose tracepoints others watch. What it opens, renames, removes and connects to is
// told each time; of all else that there was such a request, once a second.
SEC("tp_btf/io_uring_submit_req")
int BPF_PROG(on_uring, struct io_kiocb *request)
{
	__u32 slot = 1, count = 0;
	if (!in_scope())
		return 0;
	__u32 op = request->opcode;
	struct task_struct *task = bpf_get_current_task_btf();
	bool each = op == IORING_OP_CONNECT || op == IORING_OP_OPENAT || op == IORING_OP_OPENAT2 || op == IORING_OP_RENAMEAT || op == IORING_OP_UNLINKAT || op == IORING_OP_MKDIRAT;
	if (each ? !affordable(RECORD_URING, 2000) : !first(task, OPERATION_URING << 16 | op, &count))
		return 0;
	struct call *s = bpf_map_lookup_elem(&call_scratch, &slot);
	if (!s)
		return 0;
	s->operation = OPERATION_URING;
	s->euid = s->new_uid = task->cred->euid.val;
	s->caps = caps_of(task->cred);
	s->number = op;
	s->address = 0;
	s->length = 0;
	s->target = 0;
	s->name_len = 0;
	const char *name = NULL;
	if (op == IORING_OP_OPENAT || op == IORING_OP_OPENAT2)
		name = BPF_CORE_READ((struct io_open *)request, filename, name);
	else if (op == IORING_OP_UNLINKAT)
		name = BPF_CORE_READ((struct io_unlink *)request, filename, name);
	else if (op == IORING_OP_RENAMEAT)
		name = BPF_CORE_READ((struct io_rename *)request, oldpath, name);
	else if (op == IORING_OP_MKDIRAT)
		name = BPF_CORE_READ((struct io_mkdir *)request, filename, name);
	if (name) {
		long n = bpf_probe_read_kernel_str(s->name, sizeof(s->name), name);
		s->name_len = n > 1 ? n - 1 : 0;
	} else if (op == IORING_OP_CONNECT) {
		void *addr = BPF_CORE_READ((struct io_connect *)request, addr);
		if (bpf_probe_read_user(s->name, 28, addr) == 0) // a sockaddr_in6
			s->name_len = 28;
	}
	return submit(s, 1, 0, count);
}
