//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Sensor: what processes change in the file systems. One tracepoint a system call, never sys_enter or sys_exit, which every
// call of every process would pay for. A call is kept at its start in the storage of its thread and told at its end, with
// its result. A file that was opened is named by the kernel's own object; of the calls that take a name, the folder they
// start from is the kernel's object and the name is the caller's memory, read at the start, before the kernel reads it.
#define SCOPE_CLASS 1001
#include "scope.h"
#include "path.h"

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

#define NONE 7 // of an argument: this call has no such

#define SHAPE_OPENED 1    // its result is a descriptor
#define SHAPE_RAW 2       // the other name is no path: an attribute, a symbolic link's target, the source of a mount
#define SHAPE_HOW 4       // the flags lie in memory (openat2)
#define SHAPE_CREATES 8   // the flags are those of creat

// How to read a call: which argument is what. User space fills it by bpf/files.go: numbers are the architecture's.
struct call_shape {
	__u16 kind;
	__u8 directory; // a descriptor that the name starts from; NONE: the working directory
	__u8 name;
	__u8 other_directory;
	__u8 other;
	__u8 fd; // of the file itself
	__u8 mode;
	__u8 uid;
	__u8 gid;
	__u8 flags;
	__u8 fs;
	__u8 how; // SHAPE_*
	__u8 pad[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct call_shape);
} file_calls SEC(".maps");

// Paths that are watched or left out; the longest prefix decides.
#define WATCH_PATH_MAX 248
#define WATCHED 1
#define LEFT_OUT 2
#define OWN 3 // the agent's own: told at once and each time, but for what the agent does itself

struct watch_prefix {
	__u32 bits;
	char path[WATCH_PATH_MAX]; // zero padded: a file's own prefix ends in a zero, a folder's in '/'
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct watch_prefix);
	__type(value, __u32);
} watch_path SEC(".maps");

#define EARLY_NAME 256

// A call that has begun, in the storage of its thread. A name that is longer, or whose page was not there, is read at the end.
struct file_call {
	__u64 args[8];
	__u32 nr;
	__u16 name_len; // with its zero; 0: not read yet
	__u16 other_len;
	char name[EARLY_NAME];
	char other[EARLY_NAME];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct file_call);
} begun SEC(".maps");

struct file_scratch {
	struct record_file record;
	struct path_buffer path;
	struct watch_prefix prefix;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct file_scratch);
} file_scratch SEC(".maps");

// What a process does to one file over and over is told once a second, with how often it was done meanwhile.
struct file_repeat_key {
	__u64 start; // of the process
	__u64 what;  // inode, or a hash of the names
	__u32 tgid;
	__u32 device;
	__u64 kind;
};

struct file_repeat {
	__u64 since;
	__u64 count;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct file_repeat_key);
	__type(value, struct file_repeat);
} file_repeats SEC(".maps");

#define REPEAT_WINDOW 1000000000ULL // ns
#define FILES_A_WINDOW 4000         // records of one kind from one CPU in PACE_WINDOW

#define S_IFMT 0170000
#define S_IFREG 0100000
#define S_IFBLK 0060000
#define O_ACCMODE 3
#define O_WRONLY 1
#define O_CREAT 0100
#define O_TRUNC 01000
#define FMODE_WRITE 2
#define FMODE_CREATED (1 << 20)
#define AT_FDCWD -100
#define EPERM 1
#define EACCES 13
#define EROFS 30

static __always_inline __u64 argument(struct file_call *c, __u8 n)
{
	return c->args[n & 7];
}

static __noinline int begin_call(__u32 nr, __u64 *args)
{
	struct call_shape *shape = bpf_map_lookup_elem(&file_calls, &nr);
	if (!args || !shape || !shape->kind)
		return 0;
	__u64 flags = args[shape->flags & 7];
	if (shape->how & SHAPE_OPENED) {
		if (shape->how & SHAPE_HOW) {
			if (bpf_probe_read_user(&flags, sizeof(flags), (void *)flags) < 0)
				flags = O_CREAT; // a page that is not there yet: the end will tell
		} else if (shape->how & SHAPE_CREATES) {
			flags = O_CREAT | O_WRONLY | O_TRUNC;
		}
		if (!(flags & (O_ACCMODE | O_CREAT | O_TRUNC)))
			return 0; // most opens are to read
	}
	if (!in_reach())
		return 0;
	struct file_call *c = bpf_task_storage_get(&begun, bpf_get_current_task_btf(), 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!c) {
		count_drop(shape->kind);
		return 0;
	}
#pragma unroll
	for (int i = 0; i < 6; i++)
		c->args[i] = args[i];
	c->args[6] = flags;
	c->args[NONE] = 0; // what an argument that the call does not have reads as
	c->nr = nr;
	c->name_len = 0;
	c->other_len = 0;
	if (shape->name != NONE) {
		long n = bpf_probe_read_user_str(c->name, EARLY_NAME, (void *)args[shape->name & 7]);
		if (n > 0 && n < EARLY_NAME)
			c->name_len = n;
	}
	if (shape->other != NONE) {
		long n = bpf_probe_read_user_str(c->other, EARLY_NAME, (void *)args[shape->other & 7]);
		if (n > 0 && n < EARLY_NAME)
			c->other_len = n;
	}
	return 0;
}

