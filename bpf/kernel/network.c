//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Sensor: TCP connections, from one hook. inet_sock_set_state fires in the caller's own context for connect and
// listen, so the process is known there; accept and close may fire in an interrupt, so a flow remembers who began it.
#define SCOPE_CLASS 4001
#include "scope.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_CLOSE 7
#define TCP_LISTEN 10

// The network namespace that inbound connections belong to, when scoped.
const volatile __u32 scope_net = 0;

struct flow {
	__u64 began;
	__u64 start; // of the process, with its pid its identity
	__u32 pid;
	__u32 inbound;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64); // the socket's address: an identity for as long as the flow lives
	__type(value, struct flow);
} flows SEC(".maps");

static __always_inline void fill_network(struct record_network *n, const struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (family == AF_INET) {
		v4_mapped(n->local, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
		v4_mapped(n->remote, BPF_CORE_READ(sk, __sk_common.skc_daddr));
	} else {
		bpf_core_read(&n->local, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(&n->remote, 16, &sk->__sk_common.skc_v6_daddr);
	}
	n->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	n->remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	n->protocol = IPPROTO_TCP;
}

static __always_inline struct record_flow *begin(__u16 kind, const struct sock *sk, bool with_process)
{
	struct record_flow *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		count_drop(kind);
		return NULL;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->header.kind = kind;
	r->header.size = sizeof(*r);
	r->header.boot = bpf_ktime_get_boot_ns();
	if (with_process)
		fill_process(&r->process, bpf_get_current_task_btf());
	fill_network(&r->network, sk);
	return r;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state, const struct sock *sk, int old, int new)
{
	if (BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP)
		return 0;
	__u64 key = (__u64)sk;

	if (new == TCP_SYN_SENT) {
		if (!in_scope())
			return 0;
		struct task_struct *task = bpf_get_current_task_btf();
		struct flow f = {
			.began = bpf_ktime_get_boot_ns(),
			.start = task->group_leader->start_boottime,
			.pid = bpf_get_current_pid_tgid() >> 32,
		};
		bpf_map_update_elem(&flows, &key, &f, BPF_ANY);
		struct record_flow *r = begin(RECORD_CONNECT, sk, true);
		if (r)
			bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
		return 0;
	}
	if (new == TCP_LISTEN) {
		if (!in_scope())
			return 0;
		struct record_flow *r = begin(RECORD_LISTEN, sk, true);
		if (r)
			bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
		return 0;
	}
	if (new == TCP_ESTABLISHED && old == TCP_SYN_RECV) {
		if (scope_net && BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum) != scope_net)
			return 0;
		struct flow f = { .began = bpf_ktime_get_boot_ns(), .inbound = 1 };
		bpf_map_update_elem(&flows, &key, &f, BPF_ANY);
		struct record_flow *r = begin(RECORD_ACCEPT, sk, false);
		if (r) {
			r->network.inbound = 1;
			bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
		}
		return 0;
	}
	if (new == TCP_CLOSE) {
		struct flow *f = bpf_map_lookup_elem(&flows, &key);
		if (!f)
			return 0;
		struct record_flow *r = begin(RECORD_CLOSE, sk, false);
		if (r) {
			struct tcp_sock *tcp = (struct tcp_sock *)sk;
			r->process.pid = f->pid;
			r->process.start = f->start;
			if (old == TCP_SYN_SENT) // why the connection never was
				r->process.exit_code = BPF_CORE_READ(sk, sk_err) ?: BPF_CORE_READ(sk, sk_err_soft);
			r->network.inbound = f->inbound;
			r->network.bytes_in = BPF_CORE_READ(tcp, bytes_received);
			r->network.bytes_out = BPF_CORE_READ(tcp, bytes_acked);
			r->network.duration = r->header.boot - f->began;
			bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
		}
		bpf_map_delete_elem(&flows, &key);
	}
	return 0;
}
