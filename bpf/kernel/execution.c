//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Actuator: denies execution by path or by inode, and ends process trees. At sched_process_exec the new image is in
// place and has not run: SIGKILL there is delivered before its first instruction. Where BPF LSM loads, the execution
// is refused earlier, with EPERM, and the kill is never needed.
#include "scope.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct file_key {
	__u64 inode;
	__u32 device; // the kernel's encoding: major << 20 | minor
	__u32 pad;
};

#define PATH_KEY 256
struct path_key {
	char path[PATH_KEY]; // zero padded
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct file_key);
	__type(value, struct until);
} deny_inode SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct path_key);
	__type(value, struct until);
} deny_path SEC(".maps");

// How many path rules there are: with none, no path is read.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} path_rules SEC(".maps");

// Processes whose tree is being ended: a child is doomed with its parent, so that no fork outruns the kill.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); // tgid
	__type(value, __u64);
} doomed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct path_key);
} path_scratch SEC(".maps");

static __always_inline bool execution_denied(struct linux_binprm *bprm)
{
	struct inode *inode = bprm->file->f_inode;
	struct file_key key = {};
	key.inode = inode->i_ino;
	key.device = inode->i_sb->s_dev;
	if (stands(bpf_map_lookup_elem(&deny_inode, &key)))
		return true;

	__u32 zero = 0;
	__u32 *rules = bpf_map_lookup_elem(&path_rules, &zero);
	if (!rules || !*rules)
		return false;
	struct path_key *path = bpf_map_lookup_elem(&path_scratch, &zero);
	if (!path)
		return false;
	__builtin_memset(path, 0, sizeof(*path));
	if (bpf_probe_read_kernel_str(path->path, sizeof(path->path), BPF_CORE_READ(bprm, filename)) < 0)
		return false;
	return stands(bpf_map_lookup_elem(&deny_path, path));
}

static __always_inline void note_kill(void)
{
	struct record_fork *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		count_drop(RECORD_KILL);
		return;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->header.kind = RECORD_KILL;
	r->header.size = sizeof(*r);
	r->header.flags = RECORD_FLAG_KILLED;
	r->header.boot = bpf_ktime_get_boot_ns();
	fill_process(&r->process, bpf_get_current_task_btf());
	bpf_ringbuf_submit(r, BPF_RB_FORCE_WAKEUP);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(deny_exec, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	if (!in_scope())
		return 0;
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	__u64 *end = bpf_map_lookup_elem(&doomed, &tgid);
	if (end && *end > bpf_ktime_get_boot_ns()) {
		bpf_send_signal(SIGKILL);
		return 0;
	}
	if (!execution_denied(bprm))
		return 0;
	bpf_send_signal(SIGKILL);
	note_kill();
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(doom_child, struct task_struct *parent, struct task_struct *child)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	__u64 *expires = bpf_map_lookup_elem(&doomed, &tgid);
	if (!expires || *expires <= bpf_ktime_get_boot_ns())
		return 0;
	__u64 end = *expires;
	__u32 born = BPF_CORE_READ(child, tgid);
	bpf_map_update_elem(&doomed, &born, &end, BPF_ANY);
	bpf_send_signal(SIGKILL);
	return 0;
}