// unseen keeps the compiler from leaving out a check of what a function gave back because it has read that function: the
// verifier has not.
#define unseen(v) asm volatile("" : "+r"(v))

// file_of is the file behind a descriptor of this thread.
static __noinline struct file *file_of(struct task_struct *task, __s64 fd)
{
	struct file *file = NULL;
	if (fd < 0)
		return NULL;
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	if (fd >= BPF_CORE_READ(fdt, max_fds))
		return NULL;
	struct file **fds = BPF_CORE_READ(fdt, fd);
	bpf_probe_read_kernel(&file, sizeof(file), &fds[fd]);
	return file;
}

// put_path appends the path of a kernel object to a record and returns how long the record's strings are then.
// It is global, as the others here that are not static: the verifier reads such a function once, not at each call.
__noinline __u32 put_path(struct file_scratch *s, __u32 used, __u64 object)
{
	const struct path *at = (const struct path *)object;
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	if (!s || used > FILE_DATA / 2)
		return 0;
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	__u32 start = build_path(&s->path, at, &fs->root);
	__u32 length = EXE_MAX - start;
	if (start > EXE_MAX || length > EXE_MAX - 1)
		length = 0;
	length &= EXE_MAX - 1;
	bpf_probe_read_kernel(&s->record.data[used], length, &s->path.bytes[start & (EXE_MAX - 1)]);
	// A path that did not fit begins with a name from its middle.
	if (length + NAME_LENGTH >= EXE_MAX)
		s->record.header.flags |= RECORD_FLAG_PATH_CUT;
	return used + length;
}

// put_name appends a name as the caller gave it, after the folder it starts from.
__noinline __u32 put_name(struct file_scratch *s, __u32 used, struct file_call *c, __u32 which, __s32 directory)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	if (!s || !c || used > FILE_DATA / 2)
		return 0;
	__u32 nr = c->nr;
	struct call_shape *shape = bpf_map_lookup_elem(&file_calls, &nr);
	if (!shape)
		return used;
	const char *early = which ? c->other : c->name;
	__u32 length = which ? c->other_len : c->name_len;
	const char *late = (const char *)argument(c, which ? shape->other : shape->name);
	bool raw = which && (shape->how & SHAPE_RAW);
	char first = 0;
	if (length)
		bpf_probe_read_kernel(&first, 1, early);
	else
		bpf_probe_read_user(&first, 1, late);
	if (!raw && first != '/') {
		__u32 before = used;
		// One call for both, so that the verifier follows it once.
		const struct path *at = NULL;
		if (directory == AT_FDCWD) {
			struct fs_struct *fs = BPF_CORE_READ(task, fs);
			at = &fs->pwd;
		} else {
			struct file *file = file_of(task, directory);
			if (file)
				at = &file->f_path;
		}
		used = put_path(s, used, (__u64)at);
		unseen(used);
		if (!first)
			return used; // AT_EMPTY_PATH
		if (used > FILE_DATA / 2 + EXE_MAX || used < before)
			return before;
		if (used - before != 1) {
			s->record.data[used] = '/';
			used++;
		}
	}
	if (used > FILE_DATA / 2 + EXE_MAX + 1)
		return 0;
	long n;
	if (length)
		n = bpf_probe_read_kernel_str(&s->record.data[used], EARLY_NAME, early);
	else
		n = bpf_probe_read_user_str(&s->record.data[used], FILE_NAME_MAX, late);
	if (n <= 0 || n > FILE_NAME_MAX)
		return used;
	if (n == FILE_NAME_MAX)
		s->record.header.flags |= RECORD_FLAG_PATH_CUT;
	return used + n - 1;
}

