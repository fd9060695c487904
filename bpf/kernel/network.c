//go:build ignore
// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Sensor: TCP connections, and sockets that go past it. inet_sock_set_state fires in the caller's own context for connect
// and listen, so the process is known there; an inbound connection is established in an interrupt, and whose it is turns
// out when accept() returns it. A close may come long after its process: a flow remembers whose it was.
#define SCOPE_CLASS 4001
#include "scope.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_CLOSE 7
#define TCP_LISTEN 10
#define SOCK_DONE 2 // bit 1 of skc_flags

// The network namespace that inbound connections belong to, when scoped.
const volatile __u32 scope_net = 0;

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

struct flow {
	__u64 began;
	__u64 cookie;
	__u32 inbound;
	__u32 pad;
	struct record_process process; // zeros until an inbound one is accepted
};

// A connection has an entry until it is closed. Where there is no room for one more, its close goes untold, and is counted.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64); // the socket's address: an identity for as long as the flow lives
	__type(value, struct flow);
} flows SEC(".maps");

// fill_network reads a socket that the kernel vouches for, so each load is one instruction.
static __always_inline void fill_network(struct record_network *n, struct sock *sk)
{
	if (sk->__sk_common.skc_family == AF_INET) {
		v4_mapped(n->local, sk->__sk_common.skc_rcv_saddr);
		v4_mapped(n->remote, sk->__sk_common.skc_daddr);
	} else {
		bpf_core_read(&n->local, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(&n->remote, 16, &sk->__sk_common.skc_v6_daddr);
	}
	n->local_port = sk->__sk_common.skc_num;
	n->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	n->protocol = IPPROTO_TCP;
	n->cookie = bpf_get_socket_cookie(sk);
}

static __always_inline struct record_flow *begin(__u16 kind)
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
	return r;
}

static __always_inline void remember(const struct sock *sk, struct flow *f)
{
	__u64 key = (__u64)sk;
	if (bpf_map_update_elem(&flows, &key, f, BPF_ANY))
		count_drop(RECORD_CLOSE);
}

// muted_ports: does a filter mute either end?
static __always_inline bool muted_ports(struct sock *sk)
{
	return filtering(FILTER_PORT) && (muted_port(sk->__sk_common.skc_num) || muted_port(bpf_ntohs(sk->__sk_common.skc_dport)));
}

static __always_inline int connecting(struct sock *sk)
{
	struct flow f = {};
	if (!in_scope() || muted_ports(sk))
		return 0;
	f.began = bpf_ktime_get_boot_ns();
	fill_process(&f.process, bpf_get_current_task_btf());
	remember(sk, &f);
	struct record_flow *r = begin(RECORD_CONNECT);
	if (!r)
		return 0;
	r->process = f.process;
	fill_network(&r->network, sk);
	bpf_ringbuf_submit(r, soon(r->header.boot));
	return 0;
}

static __always_inline int listening(struct sock *sk)
{
	if (!in_scope() || muted_ports(sk))
		return 0;
	struct record_flow *r = begin(RECORD_LISTEN);
	if (!r)
		return 0;
	fill_process(&r->process, bpf_get_current_task_btf());
	fill_network(&r->network, sk);
	bpf_ringbuf_submit(r, soon(r->header.boot));
	return 0;
}

static __always_inline int established(struct sock *sk)
{
	if ((scope_net && sk->__sk_common.skc_net.net->ns.inum != scope_net) || muted_ports(sk))
		return 0;
	struct flow f = { .began = bpf_ktime_get_boot_ns(), .cookie = bpf_get_socket_cookie(sk), .inbound = 1 };
	remember(sk, &f);
	struct record_flow *r = begin(RECORD_ACCEPT);
	if (!r)
		return 0;
	fill_network(&r->network, sk);
	r->network.inbound = 1;
	r->network.cookie = bpf_get_socket_cookie(sk);
	bpf_ringbuf_submit(r, soon(r->header.boot));
	return 0;
}

