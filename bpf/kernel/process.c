//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Sensor: the life of processes. Fork, exec with everything a detector asks of it, and exit.
#include "scope.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IWOTH 0002
#define PATH_DEPTH 32
#define NAME_LENGTH 256

// Where one exec record is put together: too large for the stack, and of a size known only at the end.
struct exec_scratch {
	struct record_exec record;
	char path[EXE_MAX + NAME_LENGTH]; // a path is built from its end
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct exec_scratch);
} scratch SEC(".maps");

// The state of one walk from a file up to the root; a loop's callback of its own keeps the verifier's work small.
struct walk {
	struct exec_scratch *s;
	struct dentry *dentry;
	struct vfsmount *vfs;
	struct mount *mnt;
	struct dentry *root_dentry;
	struct vfsmount *root_vfs;
	__u32 start; // where in s->path the path begins so far
};

static long step_up(__u32 i, struct walk *w)
{
	struct dentry *dentry = w->dentry; // CO-RE reads start from a plain variable, not from a field of ours
	struct vfsmount *vfs = w->vfs;
	struct mount *mnt = w->mnt;

	if (dentry == w->root_dentry && vfs == w->root_vfs)
		return 1;
	struct dentry *mnt_root = BPF_CORE_READ(vfs, mnt_root);
	struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
	if (dentry == mnt_root || dentry == parent) {
		struct mount *up = BPF_CORE_READ(mnt, mnt_parent);
		if (dentry != mnt_root || up == mnt)
			return 1; // the top of all mounts, or a file with no place in the tree (memfd)
		w->dentry = BPF_CORE_READ(mnt, mnt_mountpoint);
		w->mnt = up;
		w->vfs = (void *)up + bpf_core_field_offset(struct mount, mnt);
		return 0;
	}
	__u32 length = BPF_CORE_READ(dentry, d_name.len) & (NAME_LENGTH - 1);
	__u32 start = w->start;
	if (start > EXE_MAX || length + 1 > start)
		return 1; // what does not fit is cut at the front: the file's own name is always there
	__u32 from = start - length;
	if (from > EXE_MAX)
		return 1;
	if (bpf_probe_read_kernel(&w->s->path[from], length, BPF_CORE_READ(dentry, d_name.name)) < 0)
		return 1;
	from--;
	if (from >= EXE_MAX)
		return 1;
	w->s->path[from] = '/';
	w->start = from;
	w->dentry = parent;
	return 0;
}

// build_path walks from a file up to root, over mounts, and returns where in s->path the path starts.
static __always_inline __u32 build_path(struct exec_scratch *s, const struct path *at, const struct path *root)
{
	struct walk w = {
		.s = s,
		.dentry = BPF_CORE_READ(at, dentry),
		.vfs = BPF_CORE_READ(at, mnt),
		.root_dentry = BPF_CORE_READ(root, dentry),
		.root_vfs = BPF_CORE_READ(root, mnt),
		.start = EXE_MAX,
	};
	w.mnt = (void *)w.vfs - bpf_core_field_offset(struct mount, mnt);
	bpf_loop(PATH_DEPTH, step_up, &w, 0);
	if (w.start == EXE_MAX) { // the root itself, or a name with no tree above it
		struct dentry *top = w.dentry;
		__u32 length = BPF_CORE_READ(top, d_name.len) & (NAME_LENGTH - 1);
		__u32 from = EXE_MAX - length;
		if (length && bpf_probe_read_kernel(&s->path[from & (EXE_MAX - 1)], length, BPF_CORE_READ(top, d_name.name)) == 0)
			return from;
	}
	return w.start;
}

static __always_inline bool is_socket(struct files_struct *files, int n)
{
	struct fdtable *fdt = BPF_CORE_READ(files, fdt);
	if (BPF_CORE_READ(fdt, max_fds) <= n)
		return false;
	struct file **fds = BPF_CORE_READ(fdt, fd);
	struct file *f = NULL;
	if (bpf_probe_read_kernel(&f, sizeof(f), &fds[n]) < 0 || !f)
		return false;
	return (BPF_CORE_READ(f, f_inode, i_mode) & S_IFMT) == S_IFSOCK;
}

#define SUSPICIOUS (RECORD_FLAG_MEMFD | RECORD_FLAG_DELETED | RECORD_FLAG_WORLD_WRITABLE)

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	if (!in_scope())
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
	__u32 flags = 0;
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
	struct files_struct *files = task->files;
	if (is_socket(files, 0))
		flags |= RECORD_FLAG_STDIN_SOCKET;
	if (is_socket(files, 1))
		flags |= RECORD_FLAG_STDOUT_SOCKET;
	if (is_socket(files, 2))
		flags |= RECORD_FLAG_STDERR_SOCKET;

	struct fs_struct *fs = task->fs;
	__u32 used = 0;

	__u32 start = build_path(s, &file->f_path, &fs->root);
	__u32 length = EXE_MAX - start;
	if (length > EXE_MAX - 1 || start > EXE_MAX)
		length = 0;
	length &= EXE_MAX - 1;
	bpf_probe_read_kernel(r->data, length, &s->path[start & (EXE_MAX - 1)]);
	r->strings.exe_len = length;
	used = length;

	unsigned long arg_start = task->mm->arg_start;
	unsigned long arg_end = task->mm->arg_end;
	unsigned long args = arg_end - arg_start;
	if (args > ARGS_MAX - 1) {
		args = ARGS_MAX - 1;
		flags |= RECORD_FLAG_ARGS_TRUNCATED;
	}
	args &= ARGS_MAX - 1;
	used &= EXE_MAX - 1;
	if (bpf_probe_read_user(&r->data[used], args, (void *)arg_start) < 0)
		args = 0;
	r->strings.args_len = args;
	used += args;

	start = build_path(s, &fs->pwd, &fs->root);
	length = EXE_MAX - start;
	if (length > EXE_MAX - 1 || start > EXE_MAX)
		length = 0;
	length &= CWD_MAX - 1;
	used &= 2 * ARGS_MAX - 1;
	if (used > EXE_MAX + ARGS_MAX)
		return 0;
	bpf_probe_read_kernel(&r->data[used], length, &s->path[start & (EXE_MAX - 1)]);
	r->strings.cwd_len = length;
	used += length;

	__u64 size = offsetof(struct record_exec, data) + used;
	if (size > sizeof(*r))
		return 0;
	r->header.size = size;
	r->header.flags = flags;
	bool urgent = (flags & SUSPICIOUS) || (flags & (RECORD_FLAG_STDIN_SOCKET | RECORD_FLAG_STDOUT_SOCKET)) == (RECORD_FLAG_STDIN_SOCKET | RECORD_FLAG_STDOUT_SOCKET);
	if (bpf_ringbuf_output(&ring, r, size, urgent ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP) < 0)
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
	r->header.flags = 0;
	r->header.boot = bpf_ktime_get_boot_ns();
	fill_process(&r->process, task);
	r->process.exit_code = code;
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	if (child->pid != child->tgid) // a thread is no new process
		return 0;
	if (!in_scope())
		return 0;
	note_life(RECORD_FORK, child, 0);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	if (task->pid != task->tgid)
		return 0;
	if (!in_scope())
		return 0;
	note_life(RECORD_EXIT, task, task->exit_code);
	return 0;
}