struct hashing {
	struct file_scratch *s;
	__u64 sum;
	__u32 used;
};

static long hash_word(__u32 i, struct hashing *h)
{
	__u32 at = i * 8;
	if (at >= h->used || at > FILE_DATA - 8)
		return 1;
	__u64 word = 0;
	bpf_probe_read_kernel(&word, 8, &h->s->record.data[at]);
	h->sum = (h->sum ^ word) * 0x9E3779B97F4A7C15ULL;
	h->sum ^= h->sum >> 29;
	return 0;
}

// repeated says whether the same was told less than REPEAT_WINDOW ago; else count is how many were not told since.
__noinline int repeated(struct file_scratch *s, __u32 used)
{
	if (!s || used > FILE_DATA - 8)
		return 0;
	struct record_file *r = &s->record;
	struct file_repeat_key key = { .start = r->process.start, .tgid = r->process.pid, .kind = r->header.kind, .what = r->inode, .device = r->device };
	if (!r->inode) {
		struct hashing h = { .s = s, .used = used };
		__u64 zero = 0;
		bpf_probe_read_kernel(&r->data[used], 8, &zero);
		bpf_loop(FILE_DATA / 8, hash_word, &h, 0);
		key.what = h.sum;
	}
	key.kind |= (__u64)(__u32)r->result << 32;
	__u64 now = r->header.boot;
	struct file_repeat *p = bpf_map_lookup_elem(&file_repeats, &key);
	if (!p) {
		struct file_repeat first = { .since = now };
		bpf_map_update_elem(&file_repeats, &key, &first, BPF_ANY);
		return 0;
	}
	if (now - p->since < REPEAT_WINDOW) {
		__sync_fetch_and_add(&p->count, 1);
		return 1;
	}
	r->count = p->count;
	p->count = 0;
	p->since = now;
	return 0;
}

// watching says what user space wants of a path: WATCHED, LEFT_OUT, OWN, or nothing.
__noinline __u32 watching(struct file_scratch *s, __u32 length)
{
	if (!s)
		return 0;
	__builtin_memset(&s->prefix, 0, sizeof(s->prefix));
	if (length > WATCH_PATH_MAX - 1)
		length = WATCH_PATH_MAX - 1;
	unseen(length);
	length &= 255;
	if (length > WATCH_PATH_MAX - 1)
		return 0;
	bpf_probe_read_kernel(s->prefix.path, length, s->record.data);
	s->prefix.bits = WATCH_PATH_MAX * 8;
	__u32 *w = bpf_map_lookup_elem(&watch_path, &s->prefix);
	if (w)
		return *w;
	return muted_path((struct path_prefix *)&s->prefix) ? LEFT_OUT : 0; // the same layout
}

// gathered: what makes or removes a name is told each time: a file made anew often has the inode of one just removed.
static __always_inline bool gathered(__u32 kind)
{
	return kind == RECORD_FILE_WRITE || (kind >= RECORD_FILE_CHMOD && kind <= RECORD_FILE_TRUNCATE);
}

