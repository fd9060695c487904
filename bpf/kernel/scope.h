// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// What every program of ours shares: whom it watches, where its records go, and how a lost record is counted.
#ifndef OMEGA_SCOPE_H
#define OMEGA_SCOPE_H

#include "types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_endian.h>
#include "record.h"

// Set before load. Zero scoped: the whole host.
const volatile __u32 scoped = 0;

// The cgroup watched and acted in, when scoped.
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} scope_cgroup SEC(".maps");

// Until when a refusal stands, and by which response: the first 16 bytes of its id, so that a restarted node knows its own.
struct until {
	__u64 expires; // CLOCK_BOOTTIME, ns
	__u64 hits;
	__u8 id[16];
	__u64 flags;
};

#define UNTIL_SWARM_PASSES 1 // the address is a contained member's: what it says to our own swarm ports passes

// stands: a refusal past its end is void, whether or not anybody lived to remove it.
static __always_inline bool stands(struct until *u)
{
	return u && u->expires > bpf_ktime_get_boot_ns();
}

// One ring for all objects of a node (the loader puts the same map in each), so that records keep their order.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} ring SEC(".maps");

// Records that found the ring full, by kind: no loss is silent.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RECORD_KINDS);
	__type(key, __u32);
	__type(value, __u64);
} drops SEC(".maps");

// in_reach: may we act on the current task?
static __always_inline bool in_reach(void)
{
	if (!scoped)
		return true;
	return bpf_current_task_under_cgroup(&scope_cgroup, 0) == 1;
}

static __always_inline void count_drop(__u32 kind)
{
	__u64 *n = bpf_map_lookup_elem(&drops, &kind);
	if (n)
		(*n)++;
}

// What an attacker can make happen as often as he likes is paid for by the reader, and by the records it pushes out of
// the ring. So each CPU has an allowance: slot 0 for waking the reader, the others by kind.
struct pace {
	__u64 since;
	__u64 spent;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RECORD_KINDS);
	__type(key, __u32);
	__type(value, struct pace);
} paces SEC(".maps");

// An ordinary record wakes a reader that sleeps, and only that: the kernel wakes one that has said to have read all before the record,
// and ours says so when it goes to sleep (bpf/ring.go).
#define WAKE_ASLEEP 0
#define WAKE_URGENT 1000000ULL   // ns
#define PACE_WINDOW 100000000ULL // ns

// urgent is how a record that must not wait is submitted: it wakes the reader, at most once a millisecond and CPU.
static __always_inline __u64 urgent(void)
{
	__u32 slot = 0;
	struct pace *p = bpf_map_lookup_elem(&paces, &slot);
	__u64 now = bpf_ktime_get_boot_ns();
	if (!p || now - p->since < WAKE_URGENT)
		return WAKE_ASLEEP;
	p->since = now;
	return BPF_RB_FORCE_WAKEUP;
}

// affordable admits limit records of a kind in each window on each CPU; the others are counted as dropped.
static __always_inline bool affordable(__u32 kind, __u64 limit)
{
	struct pace *p = bpf_map_lookup_elem(&paces, &kind);
	if (!p)
		return false;
	__u64 now = bpf_ktime_get_boot_ns();
	if (now - p->since > PACE_WINDOW) {
		p->since = now;
		p->spent = 0;
	}
	if (p->spent >= limit) {
		count_drop(kind);
		return false;
	}
	p->spent++;
	return true;
}

#include "filter.h"

// in_scope: is what the current task does to be told? It is not where a filter mutes it, nor when its cgroup has had its
// share of records for this second.
static __always_inline bool in_scope(void)
{
	return in_reach() && !muted();
}

// changed_at is the inode's ctime in seconds, by the name this kernel has for it.
static __always_inline __s64 changed_at(struct inode *inode)
{
	if (bpf_core_field_exists(inode->i_ctime_sec))
		return inode->i_ctime_sec;
	struct inode___v610 *v610 = (void *)inode;
	if (bpf_core_field_exists(v610->__i_ctime))
		return BPF_CORE_READ(v610, __i_ctime.tv_sec);
	struct inode___v65 *v65 = (void *)inode;
	if (bpf_core_field_exists(v65->i_ctime))
		return BPF_CORE_READ(v65, i_ctime.tv_sec);
	return 0;
}

// v4_mapped writes ::ffff:a.b.c.d.
static __always_inline void v4_mapped(__u8 out[16], __be32 address)
{
	__u32 *w = (__u32 *)out;
	w[0] = 0;
	w[1] = 0;
	w[2] = bpf_htonl(0xffff);
	w[3] = address;
}

// fill_process describes task as far as it costs little; exe, args and cwd are the exec record's alone. The pointers are
// walked as typed ones (the kernel guards each load), which costs a third of as many calls of probe_read.
static __always_inline void fill_process(struct record_process *p, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;
	struct task_struct *parent = leader->real_parent;

	p->start = leader->start_boottime;
	p->parent_start = parent->group_leader->start_boottime;
	p->pid = task->tgid;
	p->parent_pid = parent->tgid;
	p->cgroup = task->cgroups->dfl_cgrp->kn->id;

	const struct cred *cred = task->cred;
	p->uid = cred->uid.val;
	p->gid = cred->gid.val;
	p->euid = cred->euid.val;
	p->egid = cred->egid.val;
	if (bpf_core_field_exists(cred->cap_effective.val))
		p->caps = cred->cap_effective.val;
	else // before 6.3
		bpf_core_read(&p->caps, sizeof(p->caps), &cred->cap_effective);
	p->login_uid = -1;
	if (bpf_core_field_exists(task->loginuid)) // CONFIG_AUDIT
		p->login_uid = task->loginuid.val;
	p->exit_code = 0;

	struct nsproxy *ns = task->nsproxy;
	p->mount_ns = ns->mnt_ns->ns.inum;
	p->pid_ns = ns->pid_ns_for_children->ns.inum;
	p->net_ns = ns->net_ns->ns.inum;

	struct inode *inode = task->mm->exe_file->f_inode;
	p->inode = inode->i_ino;
	p->device = inode->i_sb->s_dev;
	p->changed = changed_at(inode);
	__builtin_memcpy(p->comm, task->comm, sizeof(p->comm));

	struct signal_struct *signal = task->signal;
	p->session = signal->pids[3]->numbers[0].nr; // PIDTYPE_SID, as the first namespace counts
	__builtin_memset(p->tty, 0, sizeof(p->tty));
	struct tty_struct *tty = signal->tty;
	if (tty) {
		// The kernel calls a pseudo-terminal "pts3"; everybody else "pts/3", by its file.
		bpf_probe_read_kernel(p->tty, sizeof(p->tty) - 1, tty->name);
		if (p->tty[0] == 'p' && p->tty[1] == 't' && p->tty[2] == 's') {
			bpf_probe_read_kernel(p->tty + 4, sizeof(p->tty) - 4, tty->name + 3);
			p->tty[3] = '/';
		}
	}
}

// in_user_ns is a flag of a record: capabilities held in a user namespace of one's own are no rights over the host.
static __always_inline __u32 in_user_ns(struct task_struct *task)
{
	return task->cred->user_ns->level ? RECORD_FLAG_USER_NS : 0;
}

#endif
