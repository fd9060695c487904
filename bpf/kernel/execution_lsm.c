//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// The same denial as execution.c, asked before the image is replaced, where the kernel takes BPF LSM programs. Its own
// object: many kernels refuse the type, and that must not cost the others. It shares execution.c's maps.
#include "scope.h"
#include "denied.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("lsm/bprm_check_security")
int BPF_PROG(refuse_exec, struct linux_binprm *bprm, int ret)
{
	if (ret)
		return ret;
	if (!in_reach())
		return 0;
	struct inode *inode = BPF_CORE_READ(bprm, file, f_inode);
	struct file_key key = {};
	key.inode = BPF_CORE_READ(inode, i_ino);
	key.device = BPF_CORE_READ(inode, i_sb, s_dev);
	if (refused(bpf_map_lookup_elem(&deny_inode, &key)))
		return -1; // EPERM
	key.generation = BPF_CORE_READ((struct inode___numbered *)inode, i_generation);
	if (key.generation && refused(bpf_map_lookup_elem(&deny_inode, &key)))
		return -1;
	return 0;
}