static __noinline int tell(struct file_call *c, long ret)
{
	__u32 zero = 0;
	struct task_struct *task = bpf_get_current_task_btf();
	struct file_scratch *s = bpf_map_lookup_elem(&file_scratch, &zero);
	if (!s || !c)
		return 0;
	__u32 nr = c->nr;
	struct call_shape *shape = bpf_map_lookup_elem(&file_calls, &nr);
	if (!shape)
		return 0;
	struct record_file *r = &s->record;
	__u32 kind = shape->kind;
	r->header.flags = 0;
	r->header.boot = bpf_ktime_get_boot_ns();
	r->inode = 0;
	r->device = 0;
	r->mode = argument(c, shape->mode);
	r->uid = argument(c, shape->uid);
	r->gid = argument(c, shape->gid);
	r->flags = c->args[6];
	r->result = ret < 0 ? -ret : 0;
	r->count = 0;
	__builtin_memset(r->fs, 0, sizeof(r->fs));

	struct file *file = NULL;
	if (shape->how & SHAPE_OPENED) {
		if (ret >= 0)
			file = file_of(task, ret);
	} else if (shape->fd != NONE) {
		file = file_of(task, (__s32)argument(c, shape->fd));
	}
	__u32 used = 0;
	if (file) {
		struct inode *inode = BPF_CORE_READ(file, f_inode);
		__u32 mode = BPF_CORE_READ(inode, i_mode);
		if (shape->how & SHAPE_OPENED) {
			__u32 fmode = BPF_CORE_READ(file, f_mode);
			__u32 type = mode & S_IFMT;
			if (fmode & FMODE_CREATED)
				kind = RECORD_FILE_CREATE;
			else if (!(fmode & FMODE_WRITE) && !(r->flags & O_TRUNC))
				return 0;
			if (type != S_IFREG && type != S_IFBLK)
				return 0; // terminals, /dev/null, pipes
			r->mode = mode;
		} else if (shape->mode == NONE) {
			r->mode = mode;
		}
		if (shape->uid == NONE) {
			r->uid = BPF_CORE_READ(inode, i_uid.val);
			r->gid = BPF_CORE_READ(inode, i_gid.val);
		}
		r->inode = BPF_CORE_READ(inode, i_ino);
		r->device = BPF_CORE_READ(inode, i_sb, s_dev);
		used = put_path(s, 0, (__u64)&file->f_path);
		unseen(used);
	} else {
		used = put_name(s, 0, c, 0, shape->directory == NONE ? AT_FDCWD : (__s32)argument(c, shape->directory));
		unseen(used);
	}
	if (!used || used > FILE_DATA / 2)
		return 0;
	r->path_len = used;
	__u32 watch = watching(s, used);
	unseen(watch);
	// No filter mutes what is watched, and no flood of other records hides it.
	if (watch == LEFT_OUT || (!watch && muted()))
		return 0;
	if (watch == OWN && is_protected(task->tgid, task->group_leader->start_boottime))
		return 0;
	__u32 all = used;
	if (shape->other != NONE) {
		all = put_name(s, used, c, 1, shape->other_directory == NONE ? AT_FDCWD : (__s32)argument(c, shape->other_directory));
		unseen(all);
		if (all < used)
			all = used;
	}
	r->other_len = all - used;
	if (shape->fs != NONE)
		bpf_probe_read_user_str(r->fs, sizeof(r->fs), (void *)argument(c, shape->fs));
	r->header.kind = kind;
	fill_process(&r->process, task);
	if (watch == WATCHED)
		r->header.flags |= RECORD_FLAG_WATCHED;
	else if (!watch && ((gathered(kind) && repeated(s, all)) || !affordable(kind, FILES_A_WINDOW)))
		return 0;
	__u64 size = offsetof(struct record_file, data) + all;
	if (size > sizeof(*r))
		return 0;
	r->header.size = size;
	if (bpf_ringbuf_output(&ring, r, size, watch ? urgent() : WAKE_ASLEEP) < 0)
		count_drop(kind);
	return 0;
}

// The kernel attaches a program only to a call that has all the arguments it reads.
SEC("tracepoint/syscalls/enter1")
int file_enter1(struct enter_context *ctx)
{
	__u64 args[8] = { ctx->args[0] };
	return begin_call(ctx->nr, args);
}

SEC("tracepoint/syscalls/enter2")
int file_enter2(struct enter_context *ctx)
{
	__u64 args[8] = { ctx->args[0], ctx->args[1] };
	return begin_call(ctx->nr, args);
}

SEC("tracepoint/syscalls/enter3")
int file_enter3(struct enter_context *ctx)
{
	__u64 args[8] = { ctx->args[0], ctx->args[1], ctx->args[2] };
	return begin_call(ctx->nr, args);
}

SEC("tracepoint/syscalls/enter4")
int file_enter4(struct enter_context *ctx)
{
	__u64 args[8] = { ctx->args[0], ctx->args[1], ctx->args[2], ctx->args[3] };
	return begin_call(ctx->nr, args);
}

SEC("tracepoint/syscalls/enter5")
int file_enter5(struct enter_context *ctx)
{
	__u64 args[8] = { ctx->args[0], ctx->args[1], ctx->args[2], ctx->args[3], ctx->args[4] };
	return begin_call(ctx->nr, args);
}

SEC("tracepoint/syscalls/leave")
int file_leave(struct exit_context *ctx)
{
	struct file_call *c = bpf_task_storage_get(&begun, bpf_get_current_task_btf(), 0, 0);
	if (!c || c->nr != (__u32)ctx->nr)
		return 0;
	long ret = ctx->ret;
	if (ret >= 0 || ret == -EPERM || ret == -EACCES || ret == -EROFS)
		tell(c, ret);
	c->nr = -1;
	return 0;
}
