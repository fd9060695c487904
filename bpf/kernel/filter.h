// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// What is not told: filters set from user space while the programs run, and a limit on what one cgroup may have told.
#ifndef OMEGA_FILTER_H
#define OMEGA_FILTER_H

#include "scope.h"

// An object says what it sees before it includes this: what its suppressed records are counted under.
#ifndef SCOPE_CLASS
#define SCOPE_CLASS 0
#endif

#define FILTER_OWN 1
#define FILTER_CGROUP 2
#define FILTER_UID 4
#define FILTER_PORT 8
#define FILTER_PATH 16
#define FILTER_RATE 32

struct filter_settings {
	__u32 active; // FILTER_*: a map that holds nothing is not asked
	__u32 rate;   // records a second from one cgroup
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct filter_settings);
} filters SEC(".maps");

// The agent's own processes by tgid, with their start: what they do is not told, what is done to them is.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} protected SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u8);
} filter_cgroup SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u8);
} filter_uid SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); // host order
	__type(value, __u8);
} filter_port SEC(".maps");

#define FILTER_PATH_MAX 248

struct path_prefix {
	__u32 bits;
	char path[FILTER_PATH_MAX]; // whole names only: a prefix ends in '/'
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct path_prefix);
	__type(value, __u8);
} filter_path SEC(".maps");

struct cgroup_pace {
	__u64 since; // CLOCK_BOOTTIME, ns
	__u64 spent;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct cgroup_pace);
} cgroup_paces SEC(".maps");

struct suppressed_key {
	__u64 cgroup;
	__u64 class;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct suppressed_key);
	__type(value, __u64);
} suppressed SEC(".maps");

static __always_inline bool filtering(__u32 by)
{
	__u32 zero = 0;
	struct filter_settings *f = bpf_map_lookup_elem(&filters, &zero);
	return f && (f->active & by);
}

// is_protected: does task belong to the agent?
static __always_inline bool is_protected(__u32 tgid, __u64 start)
{
	__u64 *known = bpf_map_lookup_elem(&protected, &tgid);
	return known && *known / 10000000 == start / 10000000; // the unit of /proc
}

// over_rate takes one record from the cgroup's share of this second.
static __always_inline bool over_rate(__u64 cgroup, __u32 rate)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct cgroup_pace *p = bpf_map_lookup_elem(&cgroup_paces, &cgroup);
	if (!p) {
		struct cgroup_pace first = { .since = now, .spent = 1 };
		bpf_map_update_elem(&cgroup_paces, &cgroup, &first, BPF_ANY);
		return false;
	}
	if (now - p->since >= 1000000000ULL) {
		p->since = now;
		p->spent = 0;
	}
	if (__sync_fetch_and_add(&p->spent, 1) < rate)
		return false;
	struct suppressed_key key = { .cgroup = cgroup, .class = SCOPE_CLASS };
	__u64 *n = bpf_map_lookup_elem(&suppressed, &key), one = 1;
	if (n)
		__sync_fetch_and_add(n, 1);
	else
		bpf_map_update_elem(&suppressed, &key, &one, BPF_ANY);
	return true;
}

// muted: is what the current task does not to be told? Inlined nowhere, so that the verifier reads it once.
static __attribute__((noinline)) int filtered(__u32 active, __u32 rate)
{
	if (active & FILTER_OWN) {
		struct task_struct *task = (struct task_struct *)bpf_get_current_task();
		__u32 tgid = bpf_get_current_pid_tgid() >> 32;
		__u64 *known = bpf_map_lookup_elem(&protected, &tgid);
		if (known && *known / 10000000 == BPF_CORE_READ(task, group_leader, start_boottime) / 10000000)
			return 1;
	}
	if (active & FILTER_UID) {
		__u32 uid = bpf_get_current_uid_gid();
		if (bpf_map_lookup_elem(&filter_uid, &uid))
			return 1;
	}
	if (active & (FILTER_CGROUP | FILTER_RATE)) {
		__u64 cgroup = bpf_get_current_cgroup_id();
		if ((active & FILTER_CGROUP) && bpf_map_lookup_elem(&filter_cgroup, &cgroup))
			return 1;
		if ((active & FILTER_RATE) && over_rate(cgroup, rate))
			return 1;
	}
	return 0;
}

static __always_inline bool muted(void)
{
	__u32 zero = 0;
	struct filter_settings *f = bpf_map_lookup_elem(&filters, &zero);
	return f && f->active && filtered(f->active, f->rate);
}

// muted_port: is what goes to or from this port not to be told?
static __always_inline bool muted_port(__u32 port)
{
	return filtering(FILTER_PORT) && bpf_map_lookup_elem(&filter_port, &port);
}

// muted_path: does a filter's prefix lead to this path? The caller keeps the key where it has room, zero padded.
static __always_inline bool muted_path(struct path_prefix *p)
{
	p->bits = FILTER_PATH_MAX * 8;
	return filtering(FILTER_PATH) && bpf_map_lookup_elem(&filter_path, p);
}

#endif
