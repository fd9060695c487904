// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// The path of a file as the process sees it: an own walk up the dentries, since bpf_d_path is refused to tracing programs.
#ifndef OMEGA_PATH_H
#define OMEGA_PATH_H

#include "scope.h"

#define PATH_DEPTH 256 // no path of EXE_MAX bytes has more names
#define NAME_LENGTH 256

struct path_buffer {
	char bytes[EXE_MAX + NAME_LENGTH]; // a path is built from its end
};

// The state of one walk from a file up to the root; a loop's callback of its own keeps the verifier's work small.
struct walk {
	struct path_buffer *s;
	struct dentry *dentry;
	struct vfsmount *vfs;
	struct mount *mnt;
	struct dentry *root_dentry;
	struct vfsmount *root_vfs;
	struct dentry *mnt_root; // of vfs: asked once a mount, not once a name
	__u32 start; // where in s->bytes the path begins so far
};

static long step_up(__u32 i, struct walk *w)
{
	struct dentry *dentry = w->dentry; // CO-RE reads start from a plain variable, not from a field of ours
	struct vfsmount *vfs = w->vfs;
	struct mount *mnt = w->mnt;
	struct dentry *mnt_root = w->mnt_root;

	if (dentry == w->root_dentry && vfs == w->root_vfs)
		return 1;
	// What is asked of a name lies in one piece since dentries were made to fit a cache line: read as one, it costs a third.
	struct { struct dentry *parent; __u32 hash; __u32 length; const unsigned char *name; } at = {};
	if (bpf_core_field_offset(struct dentry, d_name) == bpf_core_field_offset(struct dentry, d_parent) + 8 &&
	    bpf_core_field_offset(struct qstr, len) == 4 && bpf_core_field_offset(struct qstr, name) == 8) {
		if (bpf_probe_read_kernel(&at, sizeof(at), (void *)dentry + bpf_core_field_offset(struct dentry, d_parent)) < 0)
			return 1;
	} else {
		at.parent = BPF_CORE_READ(dentry, d_parent);
		at.length = BPF_CORE_READ(dentry, d_name.len);
		at.name = BPF_CORE_READ(dentry, d_name.name);
	}
	struct dentry *parent = at.parent;
	if (dentry == mnt_root || dentry == parent) {
		struct mount *up = BPF_CORE_READ(mnt, mnt_parent);
		if (dentry != mnt_root || up == mnt)
			return 1; // the top of all mounts, or a file with no place in the tree (memfd)
		w->dentry = BPF_CORE_READ(mnt, mnt_mountpoint);
		w->mnt = up;
		w->vfs = (void *)up + bpf_core_field_offset(struct mount, mnt);
		vfs = w->vfs;
		w->mnt_root = BPF_CORE_READ(vfs, mnt_root);
		return 0;
	}
	__u32 length = at.length & (NAME_LENGTH - 1);
	__u32 start = w->start;
	if (start > EXE_MAX || length + 1 > start)
		return 1; // what does not fit is cut at the front: the file's own name is always there
	__u32 from = start - length;
	if (from > EXE_MAX)
		return 1;
	if (bpf_probe_read_kernel(&w->s->bytes[from], length, at.name) < 0)
		return 1;
	from--;
	if (from >= EXE_MAX)
		return 1;
	w->s->bytes[from] = '/';
	w->start = from;
	w->dentry = parent;
	return 0;
}

// build_path walks from a file up to root, over mounts, and returns where in s->bytes the path starts.
static __always_inline __u32 build_path(struct path_buffer *s, const struct path *at, const struct path *root)
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
	struct vfsmount *vfs = w.vfs;
	w.mnt_root = BPF_CORE_READ(vfs, mnt_root);
	bpf_loop(PATH_DEPTH, step_up, &w, 0);
	if (w.start == EXE_MAX) { // the root itself, or a name with no tree above it
		struct dentry *top = w.dentry;
		__u32 length = BPF_CORE_READ(top, d_name.len) & (NAME_LENGTH - 1);
		__u32 from = EXE_MAX - length;
		if (length && bpf_probe_read_kernel(&s->bytes[from & (EXE_MAX - 1)], length, BPF_CORE_READ(top, d_name.name)) == 0)
			return from;
	}
	return w.start;
}

#endif
