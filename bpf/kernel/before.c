//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// State at start: every process that is there already, and each TCP socket it holds, told as if it began now and marked as
// from before. User space reads an iterator a few tasks at a time, so that the ring is never filled by it: a read ends when
// each of them has given back its eight bytes.
#include "scope.h"
#include "path.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// The cgroup watched, by its id, when scoped: of another task than the current one no helper tells.
const volatile __u64 scope_cgroup_id = 0;

#define TCP_ESTABLISHED 1
#define TCP_LISTEN 10
#define CGROUP_DEPTH 32

struct seq_file;
struct bpf_iter_meta { struct seq_file *seq; } __attribute__((preserve_access_index));
struct bpf_iter__task { struct bpf_iter_meta *meta; struct task_struct *task; } __attribute__((preserve_access_index));
struct bpf_iter__task_file { struct bpf_iter_meta *meta; struct task_struct *task; __u32 fd; struct file *file; } __attribute__((preserve_access_index));

struct before_scratch {
	struct record_exec record;
	struct path_buffer path;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY); // one reader, one scratch space
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct before_scratch);
} before_scratch SEC(".maps");

static __always_inline bool in_reach_of(struct task_struct *task)
{
	if (!scoped)
		return true;
	struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);
	for (int i = 0; i < CGROUP_DEPTH && cgroup; i++) {
		if (BPF_CORE_READ(cgroup, kn, id) == scope_cgroup_id)
			return true;
		struct cgroup_subsys_state *up = BPF_CORE_READ(cgroup, self.parent);
		if (!up)
			return false;
		cgroup = BPF_CORE_READ(up, cgroup);
	}
	return false;
}

static __always_inline void give_back(struct bpf_iter_meta *meta)
{
	__u64 told = 1;
	bpf_seq_write(meta->seq, &told, sizeof(told));
}

SEC("iter.s/task")
int processes(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	__u32 zero = 0;
	if (!task || task->pid != task->tgid || !in_reach_of(task))
		return 0;
	struct before_scratch *s = bpf_map_lookup_elem(&before_scratch, &zero);
	if (!s)
		return 0;
	struct record_exec *r = &s->record;
	r->header.kind = RECORD_EXEC;
	r->header.boot = bpf_ktime_get_boot_ns();
	r->header.flags = RECORD_FLAG_BEFORE | in_user_ns(task);
	fill_process(&r->process, task);
	__u32 used = 0;
	__u64 length = 0;
	r->strings.exe_len = r->strings.args_len = r->strings.cwd_len = r->strings.script_len = 0;

	struct mm_struct *mm = task->mm;
	struct fs_struct *fs = task->fs;
	if (!mm || !fs)
		r->header.flags |= RECORD_FLAG_MUTED; // the kernel's own: known, and of no interest
	struct file *file = BPF_CORE_READ(mm, exe_file);
	if (file && fs) {
		if (BPF_CORE_READ(file, f_inode, i_nlink) == 0)
			r->header.flags |= RECORD_FLAG_DELETED;
		__u32 start = build_path(&s->path, &file->f_path, &fs->root);
		length = EXE_MAX - start;
		if (start > EXE_MAX || length > EXE_MAX - 1)
			length = 0;
		length &= EXE_MAX - 1;
		bpf_probe_read_kernel(r->data, length, &s->path.bytes[start & (EXE_MAX - 1)]);
		r->strings.exe_len = length;
		used = length;

		__u64 args = mm->arg_end - mm->arg_start;
		if (args > ARGS_MAX - 1) {
			args = ARGS_MAX - 1;
			r->header.flags |= RECORD_FLAG_ARGS_TRUNCATED;
		}
		args &= ARGS_MAX - 1;
		used &= EXE_MAX - 1;
		if (bpf_copy_from_user_task(&r->data[used], args, (void *)mm->arg_start, task, 0) < 0)
			args = 0;
		r->strings.args_len = args;
		used += args;

		start = build_path(&s->path, &fs->pwd, &fs->root);
		length = EXE_MAX - start;
		if (start > EXE_MAX || length > EXE_MAX - 1)
			length = 0;
		length &= CWD_MAX - 1;
		used &= 2 * ARGS_MAX - 1;
		if (used > EXE_MAX + ARGS_MAX)
			return 0;
		bpf_probe_read_kernel(&r->data[used], length, &s->path.bytes[start & (EXE_MAX - 1)]);
		r->strings.cwd_len = length;
		used += length;
	}
	__u64 size = offsetof(struct record_exec, data) + used;
	if (size > sizeof(*r))
		return 0;
	r->header.size = size;
	if (bpf_ringbuf_output(&ring, r, size, WAKE_ASLEEP) < 0)
		count_drop(RECORD_EXEC);
	give_back(ctx->meta);
	return 0;
}

SEC("iter/task_file")
int sockets(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	if (!task || !file || task->pid != task->tgid || !in_reach_of(task))
		return 0;
	struct socket *socket = (struct socket *)bpf_sock_from_file(file);
	if (!socket)
		return 0;
	struct sock *sk = BPF_CORE_READ(socket, sk);
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	__u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);
	__u16 protocol = BPF_CORE_READ(sk, sk_protocol);
	if ((family != AF_INET && family != AF_INET6) || (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP) || (state != TCP_LISTEN && state != TCP_ESTABLISHED))
		return 0;
	__u16 kind = state == TCP_LISTEN ? RECORD_LISTEN : RECORD_CONNECT;
	struct record_flow *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		count_drop(kind);
		return 0;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->header.kind = kind;
	r->header.size = sizeof(*r);
	r->header.boot = bpf_ktime_get_boot_ns();
	r->header.flags = RECORD_FLAG_BEFORE | in_user_ns(task);
	fill_process(&r->process, task);
	if (family == AF_INET) {
		v4_mapped(r->network.local, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
		v4_mapped(r->network.remote, BPF_CORE_READ(sk, __sk_common.skc_daddr));
	} else {
		bpf_core_read(&r->network.local, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(&r->network.remote, 16, &sk->__sk_common.skc_v6_daddr);
	}
	r->network.local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	r->network.remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	r->network.protocol = IPPROTO_TCP;
	bpf_ringbuf_submit(r, WAKE_ASLEEP);
	give_back(ctx->meta);
	return 0;
}