static __always_inline int closed(struct sock *sk, int old)
{
	__u64 key = (__u64)sk;
	struct flow *f = bpf_map_lookup_elem(&flows, &key);
	if (!f)
		return 0;
	struct record_flow *r = begin(RECORD_CLOSE);
	if (r) {
		r->process = f->process;
		if (old == TCP_SYN_SENT) // why the connection never was
			r->process.exit_code = sk->sk_err ?: sk->sk_err_soft;
		fill_network(&r->network, sk);
		r->network.inbound = f->inbound;
		r->network.duration = r->header.boot - f->began;
		struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
		if (tcp) {
			r->network.bytes_in = tcp->bytes_received;
			if (r->network.bytes_in && sk->__sk_common.skc_flags & SOCK_DONE)
				r->network.bytes_in--; // the other side's FIN, which has a number of its own
			r->network.bytes_out = tcp->bytes_sent - tcp->bytes_retrans;
			if (!r->network.local_port) // given back already
				r->network.local_port = bpf_ntohs(tcp->inet_conn.icsk_inet.inet_sport);
		}
		bpf_ringbuf_submit(r, soon(r->header.boot));
	}
	bpf_map_delete_elem(&flows, &key);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state, struct sock *sk, int old, int new)
{
	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (new == TCP_SYN_SENT)
		return connecting(sk);
	if (new == TCP_LISTEN)
		return listening(sk);
	if (new == TCP_ESTABLISHED && old == TCP_SYN_RECV)
		return established(sk);
	if (new == TCP_CLOSE)
		return closed(sk, old);
	return 0;
}

// accepted_flow is the flow behind a descriptor that the current process just got. The socket is known by its address alone.
static __always_inline struct flow *accepted_flow(struct task_struct *task, long fd, __u64 *key)
{
	struct fdtable *table = task->files->fdt;
	struct file **files = table->fd, *file = NULL;
	if (fd < 0 || fd >= table->max_fds || bpf_probe_read_kernel(&file, sizeof(file), files + fd))
		return NULL;
	struct socket *socket = BPF_CORE_READ(file, private_data);
	struct sock *sk = BPF_CORE_READ(socket, sk);
	*key = (__u64)sk;
	struct flow *f = bpf_map_lookup_elem(&flows, key);
	if (f)
		return f;
	struct mptcp_sock *several = (struct mptcp_sock *)sk;
	if (!bpf_core_field_exists(several->first) || BPF_CORE_READ(sk, sk_protocol) != IPPROTO_MPTCP)
		return NULL;
	*key = (__u64)BPF_CORE_READ(several, first);
	return bpf_map_lookup_elem(&flows, key);
}

// After accept() and accept4(): who got the connection. Which that is the reader knows by the cookie.
SEC("tracepoint/syscalls/sys_exit_accept4")
int on_accepted(struct exit_context *ctx)
{
	__u64 key = 0;
	if (ctx->ret < 0)
		return 0;
	struct task_struct *task = bpf_get_current_task_btf();
	struct flow *f = accepted_flow(task, ctx->ret, &key);
	if (!f || !f->inbound || f->process.pid)
		return 0;
	fill_process(&f->process, task);
	bool quiet = !in_scope();
	struct record_flow *r = begin(RECORD_ACCEPT);
	if (r) {
		r->header.flags = quiet ? RECORD_FLAG_MUTED : 0;
		r->process = f->process;
		r->network.inbound = 1;
		r->network.protocol = IPPROTO_TCP;
		r->network.cookie = f->cookie;
		bpf_ringbuf_submit(r, soon(r->header.boot));
	}
	if (quiet)
		bpf_map_delete_elem(&flows, &key);
	return 0;
}

// A socket that reads or writes packets past the kernel's own protocols, and so past what we see and refuse of those.
struct opened {
	__u32 family;
	__u32 type;
	__u32 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, __u64); // thread
	__type(value, struct opened);
} opening SEC(".maps");

SEC("tracepoint/syscalls/sys_enter_socket")
int on_socket(struct enter_context *ctx)
{
	struct opened o = { .family = ctx->args[0], .type = ctx->args[1] & 15, .protocol = ctx->args[2] };
	bool raw = (o.family == AF_INET || o.family == AF_INET6) && (o.type == SOCK_RAW || o.type == SOCK_PACKET);
	if ((!raw && o.family != AF_PACKET) || !in_scope())
		return 0;
	__u64 thread = bpf_get_current_pid_tgid();
	bpf_map_update_elem(&opening, &thread, &o, BPF_ANY);
	return 0;
}

#define SOCKET_ALLOWANCE 500 // records in 100 ms and CPU: whoever may not have one can still ask

SEC("tracepoint/syscalls/sys_exit_socket")
int on_socket_opened(struct exit_context *ctx)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct opened *o = bpf_map_lookup_elem(&opening, &thread);
	if (!o)
		return 0;
	struct record_flow *r = affordable(RECORD_SOCKET, SOCKET_ALLOWANCE) ? begin(RECORD_SOCKET) : NULL;
	if (r) {
		fill_process(&r->process, bpf_get_current_task_btf());
		r->process.exit_code = ctx->ret < 0 ? -ctx->ret : 0;
		r->network.local_port = o->family;
		r->network.remote_port = o->type;
		r->network.bytes_out = o->protocol;
		bpf_ringbuf_submit(r, soon(r->header.boot));
	}
	bpf_map_delete_elem(&opening, &thread);
	return 0;
}
