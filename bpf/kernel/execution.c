//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Actuator: denies execution by path or by inode, and ends process trees. At sched_process_exec the new image is in
// place and has not run: SIGKILL there is delivered before its first instruction. Where BPF LSM loads, the execution
// is refused earlier, with EPERM, and the kill is never needed.
#include "scope.h"
#include "denied.h"
#include "path.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define PATH_KEY 256
struct path_key {
	char path[PATH_KEY]; // zero padded
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct path_key);
	__type(value, struct until);
} deny_path SEC(".maps");

struct path_scratch {
	struct path_key key;
	struct path_buffer path;
};

// How many rules there are: 0 by path, and with none no path is read; 1 of any kind, and with none nothing is asked.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} rules SEC(".maps");

static __always_inline bool any_rules(__u32 kind)
{
	__u32 *n = bpf_map_lookup_elem(&rules, &kind);
	return n && *n;
}

// A pid alone may be another process's by the time it is asked for, so the start goes with it, in the unit of /proc.
struct doom {
	__u64 expires; // CLOCK_BOOTTIME, ns
	__u64 start;   // CLOCK_BOOTTIME, hundredths of a second
};

#define TICK 10000000ULL

// Processes whose tree is being ended: a child is doomed with its parent, so that no fork outruns the kill. The parent is
// stopped, not killed: its other children may not be known yet, and of a dead parent they can no longer be told. User
// space kills all of them once a look finds nobody new.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); // tgid
	__type(value, struct doom);
} doomed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct path_scratch);
} path_scratch SEC(".maps");

static __always_inline struct doom *doomed_here(void)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct doom *d = bpf_map_lookup_elem(&doomed, &tgid);
	if (!d || d->expires <= bpf_ktime_get_boot_ns())
		return NULL;
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	return d->start == BPF_CORE_READ(task, group_leader, start_boottime) / TICK ? d : NULL;
}

static __always_inline bool execution_denied(struct linux_binprm *bprm)
{
	struct inode *inode = bprm->file->f_inode;
	struct file_key key = {};
	key.inode = inode->i_ino;
	key.device = inode->i_sb->s_dev;
	if (refused(bpf_map_lookup_elem(&deny_inode, &key)))
		return true;
	key.generation = ((struct inode___numbered *)inode)->i_generation;
	if (key.generation && refused(bpf_map_lookup_elem(&deny_inode, &key)))
		return true;

	if (!any_rules(0))
		return false;
	__u32 zero = 0;
	struct path_scratch *s = bpf_map_lookup_elem(&path_scratch, &zero);
	if (!s)
		return false;
	// As it was called: the one name by which a script is still known here, where its interpreter is the image.
	__builtin_memset(&s->key, 0, sizeof(s->key));
	if (bpf_probe_read_kernel_str(s->key.path, sizeof(s->key.path), BPF_CORE_READ(bprm, filename)) > 0 &&
	    refused(bpf_map_lookup_elem(&deny_path, &s->key)))
		return true;
	// As it is: neither ./name nor a link nor /a/../b hides it.
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct file *file = BPF_CORE_READ(bprm, file);
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	__u32 start = build_path(&s->path, &file->f_path, &fs->root);
	__u32 length = EXE_MAX - start;
	if (start > EXE_MAX || length >= PATH_KEY)
		return false;
	__builtin_memset(&s->key, 0, sizeof(s->key));
	if (bpf_probe_read_kernel(s->key.path, length & (PATH_KEY - 1), &s->path.bytes[start & (EXE_MAX - 1)]) < 0)
		return false;
	return refused(bpf_map_lookup_elem(&deny_path, &s->key));
}

// Executions whose file user space is to hash, while any is denied by its hash. Read by nobody else, and lost ones counted.
struct unhashed {
	__u64 inode;
	__u64 start; // of the process: CLOCK_BOOTTIME, ns
	__u32 device;
	__u32 pid;
	char path[PATH_KEY]; // as it was called
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} unhashed SEC(".maps");

// 0: how many hashes are denied; 1: how many executions were not told of because the ring was full.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} hashes SEC(".maps");

// The hashes themselves. No program reads them: they are pinned with the other denials, for the node's next life.
struct hash_key {
	__u8 sha256[32];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct hash_key);
	__type(value, struct until);
} deny_hash SEC(".maps");

static __always_inline void ask_for_hash(struct linux_binprm *bprm)
{
	__u32 key = 0;
	__u64 *denied = bpf_map_lookup_elem(&hashes, &key);
	if (!denied || !*denied)
		return;
	struct unhashed *u = bpf_ringbuf_reserve(&unhashed, sizeof(*u), 0);
	if (!u) {
		key = 1;
		__u64 *lost = bpf_map_lookup_elem(&hashes, &key);
		if (lost)
			__sync_fetch_and_add(lost, 1);
		return;
	}
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct inode *inode = bprm->file->f_inode;
	__builtin_memset(u, 0, sizeof(*u));
	u->inode = inode->i_ino;
	u->device = inode->i_sb->s_dev;
	u->pid = bpf_get_current_pid_tgid() >> 32;
	u->start = BPF_CORE_READ(task, group_leader, start_boottime);
	bpf_probe_read_kernel_str(u->path, sizeof(u->path), BPF_CORE_READ(bprm, filename));
	bpf_ringbuf_submit(u, 0);
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
	bpf_ringbuf_submit(r, urgent());
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(deny_exec, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	if (!any_rules(1) || !in_reach())
		return 0;
	if (doomed_here()) {
		bpf_send_signal(SIGSTOP);
		return 0;
	}
	if (!execution_denied(bprm)) {
		ask_for_hash(bprm);
		return 0;
	}
	bpf_send_signal(SIGKILL);
	note_kill();
	return 0;
}

// Attached only while a tree is hunted: otherwise a fork pays nothing for it.
SEC("tp_btf/sched_process_fork")
int BPF_PROG(doom_child, struct task_struct *parent, struct task_struct *child)
{
	struct doom *d = doomed_here();
	if (!d)
		return 0;
	__u32 born = BPF_CORE_READ(child, tgid);
	struct doom heir = { .expires = d->expires, .start = BPF_CORE_READ(child, group_leader, start_boottime) / TICK };
	bpf_map_update_elem(&doomed, &born, &heir, BPF_ANY);
	bpf_send_signal(SIGSTOP);
	return 0;
}
