//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// The agent's own hold on the kernel. Links to cgroups and interfaces can be taken off, or be given another program, and maps
// be written to, by any process with the right to: who does it to one of ours is told to the privileged half at once, which puts it right. No
// filter and no scope mutes this: it is done to the agent, from wherever.
#define SCOPE_CLASS 1003
#include "scope.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

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

#define BPF_MAP_UPDATE_ELEM 2
#define BPF_MAP_DELETE_ELEM 3
#define BPF_MAP_LOOKUP_AND_DELETE_ELEM 21
#define BPF_MAP_FREEZE 22
#define BPF_MAP_LOOKUP_AND_DELETE_BATCH 25
#define BPF_MAP_UPDATE_BATCH 26
#define BPF_MAP_DELETE_BATCH 27
#define BPF_LINK_UPDATE 29
#define BPF_LINK_DETACH 34

// The links of ours that can be taken off, by id.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u8);
} own_links SEC(".maps");

// The maps of ours that say what is refused and what is told, by id.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u8);
} own_maps SEC(".maps");

struct reach {
	__u32 link;
	__u32 command;
};

// Calls upon a link of ours that have begun, by thread.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, __u64);
	__type(value, struct reach);
} reaches SEC(".maps");

// What wakes the privileged half: records without a name.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16384); // some fifty, of which one CPU fills twenty in a tenth of a second at most
} alarms SEC(".maps");

#define ALARMS_A_WINDOW 20

SEC("tracepoint/syscalls/sys_enter_bpf")
int reach_link(struct enter_context *ctx)
{
	struct reach r = { .command = ctx->args[0] };
	__u32 at = 0; // where in union bpf_attr the descriptor stands
	bool is_map = true;
	switch (r.command) {
	case BPF_LINK_DETACH:
	case BPF_LINK_UPDATE:
		is_map = false;
		break;
	case BPF_MAP_UPDATE_ELEM:
	case BPF_MAP_DELETE_ELEM:
	case BPF_MAP_LOOKUP_AND_DELETE_ELEM:
	case BPF_MAP_FREEZE:
		break;
	case BPF_MAP_LOOKUP_AND_DELETE_BATCH:
	case BPF_MAP_UPDATE_BATCH:
	case BPF_MAP_DELETE_BATCH:
		at = 36;
		break;
	default:
		return 0;
	}
	__u32 fd = -1;
	if (bpf_probe_read_user(&fd, sizeof(fd), (void *)ctx->args[1] + at))
		return 0;
	struct task_struct *task = bpf_get_current_task_btf();
	struct fdtable *table = task->files->fdt;
	if (fd >= table->max_fds)
		return 0;
	struct file *file = NULL;
	bpf_probe_read_kernel(&file, sizeof(file), &table->fd[fd]);
	void *object = BPF_CORE_READ(file, private_data);
	__u8 *own;
	// Of a file that is neither it is any number: then the call fails.
	if (is_map) {
		r.link = BPF_CORE_READ((struct bpf_map *)object, id);
		own = bpf_map_lookup_elem(&own_maps, &r.link);
	} else {
		r.link = BPF_CORE_READ((struct bpf_link *)object, id);
		own = bpf_map_lookup_elem(&own_links, &r.link);
	}
	if (!own || is_protected(task->tgid, task->group_leader->start_boottime))
		return 0;
	__u64 thread = bpf_get_current_pid_tgid();
	bpf_map_update_elem(&reaches, &thread, &r, BPF_ANY);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_bpf")
int reached_link(struct exit_context *ctx)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct reach *at = bpf_map_lookup_elem(&reaches, &thread);
	if (!at)
		return 0;
	// Who writes to a map without end must not hide that he takes a link off.
	__u32 pace = at->command == BPF_LINK_DETACH || at->command == BPF_LINK_UPDATE ? RECORD_TAMPER : RECORD_MAP_WRITE;
	struct record_tamper *r = ctx->ret || !affordable(pace, ALARMS_A_WINDOW) ? NULL : bpf_ringbuf_reserve(&alarms, sizeof(*r), 0);
	if (r) { // without room the look that comes by itself finds it, and not who did it
		struct task_struct *task = bpf_get_current_task_btf();
		__builtin_memset(r, 0, sizeof(*r));
		r->header.kind = RECORD_TAMPER;
		r->header.size = sizeof(*r);
		r->header.boot = bpf_ktime_get_boot_ns();
		r->header.flags = in_user_ns(task);
		fill_process(&r->process, task);
		r->link = at->link;
		r->command = at->command;
		bpf_ringbuf_submit(r, BPF_RB_FORCE_WAKEUP);
	}
	bpf_map_delete_elem(&reaches, &thread);
	return 0;
}

#define MOVES_A_WINDOW 100

// A process of the agent's was put into another cgroup, where it may be starved, frozen, or out of its sensors' sight.
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(on_moved, struct cgroup *to, const char *path, struct task_struct *moved, bool whole)
{
	__u32 tgid = moved->tgid;
	if (!is_protected(tgid, moved->group_leader->start_boottime))
		return 0;
	struct task_struct *task = bpf_get_current_task_btf();
	if (is_protected(task->tgid, task->group_leader->start_boottime) || !affordable(RECORD_MOVED, MOVES_A_WINDOW))
		return 0;
	struct record_tamper *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		count_drop(RECORD_MOVED);
		return 0;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->header.kind = RECORD_MOVED;
	r->header.size = sizeof(*r);
	r->header.boot = bpf_ktime_get_boot_ns();
	r->header.flags = in_user_ns(task);
	fill_process(&r->process, task);
	r->link = tgid;
	long n = bpf_probe_read_kernel_str(r->name, sizeof(r->name), path);
	r->name_len = n > 1 ? n - 1 : 0;
	bpf_ringbuf_submit(r, urgent());
	return 0;
}

// Run by the privileged half: its own record into the ring, in order with all others.
SEC("syscall")
int tell_tamper(struct record_tamper *told)
{
	struct record_tamper *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		count_drop(RECORD_TAMPER);
		return 1;
	}
	__builtin_memcpy(r, told, sizeof(*r));
	bpf_ringbuf_submit(r, BPF_RB_FORCE_WAKEUP);
	return 0;
}
