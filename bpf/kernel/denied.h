// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// What execution.c and execution_lsm.c share: the files that are denied, and how a refusal is counted.
#ifndef DENIED_H
#define DENIED_H

#include "scope.h"

struct inode___numbered {
	__u32 i_generation;
} __attribute__((preserve_access_index));

struct file_key {
	__u64 inode;
	__u32 device; // the kernel's encoding: major << 20 | minor
	__u32 generation; // of the inode's number, which is given to another file once this one is gone; 0 is any
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct file_key);
	__type(value, struct until);
} deny_inode SEC(".maps");

// refused: it stands, and one more is counted.
static __always_inline bool refused(struct until *u)
{
	if (!stands(u))
		return false;
	__sync_fetch_and_add(&u->hits, 1);
	return true;
}

#endif
