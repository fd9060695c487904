//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Sensor: the life of processes. Fork, exec with everything a detector asks of it, and exit.
#define SCOPE_CLASS 1007
#include "scope.h"
#include "path.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_ISUID 04000
#define S_ISGID 02000
#define S_IXGRP 0010
#define S_IWOTH 0002
#define OVERLAYFS_MAGIC 0x794c7630

// Where one exec record is put together: too large for the stack, and of a size known only at the end.
struct exec_scratch {
	struct record_exec record;
	struct path_buffer path;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct exec_scratch);
} scratch SEC(".maps");

// sockets says which of descriptors 0 to 2 are sockets. Mostly all three are one and the same file: it is asked once.
static __always_inline __u32 sockets(struct files_struct *files)
{
	struct fdtable *fdt = files->fdt;
	struct file *fds[3] = {};
	__u32 flags = 0;
	bool is = false;

	if (fdt->max_fds < 3 || bpf_probe_read_kernel(fds, sizeof(fds), fdt->fd) < 0)
		return 0;
#pragma unroll
	for (int n = 0; n < 3; n++) {
		struct file *f = fds[n];
		if (!n || f != fds[n - 1])
			is = f && (BPF_CORE_READ(f, f_inode, i_mode) & S_IFMT) == S_IFSOCK;
		if (is)
			flags |= RECORD_FLAG_STDIN_SOCKET << n;
	}
	return flags;
}

// upper_layer says whether a file on an overlay was put there, or changed, since the image was made. The overlay's inode
// holds the general one and after it the dentry of the upper layer; its type is not known where overlayfs is a module.
static __always_inline bool upper_layer(struct inode *inode)
{
	struct dentry *upper = NULL;
	if (inode->i_sb->s_magic != OVERLAYFS_MAGIC)
		return false;
	bpf_probe_read_kernel(&upper, sizeof(upper), (void *)inode + bpf_core_type_size(struct inode));
	return upper != NULL;
}

#define SUSPICIOUS (RECORD_FLAG_MEMFD | RECORD_FLAG_DELETED | RECORD_FLAG_WORLD_WRITABLE)

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	if (!in_reach())
		return 0;
	__u32 zero = 0;
	struct exec_scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	if (!s)
		return 0;
	struct record_exec *r = &s->record;
	r->header.kind = RECORD_EXEC;
	r->header.boot = bpf_ktime_get_boot_ns();
	fill_process(&r->process, task);

	struct file *file = bprm->file;
	struct inode *inode = file->f_inode;
	struct dentry *dentry = file->f_path.dentry;
	__u32 flags = in_user_ns(task);
	if (muted())
		flags |= RECORD_FLAG_MUTED;
	if (inode->i_nlink == 0) {
		char name[8] = {};
		bpf_probe_read_kernel(name, 6, BPF_CORE_READ(dentry, d_name.name));
		if (name[0] == 'm' && name[1] == 'e' && name[2] == 'm' && name[3] == 'f' && name[4] == 'd' && name[5] == ':')
			flags |= RECORD_FLAG_MEMFD;
		else
			flags |= RECORD_FLAG_DELETED;
	}
	if ((inode->i_mode & S_IWOTH) || (dentry->d_parent->d_inode->i_mode & S_IWOTH))
		if (!(flags & RECORD_FLAG_MEMFD))
			flags |= RECORD_FLAG_WORLD_WRITABLE;
	if ((inode->i_mode & S_ISUID) || (inode->i_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) || BPF_CORE_READ_BITFIELD(bprm, secureexec))
		flags |= RECORD_FLAG_SETID;
	if (upper_layer(inode))
		flags |= RECORD_FLAG_UPPER_LAYER;
	flags |= sockets(task->files);
	// From here on they stay in the map: held in a register, the verifier follows every combination of them through all
	// that comes, 705,000 instructions of the million it allows, and a second of each node's start.
	*(volatile typeof(r->header.flags) *)&r->header.flags = flags;

	struct fs_struct *fs = task->fs;
	__u32 used = 0;

	__u32 start = build_path(&s->path, &file->f_path, &fs->root);
	__u32 length = EXE_MAX - start;
	if (length > EXE_MAX - 1 || start > EXE_MAX)
		length = 0;
	length &= EXE_MAX - 1;
	bpf_probe_read_kernel(r->data, length, &s->path.bytes[start & (EXE_MAX - 1)]);
	r->strings.exe_len = length;
	used = length;

	unsigned long arg_start = task->mm->arg_start;
	unsigned long arg_end = task->mm->arg_end;
	unsigned long args = arg_end - arg_start;
	if (args > ARGS_MAX - 1) {
		args = ARGS_MAX - 1;
		r->header.flags |= RECORD_FLAG_ARGS_TRUNCATED;
	}
	args &= ARGS_MAX - 1;
	used &= EXE_MAX - 1;
	if (bpf_probe_read_user(&r->data[used], args, (void *)arg_start) < 0)
		args = 0;
	r->strings.args_len = args;
	used += args;

	start = build_path(&s->path, &fs->pwd, &fs->root);
	length = EXE_MAX - start;
	if (length > EXE_MAX - 1 || start > EXE_MAX)
		length = 0;
	length &= CWD_MAX - 1;
	used &= 2 * ARGS_MAX - 1;
	if (used > EXE_MAX + ARGS_MAX)
		return 0;
	bpf_probe_read_kernel(&r->data[used], length, &s->path.bytes[start & (EXE_MAX - 1)]);
	r->strings.cwd_len = length;
	used += length;

	// Of a script the image is its interpreter, and what was asked for is known by name alone.
	r->strings.script_len = 0;
	const char *called = bprm->filename;
	if (called != bprm->interp && used <= EXE_MAX + ARGS_MAX + CWD_MAX) {
		long n = bpf_probe_read_kernel_str(&r->data[used], SCRIPT_MAX, called);
		if (n > 0 && n <= SCRIPT_MAX) {
			r->strings.script_len = n;
			r->header.flags |= RECORD_FLAG_SCRIPT;
			used += n;
		}
	}

	__u64 size = offsetof(struct record_exec, data) + used;
	if (size > sizeof(*r))
		return 0;
	r->header.size = size;
	flags = *(volatile typeof(r->header.flags) *)&r->header.flags;
	bool suspicious = (flags & SUSPICIOUS) || (flags & (RECORD_FLAG_STDIN_SOCKET | RECORD_FLAG_STDOUT_SOCKET)) == (RECORD_FLAG_STDIN_SOCKET | RECORD_FLAG_STDOUT_SOCKET);
	if (bpf_ringbuf_output(&ring, r, size, suspicious ? urgent() : WAKE_ASLEEP) < 0)
		count_drop(RECORD_EXEC);
	return 0;
}

static __always_inline void note_life(__u16 kind, struct task_struct *task, __s32 code)
{
	struct record_fork *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		count_drop(kind);
		return;
	}
	r->header.kind = kind;
	r->header.size = sizeof(*r);
	r->header.flags = in_user_ns(task) | (muted() ? RECORD_FLAG_MUTED : 0); // what is muted still has its place in lineage
	r->header.boot = bpf_ktime_get_boot_ns();
	fill_process(&r->process, task);
	r->process.exit_code = code;
	bpf_ringbuf_submit(r, WAKE_ASLEEP);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	if (child->pid != child->tgid) // a thread is no new process
		return 0;
	if (!in_reach())
		return 0;
	note_life(RECORD_FORK, child, 0);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	if (task->pid != task->tgid)
		return 0;
	if (!in_reach())
		return 0;
	note_life(RECORD_EXIT, task, task->exit_code);
	return 0;
}
