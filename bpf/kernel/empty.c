//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Programs that do nothing, at the hooks of network.c and names.c: what those hooks cost by themselves.
#include "types.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define EMPTY(SECTION, NAME, CONTEXT, VERDICT) \
	SEC(SECTION) int NAME(CONTEXT *ctx) { return VERDICT; }

EMPTY("tp_btf/inet_sock_set_state", on_state, void, 0)
EMPTY("tracepoint/syscalls/sys_exit_accept4", on_accepted, void, 0)
EMPTY("tracepoint/syscalls/sys_exit_socket", on_socket_opened, void, 0)
EMPTY("cgroup_skb/egress", names_out, struct __sk_buff, 1)
EMPTY("cgroup_skb/ingress", names_in, struct __sk_buff, 1)
EMPTY("cgroup/connect4", note_connect4, struct bpf_sock_addr, 1)
EMPTY("cgroup/connect6", note_connect6, struct bpf_sock_addr, 1)
EMPTY("cgroup/sendmsg4", note_sendmsg4, struct bpf_sock_addr, 1)
EMPTY("cgroup/sendmsg6", note_sendmsg6, struct bpf_sock_addr, 1)
EMPTY("cgroup/recvmsg4", note_recvmsg4, struct bpf_sock_addr, 1)
EMPTY("cgroup/recvmsg6", note_recvmsg6, struct bpf_sock_addr, 1)
EMPTY("cgroup/post_bind4", note_bind4, struct bpf_sock, 1)
EMPTY("cgroup/post_bind6", note_bind6, struct bpf_sock, 1)
EMPTY("cgroup/sock_release", note_release, struct bpf_sock, 1)
